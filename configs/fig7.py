"""Four ways to see on the same LLM and data, plain and detailed captions (EVEv2 paper, Fig. 7 of its v2; not in v1).

    python -m launch.recipe --config=fig7 --workdir=runs/fig7                 about 250 minutes on one core, 3 seeds
    python -m launch.recipe --config=fig7:of=eve_recap+llava_recap --workdir=...  some of them
    python -m launch.recipe --config=fig7:tiny --workdir=runs/tiny7              the same at test size
    python -m launch.recipe --config=fig7:size=paper,encoder=CLIP_DIR,data=FOLDER,bench=FOLDER --workdir=...

| method | images are | stage 1 trains | captions | fine-tuning |
|---|---|---|---|---|
| eve | EVEv1: its patch embedding; the aligning loss in stages 1, 2 | both of these | everything | everything |
| mono | Mono-InternVL: a patch embedding, feed-forward twice | patch embedding | it, vision weights | everything |
| llava | LLaVA-1.5: a vision encoder and a projector | projector | encoder and projector | everything |
| evev2 | EVEv2.0: a patch embedding, all weights twice | patch embedding | it, vision weights | everything |

An arm is METHOD_cap or METHOD_recap, by the engine that wrote the captions of both stages. Settings of the paper:
Qwen2.5-7B, 10 M, 48 M and EVE-sft-7M; the average of GQA, SEED-All, TextVQA, SQA-IMG, MMBench and MM-Vet. For Mono it
says "PEL, LLM" of the last stage; here, as in Fig. 5, LLM means all weights of the layers. It does not state image
sizes (here 800^2, EVEv1's 672, CLIP's 336^2) and learning rates (here the main recipe's; of captions with the LLM
2e-5). MM-Vet needs a judge: the accuracy is the mean over the other five.

At demo size cap says which things there are, recap also where, how many and what signs read
(`config.demo.caption_sets`); the encoder, and EVEv1's teacher, are the small one of configs/towers.py. Data of a real
size: stage1_cap.jsonl, captions_cap.jsonl, the same with recap, sft.jsonl. encoder=DIR is CLIP's for llava and for eve.

Arguments: tiny, size=demo|1.5b|paper, llm=NAME, encoder=DIR, data=FOLDER, bench=FOLDER, seeds=N, points=N,
of=ARM+ARM...
"""

from ml_collections import ConfigDict

from configs import dense, fig6, towers, tree

METHODS = {"eve": "EVEv1", "mono": "Mono-InternVL", "llava": "LLaVA-1.5", "evev2": "EVEv2.0"}
PARTS = {"mono": "mlp", "evev2": "layernorm,self_attn,mlp"}
ENGINES = ("cap", "recap")
ARMS = {f"{method}_{by}": tree.Arm(f"{label}, {by}") for by in ENGINES for method, label in METHODS.items()}
SAMPLES = {"1.5b": (4_000_000, 4_000_000, 665_000), "paper": (10_000_000, 48_000_000, 7_000_000)}
LR = 1e-4  # of captions at a real size where the LLM stays frozen
TASKS = "gqa,seed,textvqa,sqa,mmbench_en"
DEMO_DEVIATIONS = ("The encoder sees 192^2 pixels, EVEv1 the image at 192 on its longer side, the others as it is.",)
REAL_DEVIATIONS = ("MM-Vet, which needs a judge, is not among the benchmarks.",)


def get_config(arg: str = "") -> ConfigDict:
    a = tree.read_args("fig7", arg, ARMS, llm="qwen2.5-7b", encoder="")
    demo_size = a.size == "demo"
    encoder = any(arm.startswith(("eve_", "llava_")) for arm in a.of)

    def see(arm: str, kind: str, c: ConfigDict) -> None:
        method, by = arm.split("_")
        c.model.parts = PARTS.get(method, "none") if kind != "stage1" else "none"
        if kind == "captions" and method != "eve":
            c.stage = "2.1"
            c.optim.lr = c.optim.lr if demo_size else LR
        if method == "llava":
            towers.demo_encoder(c, kind) if demo_size else towers.real_encoder(c, kind, a.more["encoder"])
        elif method == "eve":
            towers.demo_v1(c, kind) if demo_size else towers.real_v1(c, kind, a.more["encoder"])
        if kind in ("stage1", "captions"):
            c.data.records = f"WORKDIR/{fig6.RECORDS[by]}" if demo_size else f"{a.data or 'DATA'}/{kind}_{by}.jsonl"

    own = ("stage1", "captions", "questions" if demo_size else "sft")
    said = (*towers.said(a.tiny, encoder, False), *DEMO_DEVIATIONS) if demo_size else REAL_DEVIATIONS
    fields = {"weights": tree.llm_of(a)} | ({} if demo_size else {"tasks": TASKS})
    more = {"samples": SAMPLES, "deviations": said, "fields": fields}
    c = dense.recipe("fig7", a, "Ways to see, and captions", ARMS, see, own, **more)
    if demo_size:
        c.demo.caption_sets = True
    if demo_size and encoder:
        c.pretrain = towers.pretrain(a.tiny, encoder, False)
    return c
