"""Fine-tuning of SAIL-7B: everything, or adapters, train on conversations whose images stand before everything.

    python -m launch.train --config=sail_sft:llm=SAIL_DIR --workdir=runs \
        --config.data.records=sft.jsonl --config.data.images=images

arXiv 2504.10462 came with code for inference alone; learning rate, batch and rows are those of EVEv2's stage 3.
Arguments: llm=DIR or hub id (sail-7b: its sizes, for launch.compile), lora=RANK.
"""

from ml_collections import ConfigDict

from configs import base, members
from configs.args import parse_args
from eve_jax.data.image.size_rules import SAIL
from eve_jax.errors import UserError


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("sail_sft", arg, llm="sail-7b", lora="")
    c = base.get_config(a["llm"], "dense")
    if not members.is_member(c, SAIL):
        raise UserError(f"llm={a['llm']} is not SAIL: sail_sft takes its folder, with {SAIL}'s tokens in its tokenizer")
    c.name, c.stage = "sail_sft", "3"
    c.data.image_mode, c.data.template, c.data.max_aspect = SAIL, SAIL, 0.0
    c.data.max_tokens, c.data.row_tokens = 5000, 8192
    c.data.rows = 64
    c.optim.lr = 1e-5
    return base.adapt(c, a["lora"])
