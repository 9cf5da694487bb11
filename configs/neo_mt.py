"""NEO's mid-training: everything trains, on larger images and longer rows.

    python -m launch.train --config=neo_mt --workdir=runs --config.init=runs/neo_pt \
        --config.data.records=mid.jsonl --config.data.images=images

arXiv 2510.14979, section 3.3 and the scripts: 40 M records, 50,000 steps. Arguments: llm=NAME (qwen3-1.7b, qwen3-8b, a
folder of Qwen3's or NEO's), extra=LAYERS, as of the stage before.
"""

from ml_collections import ConfigDict

from configs import neo
from configs.args import parse_args


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("neo_mt", arg, llm="qwen3-1.7b", extra="")
    c = neo.get_stage("neo_mt", a["llm"], a["extra"])
    c.stage = "3"
    c.data.area, c.model.longest_image = (65_536, 16_777_216), 16_384
    c.data.max_tokens = c.data.row_tokens = 32_768
    c.data.micro_batches = 2
    c.optim.lr, c.optim.min_lr = 5e-5, 1e-5
    return c
