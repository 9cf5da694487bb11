"""A mixture of synthesized, language-only and web data, everything trained (EVEv2 paper, Fig. 8; Fig. 7 in its v1).

    python -m launch.train --config=mixture --workdir=runs --config.init=runs/stage1 \
        --config.data.records=synth.jsonl,text.jsonl,web.jsonl --config.data.images=images
    python -m launch.train --config=mixture:ratio=5:5:0 ...

configs/fig8.py trains and scores all of the figure's mixtures: 0:0:10, 10:0:0, 3:7:0, 5:5:0, 7:3:0 and 7:2:1 (EVEv1.0,
that is `dense`, on captions, 2 to 10 M samples). The ratio is that of samples, synthesized : language-only : web, and
holds in every step. An epoch ends when the source that is smallest for its part has come once; `config.train.steps`
sets another length.
Arguments: llm=NAME, variant=NAME, ratio=A:B:C.
"""

from ml_collections import ConfigDict

from configs import stage2_2
from configs.args import parse_args


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("mixture", arg, llm="qwen2.5-7b", variant="dense", ratio="7:2:1")
    c = stage2_2.get_config(f"llm={a['llm']},variant={a['variant']}")
    c.name = "mixture"
    c.data.template = "plain"
    c.data.image_mode = "anyratio_ld"
    c.data.max_tokens = 2048
    c.data.row_tokens = 4096
    c.data.rows = 128  # times 2 micro-batches: 1 M slots
    c.data.weights = a["ratio"]
    return c
