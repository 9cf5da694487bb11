"""EVEv1's recipe, its three stages in order (EVEv1 paper, section 3.3).

    python -m launch.recipe --config=evev1:teacher=CLIP_DIR --workdir=runs \
        --config.stages.v1_prealign.init=VICUNA_DIR --config.stages.v1_prealign.data.records=captions.jsonl ...

Arguments: llm=NAME, teacher=DIR.
"""

from ml_collections import ConfigDict

from configs import v1_prealign, v1_pretrain, v1_sft
from configs.args import parse_args


def get_config(arg: str = "") -> ConfigDict:
    a = parse_args("evev1", arg, llm="vicuna-7b", teacher="")
    llm = f"llm={a['llm']}"
    stages = [v1_prealign.get_config(arg), v1_pretrain.get_config(llm), v1_sft.get_config(llm)]
    for later in stages[1:]:
        later.init = ""  # each starts from the one before
    c = ConfigDict()
    c.name = "evev1"
    c.order = tuple(s.name for s in stages)
    c.stages = ConfigDict({s.name: s for s in stages})
    return c
