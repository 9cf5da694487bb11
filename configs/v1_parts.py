"""EVEv1's ablations: the aligning loss, the pre-alignment and its learning rate (EVEv1 paper, Tables 4 and 5, Fig. 5).

    python -m launch.recipe --config=v1_parts --workdir=runs/v1                   some 40 minutes on 2 cores, 3 seeds
    python -m launch.recipe --config=v1_parts:of=eve+no_pal,seeds=10 --workdir=runs/v1
    python -m launch.recipe --config=v1_parts:tiny --workdir=runs/tiny_v1         the same at test size
    python -m launch.recipe --config=v1_parts:size=paper,llm=VICUNA_DIR,teacher=CLIP_DIR,data=FOLDER,bench=FOLDER ...

| arm | what it is |
|---|---|
| eve | stage 1 (patch embedding, aligning layer), stage 2 (everything), both with the aligning loss; fine-tuning |
| no_pal | without the aligning loss |
| no_stage1 | without stage 1, whose steps stage 2 has in addition |
| eve_half, eve_x2, eve_x4, no_stage1_half, ... | the same with another learning rate in stage 2 |

The paper: without stage 1 training collapses beyond 4 M samples, "despite searching learning rate from 2e-5 to 1e-3"
(4e-5 is stage 2's). Table 4 has 0.5 M, 4 M and 8 M samples "in stages 1-2": how many in each, it does not state (here
as many in both). Not here: the switches of Table 4 inside the patch embedding (CA1, CA2), next-patch targets, and
Fig. 6, the interval of the aligned layers, whose differences are below the errors of the benchmarks themselves.

Arguments: tiny, size=demo|1.5b|paper, llm=NAME, teacher=DIR, data=FOLDER, bench=FOLDER, seeds=N, of=ARM+ARM...
"""

from typing import Any

from ml_collections import ConfigDict

from configs import demo_v1, fig5, tree, v1_prealign, v1_pretrain, v1_sft, variants
from eve_jax.errors import UserError

FACTORS = {"": 1.0, "_half": 0.5, "_x2": 2.0, "_x4": 4.0}
FIRST = ("eve", "no_pal", "no_stage1")  # unless `of` says otherwise
ARMS = {
    "eve": tree.Arm("EVE", "4 M: VQAv2 69.4, GQA 56.5, MMBench 42.0, SEED 48.7"),
    "no_pal": tree.Arm("without the aligning loss", "4 M: 66.4, 55.3, 41.2, 47.5"),
    "no_stage1": tree.Arm("without stage 1", "4 M: 64.6, 54.1, 40.6, 45.4; 8 M: 50.2, 42.5, 26.8, 36.2"),
}
ARMS |= {f"eve{name}": tree.Arm(f"EVE, learning rate x {by:g}") for name, by in FACTORS.items() if name}
ARMS |= {f"no_stage1{name}": tree.Arm(f"no stage 1, rate x {by:g}") for name, by in FACTORS.items() if name}
# kind: stage of configs/demo_v1.py, steps of the demo
STEPS = {"prealign": ("v1_prealign", 150), "pretrain": ("v1_pretrain", 600), "sft": ("v1_sft", 750)}
SAMPLES = {"1.5b": (558_000, 558_000, 665_000), "paper": (4_000_000, 4_000_000, 665_000)}
BATCH = {"prealign": 512, "pretrain": 512, "sft": 128}
DEMO_SIZES = {name: fig5.DEMO_SIZES[name] for name in ("llm", "llm_chat")}
DEMO_SIZES |= {"prealign": (160, 96, 11, 11), "pretrain": (160, 96, 11, 11), "sft": (160, 96, 34, 8)}
REAL_SIZES = {"prealign": (640, 480, 80, 80), "pretrain": (640, 480, 80, 80), "sft": (640, 480, 300, 120)}
DEMO_DEVIATIONS = (
    *fig5.DEMO_DEVIATIONS,
    "The teacher has fixed random weights: its features say what patches look like and where, not what they mean.",
)

REAL_DEVIATIONS = (
    "The records are yours.",
    "As many samples in stage 1 as in stage 2; the paper does not state how many in each.",
    "Steps hold about 512 samples (128 in fine-tuning), packed, not exactly as many.",
    "The accuracy is the mean over the benchmarks of config.experiment.tasks under EVEv1's protocol.",
)


def get_config(arg: str = "") -> ConfigDict:
    a = tree.read_args("v1_parts", arg, ARMS, llm="vicuna-7b", default=FIRST, teacher="")
    if a.points > 1:
        raise UserError("--config=v1_parts: arms have stages of different lengths: leave out points=N")
    demo_size = a.size == "demo"
    c = tree.demo_recipe("v1_parts", a) if demo_size else ConfigDict({"name": "v1_parts"})
    trunk = [_demo_stage(a, name, *variants.SHARED[name]) for name in ("llm", "llm_chat")] if demo_size else []
    own = {kind: _stage(a, kind) for kind in STEPS}
    tree.grow(c, trunk, own, a, "pretrain", "sft")
    fields: dict[str, Any] = {"curve": "pretrain", "steps": (), "scored": "sft"}
    fields["sizes"] = DEMO_SIZES if demo_size else REAL_SIZES
    fields["deviations"] = DEMO_DEVIATIONS if demo_size else REAL_DEVIATIONS
    if not demo_size:
        fields["tasks"] = "vqav2,gqa,mmbench_en,seed"
        fields["protocol"] = "eve"
    c.experiment = tree.experiment(a, "EVEv1's aligning loss and pre-alignment", ARMS, **fields)
    return c


def _stage(a: tree.Args, kind: str) -> tree.Stage:
    def stage(arm: str) -> ConfigDict | None:
        base, factor = _arm(arm)
        if base == "no_stage1" and kind == "prealign":
            return None
        like, steps = STEPS[kind]
        begins = kind == ("pretrain" if base == "no_stage1" else "prealign")
        c = _demo_stage(a, like, like, steps) if a.size == "demo" else _real_stage(a, kind, begins)
        if base == "no_stage1" and kind == "pretrain":
            first = _stage(a, "prealign")("eve")
            assert first is not None
            c.train.steps += first.train.steps
        if base == "no_pal" and c.model.align_weight:
            c.teacher, c.model.align_weight, c.model.align_width = "", 0.0, 0
            del c.model.teacher
        if kind == "pretrain":
            c.optim.lr *= factor
        return c

    return stage


def _arm(name: str) -> tuple[str, float]:
    """The arm without its learning rate, and the factor of that."""
    found = next(end for end in ("_half", "_x2", "_x4", "") if name.endswith(end))
    return name.removesuffix(found) if found else name, FACTORS[found]


def _demo_stage(a: tree.Args, name: str, like: str, steps: int) -> ConfigDict:
    (given,) = (s for s in demo_v1.STAGES if s[0] == like)
    c = demo_v1.stage(*given, a.tiny)
    c.name, c.train.keep = name, 1
    if like == "v1_sft":
        c.data.records = "WORKDIR/data/questions.jsonl"
    if a.tiny:  # one program a stage
        c.data.max_shapes = c.data.micro_batches = 1
    else:
        c.train.steps = steps
    return c


def _real_stage(a: tree.Args, kind: str, begins: bool) -> ConfigDict:
    """A stage of a real size; one that begins an arm starts from the LLM."""
    module, records = {
        "prealign": (v1_prealign, "stage1"),
        "pretrain": (v1_pretrain, "captions"),
        "sft": (v1_sft, "sft"),
    }[kind]
    teacher = f",teacher={a.more['teacher']}" if a.more["teacher"] and kind != "sft" else ""
    c = module.get_config(f"llm={a.llm}{teacher}")
    weights = tree.llm_weights(a, c)
    c.init, c.data.tokenizer = weights if begins else "", c.data.tokenizer or weights
    if a.llm.startswith("qwen") or "qwen" in weights.lower():  # templates of EVEv1 are Vicuna's
        c.data.template = "qwen2" if kind == "sft" else "plain"
    c.data.records, c.data.images = f"{a.data or 'DATA'}/{records}.jsonl", f"{a.data}/images" if a.data else ""
    c.train.steps = SAMPLES[a.size][tuple(STEPS).index(kind)] // BATCH[kind]
    return c
