"""The $100 model: a plain LLM trains on images and captions of FineVision, all weights at once, on one accelerator.

    python -m launch.train --config=hundred:llm=Qwen/Qwen3-1.7B --workdir=runs
    python -m launch.compile --config=hundred --topology=v5e:4x4 --steps=2000      what it costs, before

The article "Train Your Own Encoder-Free VLM in $100" (HuggingFaceM4, 2026): subsets densefusion and sharegpt4v of
FineVision, 1.15 M records, rows of 2,048, one H100 for 43 hours; questions and headers are targets, too. It states
neither learning rate, batch, schedule nor epochs: those here are ours. It crops the middle of 512 x 512 pixels out of
an image; here an image keeps its aspect ratio at about that area, and samples in a row do not see each other.
Arguments: llm=NAME (default qwen3-1.7b, or a folder or hub id), sides=PATCHES of the longest side, lora=RANK.
"""

from ml_collections import ConfigDict

from configs import base, members
from configs.args import parse_args
from eve_jax.data.image.size_rules import HUNDRED
from eve_jax.errors import UserError
from eve_jax.hf.family import HUNDRED_IMAGES, SWITCHES

FINE_VISION = "hf:HuggingFaceM4/FineVision"
SUBSETS = ("densefusion_1m", *(f"sharegpt4v({images})" for images in ("coco", "knowledge", "llava", "sam")))
SIDES = 64  # patches: 2,048 pixels; max_aspect and the area allow 46


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("hundred", arg, llm="qwen3-1.7b", sides=str(SIDES), lora="")
    if not a["sides"].isdecimal() or not int(a["sides"]):
        raise UserError(f"sides={a['sides']}: expected the most patches along a side of an image, a whole number")
    c = base.get_config(a["llm"], "dense")
    members.refuse_others(c, "hundred", HUNDRED)
    c.name, c.stage = "hundred", "3"
    m, d = c.model, c.data
    if not members.is_member(c, HUNDRED):
        m.update(SWITCHES[HUNDRED])
        m.patch_hidden, m.patch_sides = m.hidden_size, int(a["sides"])
    d.records = ",".join(f"{FINE_VISION}:{subset}" for subset in SUBSETS)
    d.update(HUNDRED_IMAGES)
    d.template = HUNDRED
    d.max_tokens = d.row_tokens = 2048
    d.rows, d.micro_batches = 32, 4  # 262,144 slots
    c.optim.lr = 5e-5
    return base.adapt(c, a["lora"])
