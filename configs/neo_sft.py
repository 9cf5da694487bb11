"""NEO's fine-tuning: everything trains on instructions.

    python -m launch.train --config=neo_sft --workdir=runs --config.init=runs/neo_mt \
        --config.data.records=sft.jsonl --config.data.images=images

arXiv 2510.14979, section 3.3 and the scripts: 4 M records, 4,500 steps. Arguments: llm=NAME (qwen3-1.7b, qwen3-8b, a
folder of Qwen3's or NEO's), extra=LAYERS, as of the stage before, lora=RANK.
"""

from ml_collections import ConfigDict

from configs import base, neo
from configs.args import parse_args


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("neo_sft", arg, llm="qwen3-1.7b", extra="", lora="")
    c = neo.get_stage("neo_sft", a["llm"], a["extra"])
    c.stage = "3"
    c.data.area, c.model.longest_image = (65_536, 16_777_216), 16_384
    c.data.max_tokens = c.data.row_tokens = 34_816
    c.data.micro_batches = 1
    c.optim.lr, c.optim.min_lr = 6e-5, 6e-6
    return base.adapt(c, a["lora"])
