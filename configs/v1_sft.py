"""EVEv1's last stage: everything trains on instructions, without the aligning loss (EVEv1 paper, section 3.3).

    python -m launch.train --config=v1_sft --workdir=runs --config.init=runs/v1_pretrain \
        --config.data.records=llava665k.jsonl --config.data.images=images
    python -m launch.train --config=v1_sft:hd --workdir=runs --config.init=runs/v1_pretrain ...

Images on a canvas of 672^2, `hd`: 1344^2; about 128 samples a step, one epoch. With `aligned` the aligning loss stays
on (teacher and aligning layer then come with the checkpoint, or the teacher by `teacher=DIR`).
Arguments: llm=NAME, hd, aligned, teacher=DIR, lora=RANK.
"""

from ml_collections import ConfigDict

from configs import base
from configs.args import parse_args


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("v1_sft", arg, llm="vicuna-7b", hd=False, aligned=False, teacher="", lora="")
    c = base.get_v1_config(a["llm"])
    c.name, c.stage = "v1_sft", "3"
    c.data.rows = 48
    if a["hd"]:
        c.name = "v1_sft_hd"
        c.data.max_size = 1344
        c.data.max_tokens = c.data.row_tokens = 4096
        c.data.rows = 64
    if a["aligned"] or a["teacher"]:
        base.align(c, a["teacher"])
    c.optim.lr = 2e-5
    c.optim.warmup = 0.01
    return base.adapt(c, a["lora"])
