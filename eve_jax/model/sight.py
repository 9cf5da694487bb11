"""What a token sees, by the kind of layer (`ModelConfig.layer_kinds`): rotary positions, windows, images.

Dimensions: B rows, T tokens, N heads, H head size, C kinds of layers, F pairs of a head that turn.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from eve_jax.model.attention import Ahead, packed_attention
from eve_jax.model.config import ModelConfig
from eve_jax.model.rotary import Angles, rotate
from eve_jax.model.splash_blocks import Kernel


def rotary_frequencies(cfg: ModelConfig, kind: str = "full") -> Float[Array, "F"]:
    """Angle per position of each pair in layers of a `kind`, theta^(-2i/H) or as scaled, float32 [H/2]; zeros for nope.

    `cfg.rope_scaling`: linear divides all by its factor. llama3 (LLaMA-3.1): wavelengths beyond original/low are
    stretched by the factor, those below original/high stay, and between the two the frequency is interpolated. yarn
    (arXiv 2309.00071): the same with a ramp over the number of the pair. proportional (Gemma 4): a share of the pairs,
    those of the highest frequencies, turn at all. Local layers with a theta of their own have no scaling.
    """
    if kind == "nope":
        return jnp.zeros(cfg.head_dim // 2, jnp.float32)
    theta = cfg.local_rope_theta if _has_own_theta(cfg, kind) else cfg.rope_theta
    inv_freq = theta ** (-jnp.arange(0, cfg.head_dim, 2, dtype=jnp.float32) / cfg.head_dim)
    if not _is_scaled(cfg, kind):
        return inv_freq
    if cfg.rope_type == "linear":
        return inv_freq / cfg.rope_scaling[0]
    if cfg.rope_type == "proportional":
        return inv_freq * (np.arange(cfg.head_dim // 2) < int(cfg.rope_scaling[0] * cfg.head_dim // 2))
    kept: Array | np.ndarray
    if cfg.rope_type == "yarn":
        factor, kept = cfg.rope_scaling[0], _yarn_kept(cfg)
    else:
        factor, low, high, original = cfg.rope_scaling
        turns = original * inv_freq / (2 * jnp.pi)  # within the original context
        kept = jnp.clip((turns - low) / (high - low), 0, 1)
    return inv_freq * (kept + (1 - kept) / factor)


def _has_own_theta(cfg: ModelConfig, kind: str) -> bool:
    return kind == "local" and cfg.local_rope_theta > 0


def _is_scaled(cfg: ModelConfig, kind: str) -> bool:
    return bool(cfg.rope_scaling) and kind != "nope" and not _has_own_theta(cfg, kind)


def _yarn_kept(cfg: ModelConfig) -> Float[np.ndarray, "F"]:
    """The share of each pair's frequency that yarn leaves as it is."""
    _, original, fast, slow, _, whole = cfg.rope_scaling

    def pair(turns: float) -> float:
        """The pair that turns so often within the original context."""
        return cfg.head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(cfg.rope_theta))

    first, last = pair(fast), pair(slow)
    if whole:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, cfg.head_dim - 1)
    ramp = (np.arange(cfg.head_dim // 2, dtype=np.float32) - first) / max(last - first, 0.001)
    return 1 - np.clip(ramp, 0, 1)


# The number of a layer's kind, one of Python's where kinds differ in shape; None where all layers are of one.
Kind = Int[Array, ""] | int | None


class Numbers(NamedTuple):
    """What rotary positions count: a number a token, and, where the model has those, rows and columns in images."""

    number: Int[Array, "B T"]
    place: Int[Array, "B T 2"] | None = None

    @classmethod
    def of(cls, cfg: ModelConfig, batch: dict[str, Array]) -> "Numbers":
        """Those of the rows of a batch, in slot order."""
        index = batch["position"] if cfg.index_rule == "token" else batch["index"]
        if cfg.rope == "1d":
            return cls(index)
        others = index.shape[1] - batch["place"].shape[1]  # only patches have places
        return cls(index, jnp.pad(batch["place"], ((0, 0), (0, others), (0, 0))))


class Sight(NamedTuple):
    """What the layers of each kind see of some rows.

    angles: of several kinds with a leading axis of kinds. halves: their sizes, of each part of a head that turns by
    itself. windows: how many tokens a token sees in layers of each kind, 0 for all. of_layers: the kind of each layer.
    ahead: what whole rows see behind themselves, None for nothing. images: whether images see themselves.
    """

    angles: Angles
    halves: tuple[int, ...]
    windows: tuple[int, ...]
    of_layers: tuple[int, ...]
    ahead: Ahead | None = None
    images: bool = False

    @classmethod
    def of(cls, cfg: ModelConfig, numbers: Numbers, ahead: Ahead | None = None) -> "Sight":
        parts = [_parts(cfg, numbers, kind) for kind in cfg.kinds]
        halves = tuple(angle.shape[-1] for angle in parts[0])
        each = [_whole(cfg, kind, own) for kind, own in zip(cfg.kinds, parts, strict=True)]
        angles = each[0] if len(each) == 1 else jax.tree.map(lambda *kinds: jnp.stack(kinds), *each)
        windows = tuple(cfg.window if kind == "local" else 0 for kind in cfg.kinds)
        return cls(angles, halves, windows, cfg.kind_numbers, ahead, cfg.image_attention != "causal")

    def layers(self) -> Int[Array, "layers"] | None:
        """The kind of each layer, for a scan over them; None where all are of one."""
        return None if len(self.windows) == 1 else jnp.array(self.of_layers)

    def turned(self, kind: Kind, *heads: Float[Array, "B T N H"]) -> list[Array]:
        """Queries and keys with the rotary positions of a layer of `kind`."""
        angles = self.angles
        if kind is not None:
            angles = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, kind, keepdims=False), angles)
        return [rotate(x, angles, self.halves) for x in heads]

    def attend(
        self, kind: Kind, q: Array, k: Array, v: Array, segment: Int[Array, "B T"], kernel: Kernel
    ) -> Float[Array, "B T N H"]:
        """`packed_attention` as in a layer of `kind`: kinds of one window share a kernel."""
        windows = [w if w < q.shape[1] else 0 for w in self.windows]  # of a row that it holds whole, none
        different = list(dict.fromkeys(windows))
        by_window: list[Callable] = [
            partial(packed_attention, kernel=kernel, window=w, ahead=self.ahead) for w in different
        ]
        if len(different) == 1:
            return by_window[0](q, k, v, segment)
        which = jnp.array([different.index(w) for w in windows])[kind]
        return jax.lax.switch(which, by_window, q, k, v, segment)

    def first(
        self, kind: Kind, at: Int[Array, "B T"], within: Int[Array, "B T"] | None = None
    ) -> Int[Array, "B T"] | None:
        """The first entry that tokens see whose own is `at`; None where they see all.

        within: tokens of their image before them, all of which they see.
        """
        if not any(self.windows):
            return None
        if kind is None:
            before: Array | int = self.windows[0] - 1
        else:
            far = np.iinfo(np.int32).max // 2
            before = jnp.array([w - 1 if w else far for w in self.windows], jnp.int32)[kind]
        return at - (before if within is None else jnp.maximum(before, within))

    def last(self, kind: Kind, own: Int[Array, "B T"], end: Int[Array, "B T"]) -> Int[Array, "B T"]:
        """The last entry that tokens see whose own is `own`, and that of what sees itself `end`."""
        return end if self.images else own

    def fold(self, kind: Kind) -> None:
        """How keys are kept: as they are."""


def _parts(cfg: ModelConfig, numbers: Numbers, kind: str) -> list[Float[Array, "B T F"]]:
    """Angles of the pairs of each part of a head: of a token's number, its row, its column, or of both in halves."""
    frequencies = rotary_frequencies(cfg, kind)
    if cfg.rope == "1d" or (numbers.place is None and cfg.rope == "sections"):
        return [numbers.number[..., None] * frequencies]
    place = jnp.zeros((*numbers.number.shape, 2), jnp.int32) if numbers.place is None else numbers.place
    if cfg.rope == "sections":
        both = (numbers.number[..., None] + place).astype(jnp.float32)
        return [jnp.repeat(both, frequencies.shape[0] // 2, axis=-1) * frequencies]
    size = cfg.head_dim // 2
    own = cfg.place_theta ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size) * (kind != "nope")
    return [numbers.number[..., None] * frequencies, *(place[..., axis, None] * own for axis in (0, 1))]


def _whole(cfg: ModelConfig, kind: str, parts: list[Float[Array, "B T F"]]) -> Angles:
    """Cosines and sines of a whole head; yarn's factor of attention is in both of its first part."""
    scaled = _is_scaled(cfg, kind) and cfg.rope_type == "yarn"
    factors = [cfg.rope_scaling[4] if scaled else 1.0] + [1.0] * (len(parts) - 1)

    def of(function: Callable[[Array], Array]) -> Float[Array, "B T 1 H"]:
        each = [function(part) * factor for part, factor in zip(parts, factors, strict=True)]
        return jnp.concatenate([half for part in each for half in (part, part)], axis=-1)[..., None, :]

    return of(jnp.cos), of(jnp.sin)
