"""The paper's recipe, stages 1, 2.1, 2.1 HD, 2.2 and 3 in order (EVEv2 paper, Table 1).

    python -m launch.recipe --config=evev2 --workdir=runs --config.stages.stage1.init=QWEN_DIR \
        --config.stages.stage1.data.records=recap10m.jsonl --config.stages.stage1.data.images=images ...

Arguments: llm=NAME, variant=NAME.
"""

from ml_collections import ConfigDict

from configs import stage1, stage2_1, stage2_2, stage3
from configs.args import parse_args


def get_config(arg: str = "") -> ConfigDict:
    parse_args("evev2", arg, llm="qwen2.5-7b", variant="dac")
    hd = ",".join(filter(None, (arg, "hd")))
    stages = [m.get_config(arg) for m in (stage1, stage2_1)]
    stages += [stage2_1.get_config(hd), stage2_2.get_config(arg), stage3.get_config(arg)]
    c = ConfigDict()
    c.name = "evev2"
    for later in stages[1:]:
        later.init = ""  # each starts from the one before
    c.order = tuple(s.name for s in stages)
    c.stages = ConfigDict({s.name: s for s in stages})
    return c
