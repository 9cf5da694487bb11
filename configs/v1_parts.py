"""EVEv1's ablations: the aligning loss, the pre-alignment and its learning rate (EVEv1 paper, Tables 4 and 5, Fig. 5).

    python -m launch.recipe --config=v1_parts --workdir=runs/v1                about 101 minutes on one core, 3 seeds
    python -m launch.recipe --config=v1_parts:of=eve+no_pal,seeds=10 --workdir=runs/v1
    python -m launch.recipe --config=v1_parts:tiny --workdir=runs/tiny_v1         the same at test size
    python -m launch.recipe --config=v1_parts:size=paper,llm=VICUNA_DIR,teacher=CLIP_DIR,data=FOLDER,bench=FOLDER ...

| arm | what it is |
|---|---|
| eve | stage 1 (patch embedding, aligning layer), stage 2 (everything), both with the aligning loss; fine-tuning |
| no_pal | without the aligning loss |
| no_ca1 | a window is the mean of its patches, without the attention within it (CA1) |
| no_ca2 | an image begins with a learned token, which attends to nothing (CA2) |
| next_patch | the aligning loss predicts the feature of the teacher's next patch, row by row, in place of its own |
| every_1, every_2, every_3 | the aligning layer looks at every such layer; EVEv1 at every fourth |
| no_stage1 | without stage 1, whose steps stage 2 has in addition |
| eve_half, eve_x2, eve_x4, no_stage1_half, ... | the same with another learning rate in stage 2 |

The paper: without stage 1 training collapses beyond 4 M samples, "despite searching learning rate from 2e-5 to 1e-3"
(4e-5 is stage 2's). Table 4 has 0.5 M, 4 M and 8 M samples "in stages 1-2": how many in each, it does not state (here
as many in both). Its rows without CA1 and CA2 and with MSE_NP are of 0.5 M; it does not state what takes the place of
CA1 and CA2, nor which loss exactly MSE_NP is (here the aligning loss with another target). Which intervals of aligned
layers Fig. 6 has next to 4 is not in the text; its differences, 0.1 to 0.3 points, are below the errors of the
benchmarks themselves. The teacher at demo size is a small ViT that the recipe pre-trains (configs/towers.py).

Arguments: tiny, size=demo|1.5b|paper, llm=NAME, teacher=DIR, data=FOLDER, bench=FOLDER, seeds=N, of=ARM+ARM...
"""

from typing import Any

from ml_collections import ConfigDict

from configs import demo_v1, fig5, towers, tree, v1_prealign, v1_pretrain, v1_sft, variants
from eve_jax.errors import UserError

FACTORS = {"": 1.0, "_half": 0.5, "_x2": 2.0, "_x4": 4.0}
FIRST = ("eve", "no_pal", "no_stage1")  # unless `of` says otherwise
ARMS = {
    "eve": tree.Arm("EVE", "4 M: VQAv2 69.4, GQA 56.5, MMBench 42.0, SEED 48.7"),
    "no_pal": tree.Arm("without the aligning loss", "4 M: 66.4, 55.3, 41.2, 47.5"),
    "no_stage1": tree.Arm("without stage 1", "4 M: 64.6, 54.1, 40.6, 45.4; 8 M: 50.2, 42.5, 26.8, 36.2"),
}
EVE05 = "0.5 M: VQAv2 58.5, GQA 49.8, MMBench 35.3, SEED 39.3 with it"
ARMS |= {
    "no_ca1": tree.Arm("without CA1", f"58.2, 49.4, 34.4, 40.1 ({EVE05})"),
    "no_ca2": tree.Arm("without CA2", f"58.4, 49.8, 35.8, 39.3 ({EVE05})"),
    "next_patch": tree.Arm("next patch", f"58.0, 50.0, 34.8, 39.6 ({EVE05.replace('with it', 'without')})"),
    **{f"every_{number}": tree.Arm(f"aligned at each {number}. layer") for number in (1, 2, 3)},
}
SWITCHES: dict[str, dict[str, Any]] = {  # fields of the model
    "no_ca1": {"window_pool": "mean"},
    "no_ca2": {"image_token": "learned"},
    "next_patch": {"align_target": "next"},
    **{f"every_{number}": {"align_every": number} for number in (1, 2, 3)},
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
    said = (*fig5.DEMO_DEVIATIONS, *towers.said(a.tiny, True, False))
    fields["deviations"] = said if demo_size else REAL_DEVIATIONS
    if not demo_size:
        fields["tasks"] = "vqav2,gqa,mmbench_en,seed"
        fields["protocol"] = "eve"
    if demo_size and {*a.of} != {"no_pal"}:
        c.pretrain = towers.pretrain(a.tiny, True, False)
    c.experiment = tree.experiment(a, "EVEv1's aligning loss and pre-alignment", ARMS, **fields)
    return c


def _stage(a: tree.Args, kind: str) -> tree.Stage:
    def stage(arm: str) -> ConfigDict | None:
        base, factor = _arm(arm)
        if base == "no_stage1" and kind == "prealign":
            return None
        like, steps = STEPS[kind]
        begins = kind == ("pretrain" if base == "no_stage1" else "prealign")
        c = _demo_stage(a, like, like, steps, begins) if a.size == "demo" else _real_stage(a, kind, begins)
        if base == "no_stage1" and kind == "pretrain":
            first = _stage(a, "prealign")("eve")
            assert first is not None
            c.train.steps += first.train.steps
        if base == "no_pal" and c.model.align_weight:
            c.teacher, c.model.align_weight, c.model.align_width = "", 0.0, 0
            del c.model.teacher
        c.model.update(SWITCHES.get(base, {}))
        if kind == "pretrain":
            c.optim.lr *= factor
        return c

    return stage


def _arm(name: str) -> tuple[str, float]:
    """The arm without its learning rate, and the factor of that."""
    found = next(end for end in ("_half", "_x2", "_x4", "") if name.endswith(end))
    return name.removesuffix(found) if found else name, FACTORS[found]


def _demo_stage(a: tree.Args, name: str, like: str, steps: int, begins: bool = False) -> ConfigDict:
    """A stage of the demo; one that begins an arm has the teacher from where it was made."""
    (given,) = (s for s in demo_v1.STAGES if s[0] == like)
    c = demo_v1.stage(*given, a.tiny)
    c.name, c.train.keep = name, 1
    if c.teacher:
        towers.teach(c, towers.PLACE["encoder"] if begins else "", towers.TEACHER)
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
