"""Stage 2.2, full alignment: everything trains on multi-task conversations (EVEv2 paper, Table 1).

    python -m launch.train --config=stage2_2 --workdir=runs --config.init=runs/stage2_1_hd \
        --config.data.records=multitask15m.jsonl --config.data.images=images

EVE-multi-task-15M, images up to 1600^2, about 512 samples a step, one epoch. Arguments: llm=NAME, variant=NAME,
lora=RANK.
"""

from ml_collections import ConfigDict

from configs import base, members
from configs.args import parse_args


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("stage2_2", arg, llm="qwen2.5-7b", variant="dac", lora="")
    c = base.get_config(a["llm"], a["variant"])
    members.refuse_others(c, "stage2_2")
    c.name, c.stage = "stage2_2", "2.2"
    c.data.max_tokens = 4096
    c.data.row_tokens = 8192
    c.data.rows = 64  # times 2 micro-batches: 1 M slots, about 512 samples of mixed sizes
    c.optim.lr = 2e-5
    return base.adapt(c, a["lora"])
