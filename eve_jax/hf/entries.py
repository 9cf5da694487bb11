"""A parameter of ours and the tensors of theirs that it is, with the ways between the two layouts."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from eve_jax.model.config import ModelConfig

Transform = Callable[[np.ndarray], np.ndarray]


class Entry(NamedTuple):
    """One parameter of ours and the tensor(s) of theirs it is; `{layer}` in `theirs` marks a stack over layers."""

    ours: str
    theirs: str
    to_ours: Transform
    to_theirs: Transform
    layers: int = 0  # of the stack, when they are not the decoder's
    first: int = 0  # their number of the first one
    step: int = 1  # from one to the next

    @property
    def stacked(self) -> bool:
        """True when `ours` stacks one tensor of theirs a layer."""
        return "{layer}" in self.theirs

    @property
    def row_axis(self) -> int | None:
        """Axis of one of our pieces that is the first of their tensor's; None where no axis is."""
        return 0 if self.to_ours is same else 1 if self.to_ours is transpose else None

    def names(self, cfg: ModelConfig) -> list[str]:
        """Their tensor's name, or one a layer."""
        if not self.stacked:
            return [self.theirs]
        count = self.layers or cfg.num_layers
        return [self.theirs.format(layer=self.first + i * self.step) for i in range(count)]

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of each tensor of theirs, given ours."""
        one = np.broadcast_to(np.zeros((), np.bool_), shape[1:] if self.stacked else shape)
        return self.to_theirs(one).shape


def same(w: np.ndarray) -> np.ndarray:
    return w


def transpose(w: np.ndarray) -> np.ndarray:
    return w.T


def reshaped(*shape: int) -> Transform:
    return lambda w: w.reshape(shape)


def convolution(kernel: int, channels: int) -> tuple[Transform, Transform]:
    """[out, in, k, k] <-> [k * k * in, out], pixels row by row with their channels together."""
    return (
        lambda w: w.transpose(2, 3, 1, 0).reshape(kernel * kernel * channels, -1),
        lambda w: w.reshape(kernel, kernel, channels, -1).transpose(3, 2, 0, 1),
    )


def linear(ours: str, theirs: str, bias: bool = True) -> list[Entry]:
    weight = Entry(f"{ours}.kernel", f"{theirs}.weight", transpose, transpose)
    return [weight, Entry(f"{ours}.bias", f"{theirs}.bias", same, same)] if bias else [weight]


def layer_norm(ours: str, theirs: str) -> list[Entry]:
    return [Entry(f"{ours}.{a}", f"{theirs}.{b}", same, same) for a, b in (("scale", "weight"), ("bias", "bias"))]


def flat_patch(sub: int, channels_first: bool = True) -> tuple[Transform, Transform]:
    """[out, channel row column] of a patch <-> [its four blocks, each row column channel; out].

    With `channels_first` False theirs are [out, row column channel].
    """
    ours, theirs = (2, 4, 3, 5, 1, 0), (5, 4, 0, 2, 1, 3)
    shape: tuple[int, ...] = (-1, 3, 2, sub, 2, sub)
    if not channels_first:
        shape, ours, theirs = (-1, 2, sub, 2, sub, 3), (1, 3, 2, 4, 5, 0), (5, 0, 2, 1, 3, 4)
    return (
        lambda w: w.reshape(shape).transpose(ours).reshape(12 * sub**2, -1),
        lambda w: w.reshape(2, 2, sub, sub, 3, -1).transpose(theirs).reshape(-1, 12 * sub**2),
    )


def placed_patches(cfg: ModelConfig, channels_first: bool, bias: bool) -> list[Entry]:
    """The table of a patch embedding with tables of rows and columns, under the names of Gemma 4 Unified.

    channels_first: the order of a patch's pixels there. bias: whether the last product has one.
    """
    to_ours, to_theirs = flat_patch(cfg.sub_patch, channels_first)
    pixels: tuple[Transform, Transform] = (lambda w: to_ours(w).reshape(-1), lambda w: to_theirs(w).reshape(-1))
    found = [
        *(entry._replace(to_ours=pixels[0], to_theirs=pixels[1]) for entry in layer_norm("pixel_norm", "patch_ln1")),
        Entry("input.kernel", "patch_dense.weight", to_ours, to_theirs),
        Entry("input.bias", "patch_dense.bias", same, same),
        *layer_norm("patch_norm", "patch_ln2"),
        Entry("places", "pos_embedding", *_rows_of_two()),
        *layer_norm("place_norm", "pos_norm"),
    ]
    entries = [entry._replace(theirs=f"model.vision_embedder.{entry.theirs}") for entry in found]
    entries += linear("output", "model.embed_vision.embedding_projection", bias)
    return [entry._replace(ours=f"patch_embed.{entry.ours}") for entry in entries]


def _rows_of_two() -> tuple[Transform, Transform]:
    """[N, 2, D] <-> [2 N, D]."""
    return lambda w: w.reshape(-1, w.shape[-1]), lambda w: w.reshape(-1, 2, w.shape[-1])
