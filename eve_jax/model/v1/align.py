"""Patch aligning layer of EVEv1, in training only (docs/model.md#patch-aligning-layer).

Hidden states of several layers at an image's windows, pooled to the grid of a frozen CLIP's patches, predict that
CLIP's features. Everything is in slot order: pooled place a holds the windows pool[a * k : (a + 1) * k] of its row,
k = P // A.

Dimensions: R rows, P windows, A pooled places, D hidden size, C width of the teacher.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from eve_jax.model.config import ModelConfig
from eve_jax.model.layers import LayerNorm, Linear, gathered, in_use, stacked
from eve_jax.model.permute import permute
from eve_jax.model.v1.patch_embed import attend_few


class AlignLevel(nnx.Module):
    """What is read from the hidden states of one layer."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        self.norm = LayerNorm(cfg, rngs, cfg.hidden_size)
        self.project = Linear(cfg, rngs, cfg.hidden_size, cfg.align_width, bias=False)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B C"]:
        return self.project(self.norm(x))


class PatchAlign(nnx.Module):
    """Levels of layers, the last layer's first; attention of the last over the others, place by place."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(cfg.dtype)
        self.levels = stacked(lambda rngs: AlignLevel(cfg, rngs), cfg.align_levels, rngs)
        self.input = Linear(cfg, rngs, cfg.hidden_size, cfg.align_width)
        self.output = Linear(cfg, rngs, cfg.align_width, cfg.align_width)

    def read(self, weights: nnx.State, hidden: Float[Array, "R L D"], batch: dict[str, Any]) -> Float[Array, "R A C"]:
        """A level of `weights` on the residual stream in slot order."""
        level = nnx.merge(nnx.split(self.levels)[0], gathered(weights, self.dtype))
        return level(pooled(hidden, batch))

    def weights(self) -> tuple[nnx.State, nnx.State]:
        """Of the last layer's level, and of the others from the lowest layer up, stacked."""
        state = nnx.state(self.levels)
        return tree_at(state, 0), tree_at(state, slice(None, 0, -1))

    def predict(
        self, normed: Float[Array, "R L D"], taps: Float[Array, "N R A C"], batch: dict[str, Any]
    ) -> Float[Array, "R A C"]:
        """The teacher's features as predicted from the final norm's output and what `read` gave of lower layers."""
        query, others = self.read(self.weights()[0], normed, batch), jnp.moveaxis(taps, 0, 2)
        attended = attend_few(query, others, others)
        return in_use(self.input, self.dtype)(pooled(normed, batch)) + in_use(self.output, self.dtype)(attended)


def tree_at(state: nnx.State, index: int | slice) -> nnx.State:
    """Every array of `state` at `index` of its leading axis."""
    return jax.tree.map(lambda a: a[index], state)


def pooled(hidden: Float[Array, "R L D"], batch: dict[str, Any]) -> Float[Array, "R A D"]:
    """Mean over the windows of each pooled place."""
    windows = hidden[:, : batch["patches"].shape[1]]
    if "pool" not in batch:  # one window a place
        return windows
    places = batch["align_weight"].shape[1]
    each = windows.shape[1] // places
    grouped = permute(windows, batch["pool"], batch["pool_inv"])[:, : places * each]
    return grouped.reshape(grouped.shape[0], places, each, -1).mean(axis=2)


def aligned_with(
    cfg: ModelConfig, features: Float[Array, "R A C"], batch: dict[str, Any]
) -> tuple[Float[Array, "R A C"], Float[Array, "R A"]]:
    """Return what is to be predicted at each place, of the teacher's `features` there, and what the place counts."""
    share = batch["align_weight"]
    if cfg.align_target == "own":
        return features, share
    return jnp.roll(features, -1, axis=1), share_of_next(cfg, batch["teacher_idx"], share)


def share_of_next(cfg: ModelConfig, index: Int[Array, "R A"], share: Float[Array, "R A"]) -> Float[Array, "R A"]:
    """Return the shares of the places behind which another patch of their image comes, 0 for its last one.

    index: the teacher's patch at each place, among all of the row's images. share: 1 / places of the image.
    """
    assert cfg.teacher is not None
    after, patches = jnp.roll(index, -1, axis=1), cfg.teacher.cells**2
    follows = (after > index) & (after // patches == index // patches) & (jnp.roll(share, -1, axis=1) > 0)
    return jnp.where(follows, share / jnp.maximum(1 - share, 1e-6), 0)
