"""Names and layouts: our parameters next to the Hugging Face checkpoint's, one table read in both directions.

Their Linear weights are [out, in], convolutions [out, in, kH, kW]; ours are [in, out], layers stacked. The names are
the original's (docs/model.md#checkpoint-names): those of vision weights have `moe_`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from eve_jax.errors import UserError
from eve_jax.hf.entries import (
    Entry,
    convolution,
    flat_patch,
    layer_norm,
    linear,
    placed_patches,
    reshaped,
    same,
    transpose,
)
from eve_jax.hf.llava import LANGUAGE, PROJECTOR, TOWER
from eve_jax.model.clip_config import ClipConfig
from eve_jax.model.config import DELTA, TWICE, ModelConfig
from eve_jax.model.turns import turns

SAIL_TENSOR = "model.vis_embed.weight"  # patch embedding

TEACHER = "model.vision_clip.backbone."  # of EVEv1, before CLIP's own names
COMPRESSOR = "model.vision_tower_compressor."

# The norms of a layer here and there, by `ModelConfig.norms`.
LAYER_NORMS = {
    "before": {"input_norm": "input_layernorm", "post_norm": "post_attention_layernorm"},
    "after": {"attn_norm": "post_attention_layernorm", "mlp_norm": "post_feedforward_layernorm"},
    "both": {
        "input_norm": "input_layernorm",
        "attn_norm": "post_attention_layernorm",
        "post_norm": "pre_feedforward_layernorm",
        "mlp_norm": "post_feedforward_layernorm",
    },
}


def norm_weight(cfg: ModelConfig) -> str:
    """What a norm's weight is called here."""
    return "offset" if cfg.norm_plus_one else "scale"


def _layer_entries(cfg: ModelConfig) -> Iterator[Entry]:
    """The tables of the layers that the base LLM does not have, and of those that it has, which come after them.

    Of layers that take turns, those of each place in a turn.
    """
    if cfg.in_turns:
        count = len(cfg.layer_kinds)
        for place, own in enumerate(turns(cfg)):
            for entry in _stack_entries(own):
                ours = entry.ours.replace("layers.", f"layers.turn{place}.", 1)
                yield entry._replace(ours=ours, layers=cfg.num_layers // count, first=place, step=count)
        return
    extra = cfg.extra_layers
    if extra:
        of_extra = (entry._replace(layers=extra) for entry in _stack_entries(cfg))
        yield from (entry._replace(ours=entry.ours.replace("layers.", "extra.", 1)) for entry in of_extra)
    for entry in _stack_entries(cfg):
        yield entry._replace(layers=cfg.num_layers - extra, first=extra) if extra else entry


def _stack_entries(cfg: ModelConfig) -> Iterator[Entry]:
    at = "model.layers.{layer}."
    unknown = [name for name in cfg.parts if name not in (*TWICE, DELTA)]
    if unknown:
        raise UserError(f"model.parts={','.join(cfg.parts)}: {unknown[0]} has no names in a Hugging Face folder")

    def branches(part: str) -> list[tuple[str, str]]:
        return [("text", ""), ("vision", "moe_")] if part in cfg.parts else [("text", "")]

    for branch, moe in branches("layernorm"):
        for ours, theirs in LAYER_NORMS[cfg.norms].items():
            yield Entry(f"layers.{ours}.{branch}.{norm_weight(cfg)}", f"{at}{moe}{theirs}.weight", same, same)
    for branch, moe in branches("self_attn"):
        for name in ("q_norm", "k_norm") if cfg.qk_norm != "none" else ():
            ours = f"layers.attn.{name}.{branch}.{norm_weight(cfg)}"
            yield Entry(ours, f"{at}self_attn.{moe}{name}.weight", same, same)
        for name in "qk" if cfg.rope == "thw" else "":
            ours = f"layers.attn.{name}_place.{branch}"
            yield Entry(f"{ours}.kernel", f"{at}self_attn.{moe}{name}_proj_hw.weight", transpose, transpose)
            for axis in "hw" if cfg.qk_norm == "head" else "":
                theirs = f"{at}self_attn.{moe}{name}_norm_{axis}.weight"
                yield Entry(f"{ours}.{axis}_norm.{norm_weight(cfg)}", theirs, same, same)
        for name in "qko" if cfg.key_values in cfg.layer_kinds else "qkvo":
            ours, theirs = f"layers.attn.{name}.{branch}", f"{at}self_attn.{moe}{name}_proj"
            yield Entry(f"{ours}.kernel", f"{theirs}.weight", transpose, transpose)
            if cfg.qkv_bias and name != "o":
                yield Entry(f"{ours}.bias", f"{theirs}.bias", same, same)
    if cfg.layer_scale:
        yield Entry("layers.scale", f"{at}layer_scalar", same, same)
    for branch, moe in branches("mlp"):
        for name in ("gate", "up", "down"):
            yield Entry(f"layers.mlp.{branch}.{name}", f"{at}{moe}mlp.{name}_proj.weight", transpose, transpose)
    if DELTA in cfg.parts:
        for name in ("up", "down"):
            ours, theirs = f"layers.mlp.text.delta_{name}", f"{at}mlp.moe_{name}"
            yield Entry(f"{ours}.weight", f"{theirs}_proj", same, same)
            yield Entry(f"{ours}.gate", f"{theirs}_gate", same, same)


def eve_v2(cfg: ModelConfig) -> list[Entry]:
    """The table of EVEv2 on Qwen2 and LLaMA-3: every parameter of `cfg`'s model once, every tensor of theirs once.

    `cfg.qkv_bias` makes the difference between the backbones. Gated deltas have the names, and the transposed layout,
    of the original's LLaMA-3 model, the only one that has them.
    """
    tower = "model.vision_tower"
    conv = f"{tower}.patch_embedding"
    return [
        *decoder(cfg),
        Entry("patch_embed.kernel1", f"{conv}.0.weight", *convolution(cfg.sub_patch, 3)),
        Entry("patch_embed.bias1", f"{conv}.0.bias", same, same),
        Entry("patch_embed.kernel2", f"{conv}.2.weight", *convolution(2, cfg.patch_hidden)),
        Entry("patch_embed.bias2", f"{conv}.2.bias", same, same),
        Entry("patch_embed.class_embed", f"{tower}.class_embedding", reshaped(-1), same),
        Entry("patch_embed.split_embed", f"{tower}.split_embedding", reshaped(-1), same),
    ]


def eve_v1(cfg: ModelConfig) -> list[Entry]:
    """The table of EVEv1 on LLaMA: its decoder, patch embedding and projector, and what it has for aligning."""
    tower = "model.vision_tower"
    entries = [
        *decoder(cfg),
        Entry("patch_embed.conv", f"{tower}.patch_embedding.weight", *convolution(cfg.sub_patch, 3)),
        Entry("patch_embed.class_embed", f"{tower}.class_embedding", same, same),
        Entry("patch_embed.split_embed", f"{tower}.split_embedding", same, same),
    ]
    for ours, theirs in (("window", "local_attention"), ("image", "global_attention")):
        for name in ("q", "kv"):
            entries += layer_norm(f"patch_embed.{ours}.{name}_norm", f"{tower}.{theirs}.{name}.0")
            entries += linear(f"patch_embed.{ours}.{name}", f"{tower}.{theirs}.{name}.1", bias=False)
        entries += linear(f"patch_embed.{ours}.proj", f"{tower}.{theirs}.proj")
    for number, place in ((0, 0), (1, 2)):  # a GELU is between them
        entries += linear(f"patch_embed.project.{number}", f"model.mm_projector.{place}")
    if cfg.align_width:
        entries += _aligning(cfg)
    if cfg.teacher:
        entries += [e._replace(ours=f"teacher.{e.ours}", theirs=f"{TEACHER}{e.theirs}") for e in clip(cfg.teacher)]
    return entries


def _aligning(cfg: ModelConfig) -> list[Entry]:
    """The patch aligning layer, the original's "compressor"."""
    level = [
        *layer_norm("align.levels.norm", f"{COMPRESSOR}norm_layer.{{layer}}.0"),
        *linear("align.levels.project", f"{COMPRESSOR}norm_layer.{{layer}}.1", bias=False),
    ]
    return [
        *(entry._replace(layers=cfg.align_levels) for entry in level),
        *linear("align.input", f"{COMPRESSOR}input_layer"),
        *linear("align.output", f"{COMPRESSOR}output_layer"),
    ]


def clip(cfg: ClipConfig) -> list[Entry]:
    """The table of CLIP's vision tower in its Hugging Face folder; ours are the names within `ClipVision`."""
    at, layer = "vision_model.", "vision_model.encoder.layers.{layer}."
    entries = [
        *layer_norm("layers.norm1", f"{layer}layer_norm1"),
        *layer_norm("layers.norm2", f"{layer}layer_norm2"),
    ]
    for ours, theirs in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("out", "out_proj")):
        entries += linear(f"layers.{ours}", f"{layer}self_attn.{theirs}")
    for ours, theirs in (("up", "fc1"), ("down", "fc2")):
        entries += linear(f"layers.{ours}", f"{layer}mlp.{theirs}")
    return [
        Entry("embed.conv", f"{at}embeddings.patch_embedding.weight", *convolution(cfg.patch_size, 3)),
        Entry("embed.class_token", f"{at}embeddings.class_embedding", same, same),
        Entry("embed.position", f"{at}embeddings.position_embedding.weight", same, same),
        *layer_norm("embed.norm", f"{at}pre_layrnorm"),
        *(entry._replace(layers=cfg.num_layers) for entry in entries),
        *layer_norm("post_norm", f"{at}post_layernorm"),
    ]


def llava(cfg: ModelConfig) -> list[Entry]:
    """The table of a model with a vision encoder, LLaVA-1.5's: LLM, encoder, projector."""
    assert cfg.encoder is not None
    entries = [e._replace(theirs=LANGUAGE + e.theirs) for e in decoder(cfg)]
    for e in clip(cfg.encoder):
        entries.append(e._replace(ours=f"patch_embed.tower.{e.ours}", theirs=TOWER + e.theirs))
    for number in (0, 1):
        entries += linear(f"patch_embed.project.{number}", f"{PROJECTOR}linear_{number + 1}")
    return entries


def eve_names(cfg: ModelConfig) -> list[Entry]:
    """The table of the model of `cfg`."""
    return TABLES[cfg.patch_embed](cfg)


def decoder(cfg: ModelConfig) -> list[Entry]:
    """The table of all but the patch embedding: embeddings, layers with the vision copies of `cfg`, norm, head."""
    entries = [
        Entry("embed", "model.embed_tokens.weight", same, same),
        Entry(f"norm.{norm_weight(cfg)}", "model.norm.weight", same, same),
        *_layer_entries(cfg),
    ]
    if not cfg.tie_embeddings:
        entries.append(Entry("head", "lm_head.weight", same, same))
    return entries


def plain_llm(cfg: ModelConfig) -> list[Entry]:
    """The table of a plain LLM: no patch embedding, no vision copies, no layers and parts of queries of its own."""
    layers = cfg.num_layers - cfg.extra_layers
    table = decoder(replace(cfg, parts=(), rope="1d", extra_layers=0, num_layers=layers))
    return [entry._replace(layers=layers) if entry.stacked else entry for entry in table]


def neo(cfg: ModelConfig) -> list[Entry]:
    """The table of NEO: the decoder and two convolutions, each under a model of its own."""
    at = "vision_model.embeddings"
    return [
        *(entry._replace(theirs=f"language_model.{entry.theirs}") for entry in decoder(cfg)),
        Entry("patch_embed.kernel1", f"{at}.patch_embedding.weight", *convolution(cfg.sub_patch, 3)),
        Entry("patch_embed.bias1", f"{at}.patch_embedding.bias", same, same),
        Entry("patch_embed.kernel2", f"{at}.dense_embedding.weight", *convolution(2, cfg.patch_hidden)),
        Entry("patch_embed.bias2", f"{at}.dense_embedding.bias", same, same),
    ]


def sail(cfg: ModelConfig) -> list[Entry]:
    """The table of SAIL: Mistral's and a matrix for the pixels of a patch."""
    return [*decoder(cfg), Entry("patch_embed.kernel", SAIL_TENSOR, *flat_patch(cfg.sub_patch))]


def hundred(cfg: ModelConfig) -> list[Entry]:
    """The table of the $100 model: its base LLM's, and a patch embedding under the names of Gemma 4 Unified's."""
    return [*decoder(cfg), *placed_patches(cfg, channels_first=True, bias=True)]


def gemma(cfg: ModelConfig) -> list[Entry]:
    """The table of Gemma 4 Unified; layers that take turns are every n-th of theirs."""
    own = (entry._replace(theirs=entry.theirs.replace("model.", "model.language_model.", 1)) for entry in decoder(cfg))
    return [*own, *placed_patches(cfg, channels_first=False, bias=False)]


# The names of models of each `ModelConfig.patch_embed`.
TABLES: dict[str, Callable[[ModelConfig], list[Entry]]] = {
    "v2": eve_v2,
    "v1": eve_v1,
    "conv_gelu_rope": neo,
    "linear": sail,
    "ln_linear_pos": hundred,
    "ln_linear_pos_norm": gemma,
    "clip": llava,
}
