"""Patch embedding layer of EVEv1 on packed windows (docs/model.md#patch-embedding-of-evev1).

A window is 2x2 patches, a block of its own: one matrix product makes the patches, attention within the window pools
them, and the class token of each image attends over the windows of its image, a softmax over segments of the row.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, UInt8

from eve_jax.batch import CLASS, SPLIT
from eve_jax.model.config import V1_HEADS, ModelConfig
from eve_jax.model.layers import LayerNorm, Linear, in_use
from eve_jax.model.lora import adapted
from eve_jax.model.patch_embed import normalised
from eve_jax.model.weight import normal, param


def sub_patches(patches: UInt8[Array, "R P B"], dtype: jnp.dtype) -> Float[Array, "R P 4 N"]:
    """The 2x2 blocks of each patch, normalized."""
    rows, count, size = patches.shape
    return normalised(patches).astype(dtype).reshape(rows, count, 4, size // 4)


def attend_few(q: Float[Array, "*B C"], k: Float[Array, "*B W C"], v: Float[Array, "*B W C"]) -> Float[Array, "*B C"]:
    """Each query attends over its own W keys, in 8 heads, with scores scaled by the FULL width, C^-1/2."""
    size = (V1_HEADS, q.shape[-1] // V1_HEADS)
    q, k, v = (x.reshape(*x.shape[:-1], *size) for x in (q, k, v))
    scores = jnp.einsum("...HE,...WHE->...HW", q, k, preferred_element_type=jnp.float32) * (size[0] * size[1]) ** -0.5
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = jnp.einsum("...HW,...WHE->...HE", weights, v)
    return out.reshape(*out.shape[:-2], size[0] * size[1])


class PatchAttention(nnx.Module):
    """Projections of a cross-attention: query and context have a LayerNorm each; only the last one has a bias.

    queries: the tokens that it has queries of. context: how often each patch is context.
    """

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs, queries: str, context: int):
        c = cfg.patch_hidden
        self.q_norm = LayerNorm(cfg, rngs, c)
        self.q = Linear(cfg, rngs, c, c, bias=False, works_on=queries)
        self.kv_norm = LayerNorm(cfg, rngs, c)
        self.kv = Linear(cfg, rngs, c, 2 * c, bias=False, works_on="patches", times=context)
        self.proj = Linear(cfg, rngs, c, c, works_on=queries)

    def query(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        """Queries of `x`."""
        return self.q(self.q_norm(x))

    def context(self, x: Float[Array, "*B C"]) -> tuple[Array, Array]:
        """Keys and values of `x`."""
        k, v = jnp.split(self.kv(self.kv_norm(x)), 2, axis=-1)
        return k, v


def windows_of_class(batch: dict[str, Any]) -> Bool[Array, "R S P"]:
    """True where special slot s is the class token of the image that window p belongs to.

    A window's image is that of the last class token before it in causal order.
    """
    count, special_ids = batch["patches"].shape[1], batch["special_ids"]
    at = batch["inv"]
    windows, specials = at[:, :count], at[:, count : count + special_ids.shape[1]]
    is_class = special_ids == CLASS
    before = is_class[:, :, None] & (specials[:, :, None] < windows[:, None])
    image_of_window = before.sum(axis=1)
    image_of_special = jnp.cumsum(is_class, axis=1)
    real = batch["segment"][:, None, :count] > 0
    return is_class[:, :, None] & (image_of_special[:, :, None] == image_of_window[:, None]) & real


def _attends(cfg: ModelConfig, switch: str) -> bool:
    return getattr(cfg, switch) == "attention"


class WindowEmbed(nnx.Module):
    """Convolution, attention within windows, class token over windows, split tokens, two-layer projector."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(cfg.dtype)
        sub, c, d = cfg.patch_bytes // 4, cfg.patch_hidden, cfg.hidden_size
        pixels: Any = {"works_on": "patches", "times": 4, "input_grad": False}
        self.conv = param(cfg, rngs, (sub, c), (None, "patch"), normal((3 * sub) ** -0.5), "matrix", **pixels)
        self.window = PatchAttention(cfg, rngs, queries="patches", context=4) if _attends(cfg, "window_pool") else None
        self.image = PatchAttention(cfg, rngs, queries="specials", context=1) if _attends(cfg, "image_token") else None
        self.class_embed = param(cfg, rngs, (c,), (None,), normal(0.02), "table", works_on="specials")
        self.split_embed = param(cfg, rngs, (c,), (None,), normal(0.02), "table", works_on="specials")
        projections = (Linear(cfg, rngs, size, d, works_on="vision") for size in (c, d))
        self.project = nnx.List(list(projections))

    def __call__(self, batch: dict[str, Any]) -> Float[Array, "R V D"]:
        """Vision slots of the rows of a batch (docs/design.md#row-contract): windows, then special tokens."""
        rows, count = batch["patches"].shape[:2]
        if not count:
            return jnp.zeros((rows, batch["special_ids"].shape[1], self.project[1].kernel.shape[1]), self.dtype)
        own: WindowEmbed = in_use(self, self.dtype)
        windows = own.pooled(batch)
        split = (batch["special_ids"] == SPLIT)[..., None] * own.split_embed[...]
        x = jnp.concatenate([windows, own.class_tokens(windows, batch) + split], axis=1)
        return own.project[1](jax.nn.gelu(own.project[0](x), approximate=False))

    def pooled(self, batch: dict[str, Any]) -> Float[Array, "R P C"]:
        """A window's patches as their mean and, unless that is all, what it learns by attending over them."""
        pixels = sub_patches(batch["patches"], self.dtype)
        x = adapted(self, "conv", pixels, pixels @ self.conv[...])
        mean = x.mean(axis=2)
        if self.window is None:
            return mean
        return mean + self.window.proj(attend_few(self.window.query(mean), *self.window.context(x)))

    def class_tokens(self, windows: Float[Array, "R P C"], batch: dict[str, Any]) -> Float[Array, "R S C"]:
        """The class token of each image in its special slot, zeros in the others; a learned one unless it attends."""
        width, is_class = windows.shape[-1], (batch["special_ids"] == CLASS)[..., None]
        if self.image is None:
            return is_class * self.class_embed[...]
        k, v = (x.reshape(*x.shape[:-1], V1_HEADS, width // V1_HEADS) for x in self.image.context(windows))
        start = self.class_embed[...]
        q = self.image.query(start).reshape(V1_HEADS, width // V1_HEADS)
        scores = jnp.einsum("HE,RPHE->RHP", q, k, preferred_element_type=jnp.float32) * width**-0.5
        seen = windows_of_class(batch)[:, None]
        weights = jax.nn.softmax(jnp.where(seen, scores[:, :, None], jnp.finfo(jnp.float32).min), axis=-1)
        out = jnp.einsum("RHSP,RPHE->RSHE", weights.astype(v.dtype), v)
        tokens = start + self.image.proj(out.reshape(*out.shape[:2], width))
        return is_class * tokens
