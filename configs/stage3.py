"""Stage 3, supervised fine-tuning: everything trains on instructions (EVEv2 paper, Table 1).

    python -m launch.train --config=stage3 --workdir=runs --config.init=runs/stage2_2 \
        --config.data.records=sft7m.jsonl --config.data.images=images

EVE-sft-7M, images up to 1600^2, about 512 samples a step, one epoch. Arguments: llm=NAME, variant=NAME,
lora=RANK.
"""

from ml_collections import ConfigDict

from configs import base, members
from configs.args import parse_args


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("stage3", arg, llm="qwen2.5-7b", variant="dac", lora="")
    c = base.get_config(a["llm"], a["variant"])
    members.refuse_others(c, "stage3")
    c.name, c.stage = "stage3", "3"
    c.data.max_tokens = 5000
    c.data.row_tokens = 8192
    c.data.rows = 64  # times 2 micro-batches: 1 M slots, about 512 samples of mixed sizes
    c.optim.lr = 1e-5
    return base.adapt(c, a["lora"])
