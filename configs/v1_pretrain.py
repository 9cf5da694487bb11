"""EVEv1's second stage: everything learns from captions, with the aligning loss (EVEv1 paper, section 3.3).

    python -m launch.train --config=v1_pretrain --workdir=runs --config.init=runs/v1_prealign \
        --config.data.records=captions33m.jsonl --config.data.images=images

33 M captions, images on a canvas of 672^2, about 512 samples a step, one epoch. The teacher comes with the first
stage's checkpoint; `teacher=DIR` names CLIP's folder where it does not. Arguments: llm=NAME, teacher=DIR.
"""

from ml_collections import ConfigDict

from configs import base
from configs.args import parse_args


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("v1_pretrain", arg, llm="vicuna-7b", teacher="")
    c = base.align(base.get_v1_config(a["llm"]), a["teacher"])
    c.name, c.stage = "v1_pretrain", "2.2"
    c.data.template = "plain_v1"
    c.data.rows = 144
    c.optim.lr = 4e-5
    c.optim.warmup = 0.01
    return c
