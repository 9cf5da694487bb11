"""A vision encoder, a vision vocabulary or neither: VE, DT and EVE as data grow (EVEv2 paper, Fig. 2 in both versions).

    python -m launch.recipe --config=fig2 --workdir=runs/fig2                 about 102 minutes on one core, 3 seeds
    python -m launch.recipe --config=fig2:points=4 --workdir=runs/fig2           a curve of four points
    python -m launch.recipe --config=fig2:tiny --workdir=runs/tiny2              the same at test size
    python -m launch.recipe --workdir=... \
        --config=fig2:size=paper,llm=VICUNA_DIR,encoder=CLIP_DIR,vq=VQ_DIR,data=FOLDER,bench=FOLDER

| arm | images are | stage 1 trains | captions | fine-tuning |
|---|---|---|---|---|
| ve | patches of a vision encoder, and a projector | the projector | encoder and projector | everything |
| dt | codes of a vision tokenizer | the vocabulary of codes | everything but the tokenizer | the same |
| eve | EVEv1.0: a patch embedding without supervision by an encoder | the patch embedding | everything | everything |

Settings of the paper (Fig. 2 (i), appendix A): Vicuna-7B, EVE-cap-16M, EVE-cap-33M, LLaVA-mix-665K; CLIP ViT-L-336
(576 tokens), "Mo-VQGAN" (1,024 tokens of 8^2 pixels), a transformer block (625 tokens of 32^2). Of VE the LLM stays
frozen on captions, since "unfreezing LLM weights at this stage leads to performance collapse". The paper does not state
learning rates and batches (here the main recipe's: 2e-4, 2e-5, 1e-5), which Mo-VQGAN it is (here Kandinsky's movq;
vq=DIR), how images become squares (here they are padded), and which block EVE has (here EVEv2's patch embedding). The
curve of the figure goes to 2^6 M samples, past one epoch; here to its 33 M. Fig. 2 (ii), Qwen2 with VE, EVEv1.0 and
EVEv1.2, is not here; the weight changes of its lower half are in the report, of every arm against the LLM.

How encoder and vocabulary are made at demo size, where DT sees 96^2 pixels and VE 192^2: configs/towers.py. Data of a
real size: stage1.jsonl, captions.jsonl, sft.jsonl; for dt codes/stage1, codes/captions, codes/sft, made of these by
`launch.prepare_data convert --config=dt:vq=VQ_DIR`, whose cost is not counted.

Arguments: tiny, size=demo|1.5b|paper, llm=NAME, encoder=DIR, vq=DIR, data=FOLDER, bench=FOLDER, seeds=N, points=N,
of=ARM+ARM...
"""

from ml_collections import ConfigDict

from configs import dense, towers, tree

ARMS = {
    "ve": tree.Arm("VE (encoder)"),
    "dt": tree.Arm("DT (codes)"),
    "eve": tree.Arm("EVE (neither)"),
}
SAMPLES = {"1.5b": (4_000_000, 4_000_000, 665_000), "paper": (16_000_000, 33_000_000, 665_000)}
DEMO_DEVIATIONS = ("VE sees 192^2 pixels, DT 96^2, EVE the image itself (some 160 x 96); 36, 36 and some 16 tokens.",)
REAL_DEVIATIONS = (
    "The vision tokenizer is that of vq=DIR (Kandinsky's movq); which one the paper's is, it does not state.",
    "EVE has EVEv2's patch embedding and no supervision by an encoder.",
)


def get_config(arg: str = "") -> ConfigDict:
    a = tree.read_args("fig2", arg, ARMS, llm=dense.LLM, encoder="", vq="")
    demo_size, encoder, codes = a.size == "demo", "ve" in a.of, "dt" in a.of

    def see(arm: str, kind: str, c: ConfigDict) -> None:
        if arm == "ve":
            towers.demo_encoder(c, kind) if demo_size else towers.real_encoder(c, kind, a.more["encoder"])
            c.stage = "2.1" if kind == "captions" else c.stage
        elif arm == "dt":
            towers.demo_codes(c, kind) if demo_size else towers.real_codes(c, kind, a.more["vq"], a.data)

    own = ("stage1", "captions", "questions" if demo_size else "sft")
    said = (*towers.said(a.tiny, encoder, codes), *DEMO_DEVIATIONS) if demo_size else REAL_DEVIATIONS
    more = {"samples": SAMPLES, "deviations": said, "fields": {"weights": tree.llm_of(a)}}
    c = dense.recipe("fig2", a, "A vision encoder, a vision vocabulary, or neither", ARMS, see, own, **more)
    if demo_size and (encoder or codes):
        c.pretrain = towers.pretrain(a.tiny, encoder, codes)
    return c
