"""Which parts of a layer have weights of their own for vision: all eight subsets of LayerNorm, attention, feed-forward.

    python -m launch.recipe --config=fig5_parts --workdir=runs/parts                     about 179 minutes on one core
    python -m launch.recipe --config=fig5_parts:of=layernorm+self_attn+moe+dac --workdir=...      single parts, and all
    python -m launch.recipe --config=fig5_parts:tiny --workdir=runs/tiny_parts                    at test size

EVEv2 paper, Fig. 5 and section 4.2 (in both versions; the number of LayerNorm alone is in the second): "decoupling" the
LayerNorm alone is not enough, 48.8 against 51.6 with all parts. Feed-forward alone is EVEv1.5; attention alone and the
pairs are not reported. All settings, and what the paper does not state of them, are those of configs/fig5.py, with
whose runs arms of the same name are shared in one work folder: dense, moe, dac.

Arguments: tiny, size=demo|1.5b|paper, llm=NAME, data=FOLDER, bench=FOLDER, seeds=N, points=N, of=ARM+ARM...
"""

from ml_collections import ConfigDict

from configs import fig5, tree

PARTS = {
    "dense": "none",
    "layernorm": "layernorm",
    "self_attn": "self_attn",
    "moe": "mlp",
    "layernorm_self_attn": "layernorm,self_attn",
    "layernorm_mlp": "layernorm,mlp",
    "self_attn_mlp": "self_attn,mlp",
    "dac": "layernorm,self_attn,mlp",
}
ARMS = {
    "dense": tree.Arm("none (EVEv1.0)"),
    "layernorm": tree.Arm("LayerNorm", "48.8 at 7B"),
    "self_attn": tree.Arm("attention"),
    "moe": tree.Arm("feed-forward (EVEv1.5)", "50.8 at 7B (51.6 less the gap 0.8)"),
    "layernorm_self_attn": tree.Arm("LayerNorm, attention"),
    "layernorm_mlp": tree.Arm("LayerNorm, feed-forward"),
    "self_attn_mlp": tree.Arm("attention, feed-forward"),
    "dac": tree.Arm("all (EVEv2.0)", "51.6 at 7B"),
}


def get_config(arg: str = "") -> ConfigDict:
    a = tree.read_args("fig5_parts", arg, ARMS, llm="qwen2.5-7b")
    return fig5.recipe("fig5_parts", a, "Parts of a layer with weights for vision", ARMS, PARTS)
