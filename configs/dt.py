"""The baseline with a vision vocabulary: codes of a VQGAN as further tokens of any base LLM (EVEv2 paper, Fig. 2, DT).

    python -m launch.prepare_data convert --from=captions.jsonl --images=images --to=codes \
        --config=dt:stage=1,llm=VICUNA_DIR,vq=VQ_DIR
    python -m launch.train --config=dt:stage=1,llm=VICUNA_DIR,vq=VQ_DIR --workdir=runs --config.data.records=codes
    python -m launch.train --config=dt:stage=2 --workdir=runs --config.init=runs/dt1 --config.data.records=codes ...

Stage 1 trains the vision vocabulary, stages 2 and 3 everything but the tokenizer. Images are 256^2 pixels, 1,024 codes.
The paper names "Mo-VQGAN", but neither which of its tokenizers it is nor learning rates and batches: sizes are those of
SBER-MoVQGAN and Kandinsky's movq, the rest is EVEv2's stages 1, 2.1 and 3 (Table 3). How images become squares is not
stated either: they are padded, as for `ve`. VQ_DIR is the folder of a VQGAN (docs/model.md#patch-embedding-by-codes).
Arguments: stage=1|2|3, llm=NAME, vq=DIR.
"""

from ml_collections import ConfigDict

from configs import base
from configs.args import parse_args
from eve_jax.errors import UserError

# stage of eve_jax/config/stages.py, template ("" = that of the LLM), rows of 2,048 tokens, peak learning rate
STAGES = {"1": ("1", "plain", 640, 2e-4), "2": ("2.2", "plain", 640, 1e-4), "3": ("3", "", 384, 1e-5)}


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("dt", arg, stage="1", llm="vicuna-7b", vq="")
    if a["stage"] not in STAGES:
        raise UserError(f"stage={a['stage']}: expected one of {', '.join(STAGES)}")
    kind, template, rows, lr = STAGES[a["stage"]]
    c = base.get_codes_config(a["llm"], a["vq"])
    c.name, c.stage = f"dt{a['stage']}", kind
    if template:
        c.data.template = "plain_v1" if c.data.template == "v1" else template
    c.data.rows, c.data.micro_batches = rows, 1
    c.optim.lr = lr
    return c
