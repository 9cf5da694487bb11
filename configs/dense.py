"""What the experiments on EVEv1.0 share: single weights, all of which learn from captions. No config of its own.

In the paper (EVEv2, section 4.1) these are ablations on Vicuna-7B: stage 1 with 10 M samples, the patch embedding
alone; stage 2 with 8 M, patch embedding and LLM; LLaVA-mix-665K; images of 800^2. Not stated: learning rates of stage 2
with the LLM and of the fine-tuning (here 2e-5 and 1e-5, those of the main recipe's stages 2.2 and 3), and which patch
embedding (here EVEv2's). Weights are read from safetensors alone: llm=FOLDER names a folder of Vicuna that has them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import tree, variants
from configs.fig5 import DEMO_DEVIATIONS, DEMO_SIZES, REAL_DEVIATIONS, REAL_SIZES, SAMPLES

LLM = "vicuna-7b"
Change = Callable[[str, str, ConfigDict], None]  # arm, kind of stage, the stage
STEPS = {"stage1": 150, "captions": 600, "questions": 750}  # of the demo
LIKE = {"stage1": "stage1", "captions": "stage2_1", "questions": "stage2_2"}
LR = 2e-5  # of captions at a real size, where the LLM trains
DEVIATIONS = ("The learning rates of captions and fine-tuning are the main recipe's; the paper does not state them.",)


def recipe(
    name: str, a: tree.Args, title: str, arms: Mapping[str, tree.Arm], change: Change, own: tuple[str, ...], **more: Any
) -> ConfigDict:
    """Return the recipe `name`: every arm has the stages `own`, of stage1, captions and questions (sft).

    change: makes a stage that of an arm. more: `chart`, `settings` of the demo's dataset, `samples` of the real sizes,
    `deviations`, `fields` of the section `experiment`.
    """
    demo_size = a.size == "demo"
    if demo_size:
        c = tree.demo_recipe(name, a, more.get("settings", variants.SETTINGS))
        trunk = tree.demo_trunk(c, ("llm", "llm_chat") if "stage1" in own else tuple(variants.SHARED))
        kinds = {kind: _demo_stage(c, kind, change) for kind in own}
    else:
        c = ConfigDict({"name": name})
        samples = more.get("samples", SAMPLES)[a.size]
        trunk = [] if "stage1" in own else tree.real_trunk(a, samples[0])
        kinds = {kind: _real_stage(a, kind, change, samples) for kind in own}
    scored = list(kinds)[-1]
    steps = tree.grow(c, trunk, kinds, a, "captions", scored)
    deviations = (DEMO_DEVIATIONS if demo_size else REAL_DEVIATIONS + DEVIATIONS) + more.get("deviations", ())
    fields = {"sizes": DEMO_SIZES if demo_size else REAL_SIZES, "deviations": deviations}
    fields |= {"chart": more["chart"]} if "chart" in more else {}
    fields |= more.get("fields", {})
    c.experiment = tree.experiment(a, title, arms, curve="captions", steps=steps, scored=scored, **fields)
    return c


def _demo_stage(whole: ConfigDict, kind: str, change: Change) -> tree.Stage:
    def stage(arm: str) -> ConfigDict:
        c = tree.demo_stage(whole, LIKE[kind], STEPS[kind])
        c.stage = "1" if kind == "stage1" else "2.2"
        change(arm, kind, c)
        return c

    return stage


def _real_stage(a: tree.Args, kind: str, change: Change, samples: tuple[int, int, int]) -> tree.Stage:
    first, second, last = samples

    def stage(arm: str) -> ConfigDict:
        if kind == "stage1":
            (c,) = tree.real_trunk(a, first)
        elif kind == "captions":
            c = tree.real_captions(a, second, "none")
            c.stage, c.optim.lr = "2.2", LR
        else:
            c = tree.real_sft(a, last, "none")
        change(arm, kind, c)
        return c

    return stage
