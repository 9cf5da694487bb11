"""Stage 1, pre-alignment: the patch embedding layer learns to speak to a frozen LLM (EVEv2 paper, Table 1).

    python -m launch.train --config=stage1 --workdir=runs --config.init=QWEN_DIR \
        --config.data.records=recap10m.jsonl --config.data.images=images

EVE-recap-10M, images up to 800^2, about 1,024 samples a step, one epoch. Arguments: llm=NAME, variant=NAME.
"""

from ml_collections import ConfigDict

from configs import base, members
from configs.args import parse_args


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("stage1", arg, llm="qwen2.5-7b", variant="dac")
    c = base.get_config(a["llm"], a["variant"])
    members.refuse_others(c, "stage1")
    c.name, c.stage = "stage1", "1"
    c.model.variant = "dense"  # the vision copies are made from the text weights when stage 2.1 starts
    c.data.template = "plain"
    c.data.image_mode = "anyratio_ld"
    c.data.max_tokens = 2048
    c.data.row_tokens = 4096
    c.data.rows = 128  # times 2 micro-batches: 1 M slots, about 1,024 samples of 800^2
    c.optim.lr = 2e-4
    return c
