"""The baseline with a vision encoder: CLIP's tower and a projector on any base LLM, as LLaVA-1.5 (EVEv2 paper, Fig. 2).

    python -m launch.train --config=ve:stage=1,llm=VICUNA_DIR,encoder=CLIP_DIR --workdir=runs \
        --config.data.records=captions.jsonl --config.data.images=images
    python -m launch.train --config=ve:stage=2 --workdir=runs --config.init=runs/ve1 ...
    python -m launch.train --config=ve:stage=3 --workdir=runs --config.init=runs/ve2 ...

Stage 1 trains the projector on captions, stage 2 encoder and projector ("unfreezing LLM weights at this stage leads to
performance collapse"), stage 3 everything on instructions. The paper gives neither learning rates nor batches of this
baseline: they are those of EVEv2's stages 1, 2.1 and 3 (Table 3). LLaVA-1.5 itself has two stages, 1 and 3, and keeps
its encoder frozen: `--config.optim.groups.encoder=0`. CLIP_DIR is openai/clip-vit-large-patch14-336 as safetensors.
Arguments: stage=1|2|3, llm=NAME, encoder=DIR.
"""

from ml_collections import ConfigDict

from configs import base
from configs.args import parse_args
from eve_jax.errors import UserError

# stage of eve_jax/config/stages.py, template ("" = that of the LLM), rows of 2,048 tokens, peak learning rate
STAGES = {"1": ("1", "plain", 384, 2e-4), "2": ("2.1", "plain", 384, 1e-4), "3": ("3", "", 256, 1e-5)}


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("ve", arg, stage="1", llm="vicuna-7b", encoder="")
    if a["stage"] not in STAGES:
        raise UserError(f"stage={a['stage']}: expected one of {', '.join(STAGES)}")
    kind, template, rows, lr = STAGES[a["stage"]]
    c = base.get_encoder_config(a["llm"], a["encoder"])
    c.name, c.stage = f"ve{a['stage']}", kind
    if template:
        c.data.template = "plain_v1" if c.data.template == "v1" else template
    c.data.rows, c.data.micro_batches = rows, 1
    c.optim.lr = lr
    return c
