"""What an image's tokens see, and how they are counted: EVEv2 next to models with NEO's rules, on the demo's records.

    python -m launch.recipe --config=image_rules --workdir=runs/image_rules         about 89 minutes on one core
    python -m launch.recipe --config=image_rules:of=dac+dac_image --workdir=...        EVEv2 with and without them
    python -m launch.recipe --config=image_rules:tiny --workdir=runs/tiny_rules        at test size

| arm | model |
|---|---|
| dac | EVEv2: its patch embedding, all parts of a layer twice, causal attention |
| dac_image | the same with NEO's attention within images and its positions, which nobody has published |
| neo | NEO (arXiv 2510.14979) in small: its patch embedding, a layer before the LLM's, its rules, single weights |

All begin with the same LLM, and see the same records in the same order and number of steps. In the stages of stage1 and
captions what is new next to the LLM learns (the patch embedding; vision weights in captions; NEO's extra layer and
parts of queries and keys in both), in that of questions everything. Images, template and learning rates are the demo's,
tuned for dac; NEO's own images, template and weights of targets are not taken. There are no larger sizes.

Arguments: tiny, seeds=N, points=N, of=ARM+ARM...
"""

from ml_collections import ConfigDict

from configs import dense, fig5, tree
from eve_jax.data.image.size_rules import NEO
from eve_jax.errors import UserError
from eve_jax.hf.family import SWITCHES

ARMS = {
    "dac": tree.Arm("EVEv2.0 (dac)"),
    "dac_image": tree.Arm("dac, images see themselves"),
    "neo": tree.Arm("NEO, one extra layer"),
}
DEVIATIONS = ("NEO's images, template and weights of targets are the demo's; it has one extra layer next to six.",)


def get_config(arg: str = "") -> ConfigDict:
    a = tree.read_args("image_rules", arg, ARMS, llm="")
    if a.size != "demo":
        raise UserError(f"--config=image_rules:{arg}: there is the demo's size alone")

    def see(arm: str, kind: str, c: ConfigDict) -> None:
        m, rules = c.model, SWITCHES[NEO]
        if arm == "neo":
            m.update(rules)
            m.extra_layers, m.num_layers = 1, m.num_layers + 1
        else:
            m.parts = "none" if kind == "stage1" else fig5.PARTS["dac"]
        if arm == "dac_image":
            m.update({name: value for name, value in rules.items() if name != "patch_embed"})
        if kind == "captions":
            c.stage = "1" if arm == "neo" else "2.1"

    own = ("stage1", "captions", "questions")
    title = "What an image's tokens see"
    return dense.recipe("image_rules", a, title, ARMS, see, own, deviations=DEVIATIONS)
