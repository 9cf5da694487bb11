"""Stage 2.1, perception: patch embedding and vision weights learn from captions, the LLM stays frozen (Table 1).

    python -m launch.train --config=stage2_1 --workdir=runs --config.init=runs/stage1 \
        --config.data.records=recap29m.jsonl --config.data.images=images
    python -m launch.train --config=stage2_1:hd --workdir=runs --config.init=runs/stage2_1 ...

EVE-recap-29M, images up to 800^2, about 1,024 samples a step; `hd`: EVE-recap-48M, up to 1600^2. One epoch each.
Arguments: llm=NAME, variant=NAME, hd, lora=RANK.
"""

from ml_collections import ConfigDict

from configs import base, members
from configs.args import parse_args


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("stage2_1", arg, llm="qwen2.5-7b", variant="dac", hd=False, lora="")
    c = base.get_config(a["llm"], a["variant"])
    members.refuse_others(c, "stage2_1")
    c.name, c.stage = "stage2_1", "2.1"
    c.data.template = "plain"
    c.data.image_mode = "anyratio_ld"
    c.data.max_tokens = 2048
    c.data.row_tokens = 4096
    c.data.rows = 128  # times 2 micro-batches: 1 M slots, about 1,024 samples of 800^2
    c.optim.lr = 1e-4
    if a["hd"]:
        c.name = "stage2_1_hd"
        c.data.image_mode = "anyratio_hd"
        c.data.max_tokens = 4096
        c.data.row_tokens = 8192
        c.data.rows = 64
        c.data.micro_batches = 5  # 2.6 M slots, about 1,024 samples of 1600^2
        c.optim.lr = 5e-5
    return base.adapt(c, a["lora"])
