"""What captions are worth: web captions, plain ones and detailed ones of the same images (EVEv2 paper, Fig. 6).

    python -m launch.recipe --config=fig6 --workdir=runs/fig6                 about 85 minutes on one core, 3 seeds
    python -m launch.recipe --config=fig6:points=4 --workdir=runs/fig6           a curve of four points
    python -m launch.recipe --config=fig6:tiny --workdir=runs/tiny6              the same at test size
    python -m launch.recipe --config=fig6:size=paper,llm=VICUNA_DIR,data=FOLDER,bench=FOLDER --workdir=...

Fig. 6 in both versions of the paper: EVEv1.0 on LAION-raw, LAION-cap (LLaVA-1.5 and Emu2), LAION-recap
(DenseFusion++), and on LAION, OpenImages and SA-1B together (los), cap and recap; 10 M in stage 1, 8 M in stage 2, of
the same source. At demo size one scene has three captions: what the web says (file names, tags, one of the things,
another image's caption), which things there are, and all of it with places and numbers. `engine_demo` compares captions
that a model wrote.
The settings of the paper, and what it does not state, are in configs/dense.py. Data of a real size: ARM.jsonl for each
of the arms, from which both stages are drawn; the caption engine was not released, nor were the captions.

Arguments: tiny, size=demo|1.5b|paper, llm=NAME, data=FOLDER, bench=FOLDER, seeds=N, points=N, of=ARM+ARM...
"""

from dataclasses import replace

from ml_collections import ConfigDict

from configs import dense, tree
from eve_jax.errors import UserError

DEMO = {"web": tree.Arm("web"), "cap": tree.Arm("things (cap)"), "recap": tree.Arm("all that is there (recap)")}
REAL = {
    "laion_raw": tree.Arm("LAION, raw"),
    "laion_cap": tree.Arm("LAION, cap"),
    "laion_recap": tree.Arm("LAION, recap"),
    "los_cap": tree.Arm("LAION, OpenImages, SA-1B, cap"),
    "los_recap": tree.Arm("LAION, OpenImages, SA-1B, recap"),
}
RECORDS = {"web": "captions/web.jsonl", "cap": "captions/cap.jsonl", "recap": "data/captions.jsonl"}


def get_config(arg: str = "") -> ConfigDict:
    a = tree.read_args("fig6", arg, DEMO | REAL, llm=dense.LLM)
    arms = DEMO if a.size == "demo" else REAL
    if a.of == (*DEMO, *REAL):
        a = replace(a, of=tuple(arms))
    if wrong := [arm for arm in a.of if arm not in arms]:
        raise UserError(f"--config=fig6:{arg}: size={a.size} has no arm {wrong[0]!r}; it has {', '.join(arms)}")

    def caption(arm: str, kind: str, c: ConfigDict) -> None:
        if kind in ("stage1", "captions"):
            c.data.records = f"WORKDIR/{RECORDS[arm]}" if arm in RECORDS else f"{a.data or 'DATA'}/{arm}.jsonl"

    own = ("stage1", "captions", "questions" if a.size == "demo" else "sft")
    c = dense.recipe("fig6", a, "Captions of the same images", arms, caption, own)
    if a.size == "demo":
        c.demo.caption_sets = True
    return c
