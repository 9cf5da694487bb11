"""EVEv1's first stage: patch embedding and patch aligning layer learn to speak to a frozen LLM (EVEv1 paper, 3.3).

    python -m launch.train --config=v1_prealign:teacher=CLIP_DIR --workdir=runs --config.init=VICUNA_DIR \
        --config.data.records=captions.jsonl --config.data.images=images

Captions, images on a canvas of 672^2, about 512 samples a step. CLIP_DIR is openai/clip-vit-large-patch14-336 as
safetensors. Arguments: llm=NAME, teacher=DIR.
"""

from ml_collections import ConfigDict

from configs import base
from configs.args import parse_args


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("v1_prealign", arg, llm="vicuna-7b", teacher="")
    c = base.align(base.get_v1_config(a["llm"]), a["teacher"])
    c.name, c.stage = "v1_prealign", "1"
    c.data.template = "plain_v1"
    c.data.rows = 144
    c.optim.lr = 4e-4
    return c
