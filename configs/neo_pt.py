"""NEO's pre-training: patch embedding, extra layers and the queries' and keys' new parts learn next to a frozen LLM.

    python -m launch.train --config=neo_pt --workdir=runs --config.init=QWEN3_DIR \
        --config.data.records=captions.jsonl --config.data.images=images

arXiv 2510.14979, section 3.3 and the scripts: 345 M records, 200,000 steps. Arguments: llm=NAME (qwen3-1.7b, qwen3-8b,
a folder of Qwen3's or NEO's), extra=LAYERS.
"""

from ml_collections import ConfigDict

from configs import neo
from configs.args import parse_args


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("neo_pt", arg, llm="qwen3-1.7b", extra="")
    c = neo.get_stage("neo_pt", a["llm"], a["extra"])
    c.stage = "1"
    c.data.max_tokens = c.data.row_tokens = 16_384
    c.data.micro_batches = 5
    c.optim.lr, c.optim.min_lr = 8e-4, 8e-5
    c.optim.warmup, c.optim.warmup_steps = 0.0, 1000
    return c
