"""Names and layouts: our parameters beside the Hugging Face checkpoint's, one table read in both directions.

Their Linear weights are [out, in], convolutions [out, in, kH, kW]; ours are [in, out], layers stacked. The names are
the original's (SPEC section 7): twins for vision tokens carry `moe_`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from eve_jax.model.config import DELTA, SUB_PATCH, ModelConfig

Transform = Callable[[np.ndarray], np.ndarray]


class Entry(NamedTuple):
    """One parameter of ours and the tensor(s) of theirs it is; `{layer}` in `theirs` marks a stack over layers."""

    ours: str
    theirs: str
    to_ours: Transform
    to_theirs: Transform

    @property
    def stacked(self) -> bool:
        """True when `ours` stacks one tensor of theirs a layer."""
        return "{layer}" in self.theirs

    def names(self, cfg: ModelConfig) -> list[str]:
        """Their tensor's name, or one a layer."""
        return [self.theirs.format(layer=i) for i in range(cfg.num_layers)] if self.stacked else [self.theirs]

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of each tensor of theirs, given ours."""
        one = np.broadcast_to(np.zeros((), np.bool_), shape[1:] if self.stacked else shape)
        return self.to_theirs(one).shape


def _same(w: np.ndarray) -> np.ndarray:
    return w


def _transpose(w: np.ndarray) -> np.ndarray:
    return w.T


def _reshape(*shape: int) -> Transform:
    return lambda w: w.reshape(shape)


def _conv(kernel: int, channels: int) -> tuple[Transform, Transform]:
    """[out, in, k, k] <-> [k * k * in, out], pixels row by row with their channels together."""
    return (
        lambda w: w.transpose(2, 3, 1, 0).reshape(kernel * kernel * channels, -1),
        lambda w: w.reshape(kernel, kernel, channels, -1).transpose(3, 2, 0, 1),
    )


def _layer_entries(cfg: ModelConfig) -> Iterator[Entry]:
    at = "model.layers.{layer}."

    def branches(part: str) -> list[tuple[str, str]]:
        return [("text", ""), ("vision", "moe_")] if part in cfg.parts else [("text", "")]

    for branch, moe in branches("layernorm"):
        for ours, theirs in (("input_norm", "input_layernorm"), ("post_norm", "post_attention_layernorm")):
            yield Entry(f"layers.{ours}.{branch}.scale", f"{at}{moe}{theirs}.weight", _same, _same)
    for branch, moe in branches("self_attn"):
        for name in "qkvo":
            ours, theirs = f"layers.attn.{name}.{branch}", f"{at}self_attn.{moe}{name}_proj"
            yield Entry(f"{ours}.kernel", f"{theirs}.weight", _transpose, _transpose)
            if cfg.qkv_bias and name != "o":
                yield Entry(f"{ours}.bias", f"{theirs}.bias", _same, _same)
    for branch, moe in branches("mlp"):
        for name in ("gate", "up", "down"):
            yield Entry(f"layers.mlp.{branch}.{name}", f"{at}{moe}mlp.{name}_proj.weight", _transpose, _transpose)
    if DELTA in cfg.parts:
        for name in ("up", "down"):
            ours, theirs = f"layers.mlp.text.delta_{name}", f"{at}mlp.moe_{name}"
            yield Entry(f"{ours}.weight", f"{theirs}_proj", _same, _same)
            yield Entry(f"{ours}.gate", f"{theirs}_gate", _same, _same)


def eve_v2(cfg: ModelConfig) -> list[Entry]:
    """The table of EVEv2 on Qwen2 and LLaMA-3: every parameter of `cfg`'s model once, every tensor of theirs once.

    `cfg.qkv_bias` makes the difference between the backbones. Gated deltas have the names, and the transposed layout,
    of the original's LLaMA-3 model, the only one that has them.
    """
    tower = "model.vision_tower"
    conv = f"{tower}.patch_embedding"
    entries = [
        Entry("embed", "model.embed_tokens.weight", _same, _same),
        Entry("norm.scale", "model.norm.weight", _same, _same),
        Entry("patch_embed.kernel1", f"{conv}.0.weight", *_conv(SUB_PATCH, 3)),
        Entry("patch_embed.bias1", f"{conv}.0.bias", _same, _same),
        Entry("patch_embed.kernel2", f"{conv}.2.weight", *_conv(2, cfg.patch_hidden)),
        Entry("patch_embed.bias2", f"{conv}.2.bias", _same, _same),
        Entry("patch_embed.class_embed", f"{tower}.class_embedding", _reshape(-1), _same),
        Entry("patch_embed.split_embed", f"{tower}.split_embedding", _reshape(-1), _same),
        *_layer_entries(cfg),
    ]
    if not cfg.tie_embeddings:
        entries.append(Entry("head", "lm_head.weight", _same, _same))
    return entries


def plain_llm(cfg: ModelConfig) -> list[Entry]:
    """The table of a Qwen2 or LLaMA LLM: EVEv2's without the patch embedding and the twins for vision tokens."""
    return [e for e in eve_v2(replace(cfg, parts=())) if not e.ours.startswith("patch_embed.")]
