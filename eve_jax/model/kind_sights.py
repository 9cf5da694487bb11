"""What tokens see in layers of kinds whose heads differ in size: a `Sight` for each, chosen while tracing."""

from typing import NamedTuple

from jaxtyping import Array, Float, Int

from eve_jax.model.attention import Ahead
from eve_jax.model.config import ModelConfig
from eve_jax.model.sight import Kind, Numbers, Sight
from eve_jax.model.splash_blocks import Kernel
from eve_jax.model.turns import WIDE, of_kind

Fold = tuple[int, int]  # heads, and the size of one, of a layer whose keys are kept as more and smaller heads


class KindSights(NamedTuple):
    """As `eve_jax.model.sight.Sight`, where kinds are numbers; folds: how keys of a kind are kept, None as they are."""

    each: tuple[Sight, ...]
    of_layers: tuple[int, ...]
    folds: tuple[Fold | None, ...]

    def layers(self) -> None:
        """Kinds are none of a scan's."""

    def turned(self, kind: Kind, *heads: Float[Array, "B T N H"]) -> list[Array]:
        """Queries and keys with the rotary positions of a layer of `kind`."""
        return self.each[_number(kind)].turned(None, *heads)

    def attend(
        self, kind: Kind, q: Array, k: Array, v: Array, segment: Int[Array, "B T"], kernel: Kernel
    ) -> Float[Array, "B T N H"]:
        """`packed_attention` as in a layer of `kind`."""
        return self.each[_number(kind)].attend(None, q, k, v, segment, kernel)

    def first(
        self, kind: Kind, at: Int[Array, "B T"], within: Int[Array, "B T"] | None = None
    ) -> Int[Array, "B T"] | None:
        """As `Sight.first`."""
        return self.each[_number(kind)].first(None, at, within)

    def last(self, kind: Kind, own: Int[Array, "B T"], end: Int[Array, "B T"]) -> Int[Array, "B T"]:
        """As `Sight.last`."""
        return self.each[_number(kind)].last(None, own, end)

    def fold(self, kind: Kind) -> Fold | None:
        """How keys and values of a layer of `kind` are kept."""
        return self.folds[_number(kind)]


def _number(kind: Kind) -> int:
    assert isinstance(kind, int), "layers that take turns know their kind while they are traced"
    return kind


def sight_of(cfg: ModelConfig, numbers: Numbers, ahead: Ahead | None = None) -> Sight | KindSights:
    """Return what the layers of each kind of a model `cfg` see of some rows; `ahead`: what images see."""
    if not cfg.in_turns:
        return Sight.of(cfg, numbers, ahead)
    sizes = [of_kind(cfg, kind) for kind in cfg.kinds]
    each = tuple(Sight.of(own, numbers, None if own.image_attention == "causal" else ahead) for own in sizes)
    folds = tuple((cfg.wide_kv_heads, cfg.wide_head_dim) if kind == WIDE else None for kind in cfg.kinds)
    return KindSights(each, cfg.kind_numbers, folds)
