"""Fine-tuning of Gemma 4 12B Unified: everything, or adapters, train on conversations with images of any size.

    python -m launch.train --config=gemma4_sft:llm=google/gemma-4-12B-it --workdir=runs \
        --config.data.records=sft.jsonl --config.data.images=images
    python -m launch.train --config=gemma4_sft:llm=DIR,lora=16 --workdir=runs ...

Images have as many tokens as the folder's processor states, 280 where it states none, or `tokens=`: 70, 140, 280, 560,
1120. Nobody has published how the model was fine-tuned; learning rate, batch and rows are those of EVEv2's stage 3.
Arguments: llm=DIR or hub id, tokens=N, lora=RANK.
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs import base, members
from configs.args import parse_args
from eve_jax.data.image.size_rules import BUDGET, BUDGETS, GEMMA
from eve_jax.errors import UserError
from eve_jax.hf.gemma import image_budget


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("gemma4_sft", arg, llm="gemma4-12b", tokens="", lora="")
    if a["tokens"] not in ("", *map(str, BUDGETS)):
        raise UserError(f"tokens={a['tokens']}: expected one of {', '.join(map(str, BUDGETS))}, the most of an image")
    c = base.get_config(a["llm"], "dense")
    if not members.is_member(c, GEMMA):
        raise UserError(f"llm={a['llm']} is not Gemma 4 Unified: gemma4_sft takes its folder")
    c.name, c.stage = "gemma4_sft", "3"
    c.data.image_mode, c.data.template, c.data.max_aspect = GEMMA, "gemma4", 0.0
    c.data.image_tokens = int(a["tokens"] or (image_budget(Path(c.init)) if c.init else 0) or BUDGET)
    c.model.longest_image = c.data.get_oneway_ref("image_tokens")  # follows it, unless it is given itself
    c.data.max_tokens, c.data.row_tokens = 5000, 8192
    c.data.rows = 64
    c.optim.lr = 1e-5
    if not a["lora"]:
        c.model.remat = "full"  # else a step of rows of 8,192 takes 112% of the memory of v5e:4x8
    return base.adapt(c, a["lora"])
