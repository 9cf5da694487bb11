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
        return [self.theirs.format(layer=i) for i in range(self.first, self.first + count)]

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


def flat_pixels(sub: int, channels_first: bool = True) -> tuple[Transform, Transform]:
    """`flat_patch` of a vector with a number for each pixel of a patch and channel."""
    to_ours, to_theirs = flat_patch(sub, channels_first)
    return lambda w: to_ours(w).reshape(-1), lambda w: to_theirs(w).reshape(-1)
