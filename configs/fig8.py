"""In what ratio captions, text and web data are mixed: EVEv1.0 on six mixtures (EVEv2 paper, Fig. 8; Fig. 7 in its v1).

    python -m launch.recipe --config=fig8 --workdir=runs/fig8                 about 146 minutes on one core, 3 seeds
    python -m launch.recipe --config=fig8:tiny --workdir=runs/tiny8              the same at test size
    python -m launch.recipe --config=fig8:size=paper,llm=VICUNA_DIR,data=FOLDER,bench=FOLDER --workdir=...
    python -m launch.recipe --config=fig8:llm=qwen2.5-1.5b,data=FOLDER,bench=FOLDER --workdir=...

Synthesized : language-only : web are 0:0:10, 10:0:0, 3:7:0, 5:5:0, 7:3:0 and 7:2:1 in the stage of captions, in which
everything trains. The figure draws scores; here accuracy is drawn against the text loss, which shows what is paid for
it. The settings of the paper, and what it does not state, are in configs/dense.py. Nor does it state the text corpus.
It mixes the data of stage 1 as well, which is shared here. Data of a real size: stage1.jsonl, captions.jsonl,
text.jsonl, web.jsonl, sft.jsonl; text loss is measured there, and drawn, where --config.experiment.texts=FILE.txt names
held-out text (docs/eval.md).

Arguments: tiny, size=demo|1.5b|paper, llm=NAME, data=FOLDER, bench=FOLDER, seeds=N, points=N, of=ARM+ARM...
"""

from ml_collections import ConfigDict

from configs import dense, tree

RATIOS = ("0:0:10", "10:0:0", "3:7:0", "5:5:0", "7:3:0", "7:2:1")
ARMS = {ratio.replace(":", "-"): tree.Arm(ratio) for ratio in RATIOS}
DEVIATIONS = ("Stage 1 is shared by all mixtures; the paper varies its data, too.",)


def get_config(arg: str = "") -> ConfigDict:
    a = tree.read_args("fig8", arg, ARMS, llm=dense.LLM)
    if a.size == "demo":
        sources = "WORKDIR/data/captions.jsonl", "WORKDIR/data/llm.jsonl", "WORKDIR/captions/web.jsonl"
    else:
        folder = a.data or "DATA"
        sources = f"{folder}/captions.jsonl", f"{folder}/text.jsonl", f"{folder}/web.jsonl"

    def mix(arm: str, kind: str, c: ConfigDict) -> None:
        if kind == "captions":
            chosen = [(source, part) for source, part in zip(sources, arm.split("-"), strict=True) if part != "0"]
            c.data.records = ",".join(source for source, _ in chosen)
            c.data.weights = ":".join(part for _, part in chosen) if len(chosen) > 1 else ""

    title = "Ratios of synthesized, language-only and web data"
    own = ("captions", "questions" if a.size == "demo" else "sft")
    c = dense.recipe("fig8", a, title, ARMS, mix, own, chart="scatter", deviations=DEVIATIONS)
    if a.size == "demo":
        c.demo.caption_sets = True
    return c
