"""Inference as `launch.compile` compiles it for machines that are not there: prefill and decoding of one model.

    python -m launch.compile --config=serve:llm=qwen2.5-7b --topology=v5e:2x4 --config.serve.weights=int8

Arguments: llm=NAME, variant=NAME. Nothing trains with this config.
"""

from ml_collections import ConfigDict

from configs import base
from configs.args import parse_args


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("serve", arg, llm="qwen2.5-7b", variant="dac")
    c = base.get_config(a["llm"], a["variant"])
    c.name = "serve"
    c.mesh = "tensor:-1"
    c.serve = s = ConfigDict()
    s.weights = ""  # int8 | int4: quantized matrices of the layers; "" = all in model.dtype
    s.context = 4096  # tokens of a row that the cache has room for
    s.text = 128  # text tokens of a prompt, next to one image of full size
    s.rows = 0  # decoded at a time, all chips together; 0 = as many as fit
    return c
