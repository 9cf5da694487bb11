"""What each stage of EVEv2.0's training adds: the model after stages 1, 2.1 and 2.2, fine-tuned (EVEv2 paper, Fig. 9).

    python -m launch.recipe --config=fig9 --workdir=runs/fig9                 about 49 minutes on one core, 3 seeds
    python -m launch.recipe --config=fig9:tiny --workdir=runs/tiny9              the same at test size
    python -m launch.recipe --config=fig9:size=paper,data=FOLDER,bench=FOLDER --workdir=...

Fig. 9 in both versions of the paper. The trunk is the main recipe (configs/evev2.py; of the demo configs/demo.py),
once; an arm is fine-tuning from the end of one of its stages, on LLaVA-mix-665K, of the demo on sft.jsonl. The paper
does not state learning rate and batch of that fine-tuning (here those of stage 3). It states 15 M samples of stage 2.2
in Table 1 and the text, and 5 M in Tables 3 and 4 of its second version; here 15 M. Data of a real size: stage1.jsonl,
captions.jsonl (stage 2.1, 29 M), captions_hd.jsonl (48 M), multitask.jsonl (15 M), sft.jsonl.

Arguments: tiny, size=demo|1.5b|paper, llm=NAME, data=FOLDER, bench=FOLDER, seeds=N, of=ARM+ARM...
"""

from ml_collections import ConfigDict

from configs import demo, fig5, stage2_1, stage2_2, tree, variants
from eve_jax.errors import UserError

ARMS = {
    "stage1": tree.Arm("after stage 1"),
    "stage2_1": tree.Arm("after stage 2.1"),
    "stage2_2": tree.Arm("after stage 2.2"),
}
PARTS = "layernorm,self_attn,mlp"
SFT = 665_000
# Stages of the trunk at a real size: samples, their size for the cost (width, height, text tokens, targets).
STAGES = {
    "stage1": (10_000_000, (1000, 1000, 150, 150)),
    "stage2_1_ld": (29_000_000, (1000, 1000, 150, 150)),
    "stage2_1": (48_000_000, (1600, 1600, 150, 150)),
    "stage2_2": (15_000_000, (1300, 1300, 300, 120)),
}
DEMO_SIZES = fig5.DEMO_SIZES | {
    "stage2_1": fig5.DEMO_SIZES["captions"],
    "stage2_2": fig5.DEMO_SIZES["questions"],
    "sft": fig5.DEMO_SIZES["questions"],
}


def get_config(arg: str = "") -> ConfigDict:
    a = tree.read_args("fig9", arg, ARMS, llm="qwen2.5-7b")
    if a.points > 1:
        raise UserError("--config=fig9: its points are the ends of stages: leave out points=N")
    demo_size = a.size == "demo"
    if demo_size:
        c = tree.demo_recipe("fig9", a, {})
        steps = {name: steps for name, _, _, _, steps, _ in demo.STAGES}
        trunk = [variants.stage(c, name, name, steps[name]) for name in steps if name != "stage3"]
        sizes = DEMO_SIZES
    else:
        c, trunk = ConfigDict({"name": "fig9"}), real_trunk(a)
        sizes = {name: size for name, (_, size) in STAGES.items()} | {"sft": fig5.REAL_SIZES["sft"]}

    def fine_tuned(arm: str) -> ConfigDict:
        s = tree.demo_stage(c, "stage3", steps["stage3"], PARTS) if demo_size else tree.real_sft(a, SFT, PARTS)
        s.init = f"WORKDIR/{arm}"
        return s

    for s in trunk:
        s.eval.every, s.eval.tasks, s.eval.records = 0, "", ""
    tree.grow(c, trunk, {"sft": fine_tuned}, a, "", "sft")
    deviations = fig5.DEMO_DEVIATIONS[:1] if demo_size else fig5.REAL_DEVIATIONS
    fields = {"curve": "", "steps": (), "scored": "sft", "sizes": sizes, "deviations": deviations}
    c.experiment = tree.experiment(a, "Through the stages", ARMS, **fields)
    return c


def real_trunk(a: tree.Args) -> list[ConfigDict]:
    """Stages 1, 2.1, 2.1 HD and 2.2 of the main recipe."""
    made = {
        "stage1": tree.real_trunk(a, STAGES["stage1"][0])[0],
        "stage2_1_ld": tree.real_captions(a, STAGES["stage2_1_ld"][0], PARTS),
        "stage2_1": stage2_1.get_config(f"llm={a.llm},hd"),
        "stage2_2": stage2_2.get_config(f"llm={a.llm}"),
    }
    for name, records in (("stage2_1", "captions_hd"), ("stage2_2", "multitask")):
        c = made[name]
        c.init, c.data.tokenizer = "", made["stage1"].data.tokenizer
        c.data.records, c.data.images = f"{a.data or 'DATA'}/{records}.jsonl", made["stage1"].data.images
        c.train.steps = STAGES[name][0] // (1024 if name == "stage2_1" else 512)
    for name, c in made.items():
        c.name = name
    return list(made.values())
