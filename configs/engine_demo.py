"""The papers' data engine at laptop size: web captions against those of a model, and of a model with experts.

    python -m launch.recipe --config=engine_demo --workdir=runs/engine          about an hour on 2 cores
    python -m launch.recipe --config=engine_demo:tiny --workdir=runs/etiny      the same at test size
    python -m launch.recipe --config=engine_demo:captioner=runs/demo/stage3 --workdir=...    the demo's own EVE captions

As in Fig. 6 of the EVEv2 paper: the same images with three kinds of captions, and a model trained on each.

| made | what it is |
|---|---|
| llm, llm_chat, stage1, captions | as in the demo: an LLM, and an EVE that learns from right captions of other images |
| captioner | it learns to caption with what the web and experts say, from images with right captions |
| curated/ | web-like images (their captions: file names, hashtags, errors ...), sorted out, read by OCR |
| captioned/ | captions by the captioner alone, behind the server of launch.serve |
| recaptioned/ | captions by the same model, whose prompt has the web's caption and what OCR read |
| SET_SEED_pretrain, SET_SEED_questions | a student of each set and seed: EVEv1.0 (dense), from llm_chat |

Students differ in their captions and seeds alone: images, order, steps, learning rates and questions are the same.
Requires the extras demo, serve and curate; `--config.loop.curate.experts.run=` does without OCR. Leaves
engine_demo.json, engine_demo.md and engine_demo.png. Result: docs/curation.md#fig-6-in-small.
Arguments: tiny, captioner=FOLDER
"""

from ml_collections import ConfigDict

from configs import caption, curate, demo
from configs.args import parse_args
from eve_jax.process.paths import expand, fetch

SEEDS = 3
SETS = ("raw", "captioned", "recaptioned")
STUDENT = {"pretrain": ("stage2_1", 600), "questions": ("stage2_2", 300)}  # name: stage of the demo, steps
SHARED = {"llm": ("llm", 300), "llm_chat": ("llm_chat", 600), "stage1": ("stage1", 150), "captions": ("stage2_1", 600)}
SOURCES = {"raw": "WORKDIR/curated/records", "captioned": "WORKDIR/captioned", "recaptioned": "WORKDIR/recaptioned"}
SETTINGS = {  # of the dataset: few questions, so that what is known of images is from captions
    "kinds": 16,
    "words": 20,
    "colors": 5,
    "held_pairs": (1, 5),
    "documents": 6000,
    "chats": 8000,
    "caption_images": 3000,
    "question_images": 600,
    "question_pairs": 150,
    "sft_images": 0,
    "sft_pairs": 0,
    "sft_texts": 0,
    "heldout_per_task": 60,
}
PROMPT = "Describe the image.\n{block}"
END = 2  # token that ends an answer in the demo's tokenizer


def stage(whole: ConfigDict, name: str, like: str, steps: int) -> ConfigDict:
    """The demo's stage `like` under a name."""
    c = whole.stages[like].copy_and_resolve_references()
    c.name = name
    c.eval.every, c.eval.tasks, c.eval.records = 0, "", ""
    if whole.demo.size == "full":
        c.train.steps = steps
    else:  # one program a stage
        c.data.max_shapes = c.data.micro_batches = 1
    return c


def captioner(whole: ConfigDict, folder: str) -> ConfigDict:
    """The stage that learns to caption, from `folder` or from the stage before."""
    c = stage(whole, "captioner", "stage2_2", 600)
    c.data.records = "WORKDIR/taught.jsonl"
    c.data.images = "WORKDIR/taught/images"
    c.data.max_tokens = c.data.row_tokens = 256
    c.data.rows = 2
    c.init = folder
    c.data.tokenizer = "" if folder else c.data.tokenizer
    return c


def student(whole: ConfigDict, captions: str, seed: int, name: str) -> ConfigDict:
    """A stage of a student."""
    c = stage(whole, f"{captions}_{seed}_{name}", *STUDENT[name])
    c.seed = seed
    c.model.variant = "dense"
    c.stage = "2.2"
    if name == "pretrain":
        c.init = "WORKDIR/llm_chat"
        c.data.records, c.data.images = SOURCES[captions], ""
        c.eval.records, c.eval.images = "WORKDIR/unseen/records.jsonl", "WORKDIR/unseen/images"
        c.eval.every = max(c.train.steps // 6, 1)
    return c


def curation(tiny: bool) -> ConfigDict:
    """How the web is curated: what is of no use left out, then drawn evenly over clusters."""
    c = curate.get_config()
    c.shard_records = 16 if tiny else 200
    c.filter.short_edge, c.filter.aspect, c.filter.entropy = 48, 4.0, 0.3
    c.embed.kind = "pixels"
    c.select.clusters, c.select.iterations = (4, 5) if tiny else (24, 20)
    c.select.rule = "balanced:80" if tiny else "balanced:2400"
    c.dedup.phash = -1  # it hashes gray values: signs with one word in two colors would be copies of each other
    c.experts.run = "ocr"
    c.experts.ocr.short_side = 256  # letters are 20 pixels high and more
    return c


def captions(tiny: bool) -> ConfigDict:
    """How captions are asked for and checked."""
    c = caption.get_config("densefusion")
    c.prompt.text = PROMPT
    c.endpoint.model = "captioner"
    c.endpoint.max_tokens = 40
    c.endpoint.temperature = 0.0
    c.endpoint.concurrency = 16
    c.checks.min_words = 2  # "A cat."
    c.checks.same = 0  # many images show a cat and nothing else
    if tiny:  # it has learned nothing, not even to end an answer
        c.endpoint.temperature = 1.0
        c.endpoint.body = f'{{"logit_bias": {{"{END}": 100}}, "min_tokens": 6}}'
        c.checks.min_words, c.checks.first_bad = 0, 0
        c.checks.finished = c.checks.leaks = c.checks.refusals = c.checks.coordinates = False
        c.checks.repetition = c.checks.ocr = c.checks.classes = 0.0
    return c


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("engine_demo", arg, tiny=False, captioner="")
    tiny, folder = a["tiny"], expand(a["captioner"], "captioner", fetch) if a["captioner"] else ""
    c = demo.get_config("tiny" if tiny else "")
    c.name = "engine_demo"
    c.demo.settings = ConfigDict({} if tiny else SETTINGS)
    seeds = 2 if tiny else SEEDS
    shared = {name: of for name, of in SHARED.items() if not folder or name in ("llm", "llm_chat")}
    stages = [stage(c, name, *of) for name, of in shared.items()] + [captioner(c, folder)]
    stages += [student(c, captions, seed, name) for seed in range(seeds) for captions in SETS for name in STUDENT]
    c.order = tuple(s.name for s in stages)
    c.stages = ConfigDict({s.name: s for s in stages})
    c.loop = loop = ConfigDict()
    loop.captioner = "captioner"
    loop.web = 120 if tiny else 2800
    loop.taught = 40 if tiny else 1200
    loop.bad = 0.06
    loop.unseen = 12 if tiny else 200
    loop.sets, loop.seeds, loop.stages = SETS, seeds, tuple(STUDENT)
    loop.slots, loop.context = 8, 256
    loop.curate, loop.caption = curation(tiny), captions(tiny)
    return c
