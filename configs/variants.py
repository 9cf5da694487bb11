"""The papers' four models compared at laptop size: EVEv1.0, v1.2, v1.5 and v2.0 on the same records and steps.

    python -m launch.recipe --config=variants --workdir=runs/variants          under 30 minutes on 2 cores
    python -m launch.recipe --config=variants:tiny --workdir=runs/vtiny        the same at test size
    python -m launch.recipe --config=variants:of=dense+dac --workdir=...       some of them

A small tree, as in Fig. 5 of the EVEv2 paper: the LLM (llm, llm_chat) and the pre-alignment (stage1: the patch
embedding alone) are trained once, then each variant learns from captions (stage 2) and from questions (SFT).

| variant | in the papers | trains on captions, in stage VARIANT_captions |
|---|---|---|
| dense | EVEv1.0 | everything: nothing in its layers could learn with the LLM frozen, and EVEv1 pretrains so |
| rep | EVEv1.2 | patch embedding, gated deltas (which act on text tokens, too) |
| moe | EVEv1.5 | patch embedding, vision feed-forward |
| dac | EVEv2.0 | patch embedding, all vision weights |

On questions, in VARIANT_questions, everything trains. There is no text alone among them, so what is forgotten shows.

Records, order, rows, steps and learning rates are the same for all four, so the larger ones have more weights and no
more data. The dataset is the demo's with fewer kinds, words and colors, and everything but the steps follows
configs/demo.py. Leaves variants.json, variants.md and variants.png (the table), losses.png and weights.png.
Result: docs/variants.md. Arguments: tiny, of=VARIANT+VARIANT...
"""

from ml_collections import ConfigDict

from configs import demo
from configs.args import parse_args
from eve_jax.errors import UserError
from eve_jax.model.config import VARIANTS

# name -> stage of the demo that it is like, steps
SHARED = {"llm": ("llm", 300), "llm_chat": ("llm_chat", 900), "stage1": ("stage1", 150)}
OWN = {"captions": ("stage2_1", 600), "questions": ("stage2_2", 750)}
SETTINGS = {  # of the dataset: as much as the steps can use, and no records of sft.jsonl
    "kinds": 16,
    "words": 10,
    "colors": 5,
    "held_pairs": (1, 5),
    "documents": 6000,
    "chats": 10_000,
    "caption_images": 9000,
    "question_images": 6500,
    "question_pairs": 1200,
    "sft_images": 0,
    "sft_pairs": 0,
    "sft_texts": 0,
    "heldout_per_task": 60,
}


def stage(whole: ConfigDict, name: str, like: str, steps: int, variant: str = "") -> ConfigDict:
    """The demo's stage `like` under a name, and for a variant, of its own; a variant begins where stage1 ends."""
    c = whole.stages[like].copy_and_resolve_references()
    c.name = name
    if whole.demo.size == "full":
        c.train.steps = steps
    else:  # one program a stage
        c.data.max_shapes = c.data.micro_batches = 1
    if variant:
        c.name = f"{variant}_{name}"
        c.model.variant = variant
    if variant and like == "stage2_1":
        c.init = "WORKDIR/stage1"
        c.stage = "2.2" if variant == "dense" else "2.1"
    return c


def chosen_variants(names: str) -> tuple[str, ...]:
    """The variants that `of=` names, all of them for ""; UserError for one that is unknown."""
    chosen = tuple(names.split("+")) if names else tuple(VARIANTS)
    for name in chosen:
        if name not in VARIANTS:
            raise UserError(f"--config=variants:of={names}: unknown variant {name!r}; known: {', '.join(VARIANTS)}")
    return chosen


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("variants", arg, tiny=False, of="")
    c = demo.get_config("tiny" if a["tiny"] else "")
    c.name = "variants"
    c.demo.settings = ConfigDict({} if a["tiny"] else SETTINGS)  # over those of the demo's size
    variants = chosen_variants(a["of"])
    stages = [stage(c, name, *of) for name, of in SHARED.items()]
    stages += [stage(c, name, *of, variant) for variant in variants for name, of in OWN.items()]
    c.order = tuple(s.name for s in stages)
    c.stages = ConfigDict({s.name: s for s in stages})
    c.compare = ConfigDict(
        {
            "llm": "llm_chat",  # stage that all weights and texts are compared with
            "variants": variants,
            "stages": tuple(OWN),  # the folders are VARIANT_STAGE
            "texts": 20 if a["tiny"] else 300,  # held-out documents, and as many chats
        }
    )
    return c
