"""EVEv1 at laptop size on the demo's records: a small LLM learns the language, then EVEv1's stages teach it to see.

    python -m launch.recipe --config=demo_v1 --workdir=runs/demo_v1
    python -m launch.recipe --config=demo_v1:tiny --workdir=runs/tiny_v1     the same at test size

As `demo`, with a LLaMA-like LLM (llm, llm_chat) that keeps single weights, and the stages v1_prealign (LLM frozen) and
v1_pretrain on captions, both with the aligning loss, and v1_sft on questions without it. Every image's longer side
becomes 192 pixels, six windows. No CLIP can be had offline, so the teacher is a tower of CLIP's shape with fixed random
weights: its features are a fixed mixture of what the patches look like and where they are, and mean nothing more.
"""

from dataclasses import asdict

from ml_collections import ConfigDict

from configs import base, demo
from configs.args import parse_args
from eve_jax.model.clip_config import ClipConfig
from eve_jax.model.llms import llm_sizes

TEACHER = ClipConfig(image_size=96, patch_size=16, hidden_size=64, intermediate_size=128, num_layers=3, num_heads=4)
# name, stage of eve_jax/config/stages.py, template, records, steps, peak learning rate
STAGES = (
    ("llm", "llm", "plain", "llm", 300, 2e-3),
    ("llm_chat", "llm", "qwen2", "llm_chat", 1100, 1e-3),
    ("v1_prealign", "1", "plain", "captions", 200, 2e-3),
    ("v1_pretrain", "2.2", "plain", "captions", 1100, 1e-3),
    ("v1_sft", "3", "qwen2", "questions,sft", 1900, 1e-3),
)


def square(c: ConfigDict) -> None:
    """Give the stage `c` of the demo images on EVEv1's canvas, and rows for them."""
    c.data.image_mode = "square"
    c.data.max_size = 192
    c.data.teacher = (TEACHER.image_size, TEACHER.patch_size)
    c.data.max_tokens = c.data.row_tokens = 256
    c.data.rows = 2


def stage(name: str, kind: str, template: str, records: str, steps: int, lr: float, tiny: bool) -> ConfigDict:
    """One stage of the recipe; `WORKDIR` in a path stands for the recipe's work folder."""
    c = demo.stage(name, kind, template, "", steps, lr, tiny)
    sizes = base.get_v1_config("tiny-llama" if tiny else "demo-llama")
    for field in ("llm", *llm_sizes("demo-llama"), "patch_embed", "variant"):
        c.model[field] = sizes.model[field]
    c.data.records = ",".join(f"WORKDIR/data/{file}.jsonl" for file in records.split(","))
    square(c)
    if name in ("v1_prealign", "v1_pretrain"):
        c.teacher = "random"
        c.model.teacher = ConfigDict(asdict(TEACHER))
        c.model.align_width = TEACHER.hidden_size
        c.model.align_weight = 1.0
    return c


def get_config(arg: str = "") -> ConfigDict:
    tiny = parse_args("demo_v1", arg, tiny=False)["tiny"]
    c = demo.get_config(arg)
    c.name = "demo_v1"
    c.order = tuple(s[0] for s in STAGES)
    c.stages = ConfigDict({s[0]: stage(*s, tiny) for s in STAGES})
    demo.evaluate(c.stages.v1_sft, tiny)
    return c
