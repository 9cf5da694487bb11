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

from pathlib import Path

from ml_collections import ConfigDict

from configs import base, baseline, members
from configs.args import parse_args
from configs.baseline import Stage
from eve_jax.hf.vq_folder import vq_sizes
from eve_jax.process.paths import expand, fetch

STAGES = {
    "1": Stage("1", "plain", 640, 2e-4),
    "2": Stage("2.2", "plain", 640, 1e-4),
    "3": Stage("3", "", 384, 1e-5),
}


def codes_config(llm: str = "vicuna-7b", vision_tokenizer: str = "", **sizes: int) -> ConfigDict:
    """The defaults of a model with a vision vocabulary: codes of a VQGAN in the folder `vision_tokenizer`.

    "" = that in `llm`, the folder of such a model, or the sizes are given: codes, patch, image_size.
    """
    c = base.get_config(llm, "dense")
    members.refuse_others(c, "dt")
    folder = expand(vision_tokenizer, "vision_tokenizer", fetch)
    if folder:
        found = vq_sizes(Path(folder))
        sizes = {"codes": found.codes, "patch": found.patch, "image_size": found.image_size} | sizes
    sizes = {"codes": 16_384, "patch": 8, "image_size": 256} | sizes
    c.data.max_tokens = c.data.row_tokens = 2048
    return baseline.see_by_codes(c, folder, **sizes)


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("dt", arg, stage="1", llm="vicuna-7b", vq="")
    stage = baseline.chosen(STAGES, a["stage"])
    return baseline.staged(codes_config(a["llm"], a["vq"]), f"dt{a['stage']}", stage)
