"""The papers' variants as they learn from captions: EVEv1.0, v1.2, v1.5, v2.0 (EVEv2 paper, Fig. 5 in both versions).

    python -m launch.recipe --config=fig5 --workdir=runs/fig5                    about 117 minutes on one core, 3 seeds
    python -m launch.recipe --config=fig5:tiny --workdir=runs/tiny5                 the same at test size
    python -m launch.recipe --config=fig5:points=4,seeds=5 --workdir=...            a curve of four points
    python -m launch.recipe --config=fig5:llm=qwen2.5-1.5b,data=FOLDER,bench=FOLDER --workdir=...    on eight chips
    python -m launch.recipe --config=fig5:size=paper,data=FOLDER,bench=FOLDER --workdir=...          Qwen2.5-7B

From one pre-alignment (stage1: the patch embedding alone) each arm learns from captions, and from each of its points it
is fine-tuned and scored. On captions the LLM is frozen:

| arm | in the papers | trains on captions |
|---|---|---|
| dense | EVEv1.0 | the patch embedding alone |
| rep | EVEv1.2 | patch embedding, gated deltas |
| moe | EVEv1.5 | patch embedding, vision feed-forward |
| dac | EVEv2.0 | patch embedding, all vision weights |
| dense_all | EVEv1.0 as EVEv1 pretrains it (not in the figure) | everything |

Settings of the paper (section 4.1, Tables 3 and 5): Qwen2.5-7B, stage 1 EVE-recap-10M, stage 2 8 M of EVE-recap-29M in
steps of 1,024 at 1e-4, points every 2 M with the learning rate not decayed, LLaVA-mix-665K; images of 800^2. Size 1.5b
is the appendix's (D): Qwen2.5-1.5B, EVE-recap-4M, LLaVA-mix-665K, 35.1 / 37.3 / 38.5 for v1.0 / v1.5 / v2.0 on six
benchmarks that it does not name. The paper does not state learning rate and batch of the fine-tuning (here those of the
main recipe's stage 3; --config.stages.STAGE.optim.lr), and of the 4 M at 1.5B whether they are those of stage 1, of
stage 2 or of both (here 4 M in each). It mentions no seeds.

Arguments: tiny, size=demo|1.5b|paper, llm=NAME, data=FOLDER, bench=FOLDER, seeds=N, points=N, of=ARM+ARM...
"""

from typing import Any

from ml_collections import ConfigDict

from configs import tree
from configs.variants import OWN

PARTS = {"dense": "none", "rep": "delta", "moe": "mlp", "dac": "layernorm,self_attn,mlp", "dense_all": "none"}
ARMS = {
    "dense": tree.Arm("EVEv1.0 (dense)", "35.1 at 1.5B"),
    "rep": tree.Arm("EVEv1.2 (rep)"),
    "moe": tree.Arm("EVEv1.5 (moe)", "50.8 at 7B (51.6 less the gap 0.8), 37.3 at 1.5B"),
    "dac": tree.Arm("EVEv2.0 (dac)", "51.6 at 7B, 38.5 at 1.5B"),
    "dense_all": tree.Arm("EVEv1.0, all trains"),
}
SAMPLES = {"1.5b": (4_000_000, 4_000_000, 665_000), "paper": (10_000_000, 8_000_000, 665_000)}
# Sizes of samples, for the cost: width, height, text tokens, targets. Of the demo those of a mean record, measured.
DEMO_SIZES = {
    "llm": (0, 0, 33, 32),
    "llm_chat": (0, 0, 46, 7),
    "stage1": (160, 96, 11, 11),
    "captions": (160, 96, 11, 11),
    "questions": (160, 96, 34, 8),
}
REAL_SIZES = {"stage1": (1000, 1000, 150, 150), "captions": (1000, 1000, 150, 150), "sft": (640, 480, 300, 120)}
DEMO_DEVIATIONS = (
    "Models of 3 to 5 M parameters, images of the demo with some 16 patches, one LLM made here; learning rates are the "
    "demo's, tuned for dac.",
    "Fine-tuning is the demo's stage of questions, without text-only records.",
)
REAL_DEVIATIONS = (
    "The records are yours: EVE-recap was not released.",
    "Learning rate and batch of the fine-tuning are the main recipe's; the paper does not state the ablation's.",
    "Steps hold about 1,024 samples (512 in fine-tuning), packed, not exactly as many.",
    "The accuracy is the mean over the benchmarks of config.experiment.tasks under lmms-eval's protocol.",
)


def get_config(arg: str = "") -> ConfigDict:
    a = tree.read_args("fig5", arg, ARMS, llm="qwen2.5-7b")
    return recipe("fig5", a, "The papers' variants", ARMS, PARTS)


def recipe(name: str, a: tree.Args, title: str, arms: dict[str, tree.Arm], parts: dict[str, str]) -> ConfigDict:
    """The tree of arms with other parts twice: captions, then fine-tuning; "dense_all" trains as a whole."""
    if a.size == "demo":
        c = tree.demo_recipe(name, a)
        trunk = tree.demo_trunk(c)
        captions, scored = OWN["captions"][1], "questions"
        own = {
            "captions": lambda arm: _all(arm, tree.captions_stage(c, captions, parts[arm])),
            "questions": lambda arm: tree.demo_stage(c, *OWN["questions"], parts[arm]),
        }
    else:
        first, second, last = SAMPLES[a.size]
        c, scored = ConfigDict({"name": name}), "sft"
        trunk = tree.real_trunk(a, first)
        own = {
            "captions": lambda arm: _all(arm, tree.real_captions(a, second, parts[arm])),
            "sft": lambda arm: tree.real_sft(a, last, parts[arm]),
        }
    steps = tree.grow(c, trunk, own, a, "captions", scored)
    fields: dict[str, Any] = {"curve": "captions", "steps": steps, "scored": scored, "weights": tree.llm_of(a)}
    fields["sizes"] = DEMO_SIZES if a.size == "demo" else REAL_SIZES
    fields["deviations"] = DEMO_DEVIATIONS if a.size == "demo" else REAL_DEVIATIONS
    c.experiment = tree.experiment(a, title, arms, **fields)
    return c


def _all(arm: str, c: ConfigDict) -> ConfigDict:
    if arm == "dense_all":
        c.stage = "2.2"
    return c
