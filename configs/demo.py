"""The whole recipe at laptop size: a small LLM learns the language, then the four stages teach it to see.

    python -m launch.recipe --config=demo --workdir=runs/demo          under 15 minutes on 2 cores
    python -m launch.recipe --config=demo:tiny --workdir=runs/tiny     the same at test size

Writes its own records (images of OpenMoji things and signs), pretrains an LLM on text alone (llm, llm_chat), trains
stage1, stage2_1, stage2_2 and stage3, each from the one before, answers held-out questions (some of them also while
stage2_2 and stage3 train) and leaves report.json, report.png and losses.png in the work folder.
Images keep their sizes in training and answering (image rule `shrink`).
"""

from ml_collections import ConfigDict

from configs import base
from configs.args import parse_args

ANSWER = 12  # tokens of the longest answer
# name, stage of eve_jax/config/stages.py, template, records, steps, peak learning rate
STAGES = (
    ("llm", "llm", "plain", "llm.jsonl", 300, 2e-3),
    ("llm_chat", "llm", "qwen2", "llm_chat.jsonl", 900, 1.5e-3),
    ("stage1", "1", "plain", "captions.jsonl", 200, 2e-3),
    ("stage2_1", "2.1", "plain", "captions.jsonl", 1200, 2e-3),
    ("stage2_2", "2.2", "qwen2", "questions.jsonl", 1600, 1e-3),
    ("stage3", "3", "qwen2", "sft.jsonl", 500, 3e-4),
)


def stage(name: str, kind: str, template: str, records: str, steps: int, lr: float, tiny: bool) -> ConfigDict:
    """One stage of the recipe; `WORKDIR` in a path stands for the recipe's work folder."""
    c = base.get_config("tiny" if tiny else "demo")
    c.name, c.stage = name, kind
    c.model.variant = "dense" if kind in ("llm", "1") else "dac"
    c.model.patch_hidden = 64 if tiny else 256
    c.model.dtype = c.model.frozen_dtype = "float32"
    c.model.remat = "none"
    c.data.records = f"WORKDIR/data/{records}"
    c.data.images = "WORKDIR/data/images"
    c.data.tokenizer = "WORKDIR/data/tokenizer"
    c.data.template = template
    c.data.image_mode = "anyratio_ld"
    c.data.max_tokens = c.data.row_tokens = 128
    c.data.max_shapes = 2
    c.data.rows = 4
    c.data.micro_batches = 2 if tiny else 1
    c.data.epochs = 100
    c.optim.lr = lr
    c.optim.b2 = 0.98  # thousands of small steps, not tens of thousands of large ones
    c.optim.warmup = 0.05
    c.train.steps = 8 if tiny else steps
    c.train.save_every = 500
    return c


def evaluate(c: ConfigDict, tiny: bool) -> None:
    """Measure the loss of the held-out questions while the stage `c` trains, and the accuracy on the first of them."""
    c.eval.records = c.eval.tasks = "WORKDIR/data/heldout.jsonl"
    c.eval.every = 4 if tiny else 200
    c.eval.limit = 6 if tiny else 60
    c.eval.rows = 32
    c.eval.fit = "shrink"
    c.eval.max_new_tokens = ANSWER


def get_config(arg: str = "") -> ConfigDict:
    tiny = parse_args("demo", arg, tiny=False)["tiny"]
    c = ConfigDict()
    c.name = "demo"
    c.demo = ConfigDict({"size": "tiny" if tiny else "full", "seed": 0, "answer_batch": 32, "max_new_tokens": ANSWER})
    c.order = tuple(s[0] for s in STAGES)
    c.stages = ConfigDict({s[0]: stage(*s, tiny) for s in STAGES})
    for name in ("stage2_2", "stage3"):
        evaluate(c.stages[name], tiny)
    return c
