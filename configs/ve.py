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

from pathlib import Path

from ml_collections import ConfigDict

from configs import base, baseline, members
from configs.args import parse_args
from configs.baseline import Stage
from eve_jax.hf.clip_teacher import RANDOM, describe_teacher
from eve_jax.hf.conventions import describe_encoder
from eve_jax.model.clip_config import EncoderConfig
from eve_jax.process.hub import local_model
from eve_jax.process.paths import expand, fetch

STAGES = {
    "1": Stage("1", "plain", 384, 2e-4),
    "2": Stage("2.1", "plain", 384, 1e-4),
    "3": Stage("3", "", 256, 1e-5),
}


def encoder_config(llm: str = "vicuna-7b", encoder: str = "") -> ConfigDict:
    """The defaults of a model with a vision encoder (LLaVA-1.5): CLIP's tower and a projector, and padded images.

    encoder: CLIP's folder or hub id; random = of random weights of ViT-L/14-336's sizes; "" = the one in `llm`, the
    folder of a LLaVA, or in `init`.
    """
    c = base.get_config(llm, "dense")
    members.refuse_others(c, "ve")
    encoder = local_model(expand(encoder, "encoder", fetch))
    found = describe_encoder(Path(c.init)) if c.init and not encoder else None
    sizes = found or (describe_teacher(encoder) if encoder not in ("", RANDOM) else EncoderConfig())
    c.data.max_tokens = c.data.row_tokens = 2048
    return baseline.see_by_encoder(c, encoder, sizes)


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("ve", arg, stage="1", llm="vicuna-7b", encoder="")
    stage = baseline.chosen(STAGES, a["stage"])
    return baseline.staged(encoder_config(a["llm"], a["encoder"]), f"ve{a['stage']}", stage)
