"""Which size an image gets: longest edge, fixed area (low, high), any resolution (EVEv2 paper, Fig. 10; in v1 Fig. 8).

    python -m launch.recipe --config=fig10 --workdir=runs/fig10               about 128 minutes on one core, 3 seeds
    python -m launch.recipe --config=fig10:tiny --workdir=runs/tiny10            the same at test size
    python -m launch.recipe --config=fig10:size=paper,llm=VICUNA_DIR,data=FOLDER,bench=FOLDER --workdir=...

Table 3 of the paper calls it Supp. Fig. 1. EVEv1.0: AnyRatio_maxL (longest edge 800), AnyRatio_LD and _HD ("fixed
image area", 800^2 and 1600^2) and AnyResolution. By the rule that the released code trains with (`fit=shrink`, which
only ever makes images smaller) AnyRatio_HD and AnyResolution are one and the same; so the first three are trained with
`fit=fill`, which gives every image the full area, and AnyResolution keeps the image's own size up to a cap. What rule
the paper's run used is not stated. At demo size images are scaled by 0.4 to 2.5 (`config.demo.settings.zoom`), and the
report has the accuracy by the size of the image. The settings of the paper, and what it does not state, are in
configs/dense.py.

Arguments: tiny, size=demo|1.5b|paper, llm=NAME, data=FOLDER, bench=FOLDER, seeds=N, points=N, of=ARM+ARM...
"""

from ml_collections import ConfigDict

from configs import dense, tree, variants

ARMS = {
    "maxl": tree.Arm("AnyRatio_maxL"),
    "ld": tree.Arm("AnyRatio_LD"),
    "hd": tree.Arm("AnyRatio_HD"),
    "anyresolution": tree.Arm("AnyResolution"),
}
MODES = {"maxl": "anyratio_maxl", "ld": "anyratio_ld", "hd": "anyratio_hd", "anyresolution": "anyresolution"}
DEMO_SIDES = {"maxl": 128, "ld": 96, "hd": 192, "anyresolution": 256}  # pixels
ZOOM = (0.4, 2.5)
# Rows of 256 and micro-batches of 64 x 8192 slots, so that a step has about as many samples in every mode.
DEMO_ROWS = {("hd", "stage1"): 4, ("hd", "captions"): 4, ("hd", "questions"): 3}
MICRO_BATCHES = {("hd", "stage1"): 5, ("hd", "captions"): 5, ("hd", "sft"): 3}
MICRO_BATCHES |= {("anyresolution", "stage1"): 2, ("anyresolution", "captions"): 2}
DEVIATIONS = ("The first three modes scale every image to the full area (fit=fill), AnyResolution never scales up.",)


def get_config(arg: str = "") -> ConfigDict:
    a = tree.read_args("fig10", arg, ARMS, llm=dense.LLM)
    demo_size = a.size == "demo"

    def size(arm: str, kind: str, c: ConfigDict) -> None:
        c.data.image_mode, c.data.fit = MODES[arm], "shrink" if arm == "anyresolution" else "fill"
        if demo_size:
            c.data.max_size = DEMO_SIDES[arm]
            c.data.max_tokens = c.data.row_tokens = 256
            c.data.rows = DEMO_ROWS.get((arm, kind), 2)
        elif (arm, kind) in MICRO_BATCHES:
            c.data.max_tokens, c.data.row_tokens, c.data.rows = 5000, 8192, 64
            c.data.micro_batches = MICRO_BATCHES[arm, kind]
        elif kind == "sft" and c.data.fit == "fill":
            c.data.rows = 96

    title = "Image modes"
    own = ("stage1", "captions", "questions" if demo_size else "sft")
    settings = {**variants.SETTINGS, "zoom": ZOOM}
    c = dense.recipe("fig10", a, title, ARMS, size, own, settings=settings, deviations=DEVIATIONS)
    if a.tiny:
        c.demo.settings = ConfigDict({"zoom": ZOOM})
    c.experiment.fit = ""  # as trained
    return c
