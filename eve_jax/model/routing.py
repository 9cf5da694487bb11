"""Modality routing, the one place where text and vision tokens part (EVEv2 paper, section 3.2).

docs/design.md#rows-split-by-modality has the reasons and figures.

A part of a layer is `Routed`: one set of weights for all tokens, or one for each kind of token. How tokens reach their
weights is a strategy with two forms that agree to rounding:

`SplitRows`    hidden states are a pair (vision [R, V, D], text [R, T, D]) in slot order; routing is the slice that the
               row layout already made, and only q, k, v and the attention's output are put in causal order and back.
`MaskedRows`   hidden states are one array in causal order; every set runs for every token and masks pick.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from eve_jax.model.attention import cached_attention
from eve_jax.model.config import ModelConfig, Part
from eve_jax.model.image_sight import ahead_of, sees_beyond, within_images
from eve_jax.model.kind_sights import KindSights, sight_of
from eve_jax.model.layer_cache import HeldLayer, LayerCache
from eve_jax.model.permute import for_attention, for_projection, permute, to_causal, to_slots
from eve_jax.model.sight import Kind, Numbers, Sight
from eve_jax.model.splash_blocks import Kernel
from eve_jax.model.weight import declare

Hidden = Any  # (vision, text) or one array, as the strategy keeps it


class Routed(nnx.Module):
    """A part with one set of weights (`text`, shared), or with others for vision tokens, as `part` names them.

    A shared part trains with the text weights and works on all tokens; the others start as copies of the text ones.
    """

    def __init__(self, make: Callable[[], nnx.Module], part: Part | None, group: str = "text"):
        """`group`: of the shared part, or of the text tokens' own."""
        self.part = part
        self.text = declare(make(), group, works_on="text" if part else "all")
        if part is None:
            return
        for name in part.sets:
            works_on = "vision" if len(part.sets) == 1 else "patches" if name == part.patches else "specials"
            setattr(self, name, declare(make(), name, works_on=works_on, branch=name))

    @property
    def vision_sets(self) -> tuple[Any, ...]:
        """Modules for vision tokens: that of all, or that of the patches and that of the special tokens."""
        return tuple(getattr(self, name) for name in self.part.sets) if self.part else (self.text,)


class Rows(Protocol):
    """What a decoder layer needs to know about the rows it works on."""

    @property
    def sight(self) -> Sight | KindSights:
        """What their tokens see."""

    def leave(self, x: Hidden) -> Array:
        """Hidden states in slot order, [R, L, D]."""

    def route(self, part: Routed, x: Hidden) -> Hidden:
        """Apply `part` to every token, each with the weights of its modality."""

    def attend(self, q: Hidden, k: Hidden, v: Hidden, cache: Any, kind: Kind) -> tuple[Hidden, Any]:
        """Rotary positions and joint attention in a layer of `kind`; the output and the cache as updated."""


def _patches(batch: dict[str, Any]) -> int:
    """Return the number of patch slots of a row, which come first."""
    return batch["patches"].shape[1]


def _causal_sight(cfg: ModelConfig, batch: dict[str, Any], vision_slots: int) -> Sight | KindSights:
    """What tokens of whole rows see, in causal order."""
    numbers = jax.tree.map(lambda x: permute(x, batch["perm"], batch["inv"]), Numbers.of(cfg, batch))
    return sight_of(cfg, numbers, ahead_of(cfg, batch, vision_slots))


def _route_split(part: Routed, x: Hidden, patches: int) -> Hidden:
    """Apply `part` to the pair `x`, whose vision slots begin with `patches` patches."""
    vision, text = x
    sets = part.vision_sets
    kinds = [vision] if len(sets) == 1 else [vision[:, :patches], vision[:, patches:]]
    routed = [module(own) for module, own in zip(sets, kinds, strict=True)]
    return routed[0] if len(routed) == 1 else jnp.concatenate(routed, axis=1), part.text(text)


class SplitRows(NamedTuple):
    """Packed training rows in slot order."""

    perm: Int[Array, "R L"]
    inv: Int[Array, "R L"]
    causal_segment: Int[Array, "R L"]
    sight: Sight | KindSights
    vision_slots: int
    patches: int  # slots; those of special tokens follow
    kernel: Kernel  # of the attention

    @classmethod
    def of(cls, cfg: ModelConfig, batch: dict[str, Any], vision_slots: int) -> "SplitRows":
        perm, inv = batch["perm"], batch["inv"]
        sight = _causal_sight(cfg, batch, vision_slots)
        segment = permute(batch["segment"], perm, inv)
        return cls(perm, inv, segment, sight, vision_slots, _patches(batch), cfg.kernel)

    def enter(self, vision: Array, text: Array) -> Hidden:
        return vision, text

    def leave(self, x: Hidden) -> Float[Array, "R L D"]:
        return jnp.concatenate(x, axis=1)

    def route(self, part: Routed, x: Hidden) -> Hidden:
        return _route_split(part, x, self.patches)

    def attend(self, q: Hidden, k: Hidden, v: Hidden, cache: None, kind: Kind) -> tuple[Hidden, None]:
        if not self.vision_slots:  # text alone is in causal order
            q, k, v = for_attention([q[1], k[1], v[1]])
            out = for_projection(self._attended(q, k, v, kind))
            return (out[:, :0], out), None
        q, k, v = to_causal([q, k, v], self.perm, self.inv)
        out = self._attended(q, k, v, kind)
        return to_slots(out, self.perm, self.inv, self.vision_slots), None

    def _attended(self, q: Array, k: Array, v: Array, kind: Kind) -> Array:
        q, k = self.sight.turned(kind, q, k)
        return self.sight.attend(kind, q, k, v, self.causal_segment, self.kernel)


class MaskedRows(NamedTuple):
    """Packed training rows in causal order, both branches computed (the original's way, kept as reference)."""

    perm: Int[Array, "R L"]
    inv: Int[Array, "R L"]
    causal_segment: Int[Array, "R L"]
    sight: Sight | KindSights
    is_vision: Array
    is_patch: Array
    kernel: Kernel

    @classmethod
    def of(cls, cfg: ModelConfig, batch: dict[str, Any], vision_slots: int) -> "MaskedRows":
        perm, inv = batch["perm"], batch["inv"]
        sight = _causal_sight(cfg, batch, vision_slots)
        segment = permute(batch["segment"], perm, inv)
        return cls(perm, inv, segment, sight, perm < vision_slots, perm < _patches(batch), cfg.kernel)

    def enter(self, vision: Array, text: Array) -> Hidden:
        return permute(jnp.concatenate([vision, text], axis=1), self.perm, self.inv)

    def leave(self, x: Hidden) -> Float[Array, "R L D"]:
        return permute(x, self.inv, self.perm)

    def route(self, part: Routed, x: Hidden) -> Hidden:
        if part.part is None:
            return part.text(x)

        def like(mask: Array, y: Array) -> Array:
            return mask.reshape(mask.shape + (1,) * (y.ndim - 2))

        # A set sees zeros in place of others' tokens: an overflow there can reach neither value nor gradient.
        out = part.text(jnp.where(like(self.is_vision, x), 0, x))
        sets = part.vision_sets
        masks = (self.is_vision,) if len(sets) == 1 else (self.is_patch, self.is_vision & ~self.is_patch)
        for module, mask in zip(sets, masks, strict=True):
            out = jnp.where(like(mask, out), module(jnp.where(like(mask, x), x, 0)), out)
        return out

    def attend(self, q: Array, k: Array, v: Array, cache: None, kind: Kind) -> tuple[Array, None]:
        q, k = self.sight.turned(kind, q, k)
        return self.sight.attend(kind, q, k, v, self.causal_segment, self.kernel), None


class CachedRows(NamedTuple):
    """New tokens of one sample a row, in slot order, on top of a key/value cache in causal order.

    `start` is the number of tokens that a row's cache already holds; `own` is the entry of a token, `end` the last of
    what it sees all of, `within` how many of that are before it, where a window would hide some. With `causal_segment`
    no row holds any yet, and the new tokens attend among themselves by a kernel of training. Where a layer has a pair
    of caches, the first one is only read, and the second one gets the new tokens alone.
    """

    perm: Int[Array, "R L"]
    inv: Int[Array, "R L"]
    own: Int[Array, "R L"]
    end: Int[Array, "R L"]
    within: Int[Array, "R L"] | None
    start: Int[Array, "R"]
    sight: Sight | KindSights
    vision_slots: int
    patches: int
    causal_segment: Int[Array, "R L"] | None
    kernel: Kernel

    @classmethod
    def of(
        cls, cfg: ModelConfig, batch: dict[str, Any], vision_slots: int, start: Int[Array, "R"], first: bool
    ) -> "CachedRows":
        numbers = Numbers.of(cfg, batch)
        if cfg.index_rule == "token":  # other rules' numbers count from the sample's beginning
            numbers = numbers._replace(number=numbers.number + start[:, None])
        sight = sight_of(cfg, numbers, ahead_of(cfg, batch, vision_slots) if first else None)
        own = batch["position"] + start[:, None]
        end = own if cfg.image_attention == "causal" else batch["end"] + start[:, None]
        within = None
        if sees_beyond(cfg, vision_slots):
            further = permute(end, batch["perm"], batch["inv"])
            within = permute(within_images(further), batch["inv"], batch["perm"])
        segment = permute(batch["segment"], batch["perm"], batch["inv"]) if first else None
        slots = vision_slots, _patches(batch)
        return cls(batch["perm"], batch["inv"], own, end, within, start, sight, *slots, segment, cfg.kernel)

    def enter(self, vision: Array, text: Array) -> Hidden:
        return vision, text

    def leave(self, x: Hidden) -> Float[Array, "R L D"]:
        return jnp.concatenate(x, axis=1)

    def route(self, part: Routed, x: Hidden) -> Hidden:
        return _route_split(part, x, self.patches)

    def attend(self, q: Hidden, k: Hidden, v: Hidden, cache: Any, kind: Kind) -> tuple[Hidden, Any]:
        q, k, v = (jnp.concatenate(x, axis=1) for x in (q, k, v))
        q, k = self.sight.turned(kind, q, k)
        k, v = to_causal([self._parted(k), self._parted(v)], self.perm, self.inv)
        if not isinstance(cache, LayerCache):
            held, new = cache
            new = new.append(k, v, jnp.int32(0))
            begun = self.start[:, None]
            first, new_first = (self.sight.first(kind, at, self.within) for at in (self.own, self.own - begun))
            last = self.sight.last(kind, self.own, self.end) - begun
            out = held.attend(q, self.start, first, (*new.read(q.dtype), last, new_first))
            return self._parted(out), (held, new)

        # Of a first prefill one start for all rows: where each has its own, XLA scatters entry by entry.
        cache = cache.append(k, v, self.start if self.causal_segment is None else jnp.int32(0))
        if self.causal_segment is None:
            last = self.sight.last(kind, self.own, self.end)
            out = cached_attention(q, [(*cache.read(q.dtype), last, self.sight.first(kind, self.own, self.within))])
        else:
            (q,) = to_causal([self._parted(q)], self.perm, self.inv)
            out = self.sight.attend(kind, q, k, v, self.causal_segment, self.kernel)
            return to_slots(out, self.perm, self.inv, self.vision_slots), cache
        return self._parted(out), cache

    def _parted(self, out: Array) -> Hidden:
        return out[:, : self.vision_slots], out[:, self.vision_slots :]


class DecodingRows(NamedTuple):
    """One new text token a row, number `step` of those decoded on top of a cache that holds `length` tokens a row.

    That cache is only read. Keys and values of decoded tokens have one of their own, where all rows write to the same
    place: to update the large one at each row's own end would copy it for every token.
    """

    length: Int[Array, "R"]
    step: Int[Array, ""]
    sight: Sight | KindSights

    @classmethod
    def of(
        cls, cfg: ModelConfig, length: Int[Array, "R"], step: Int[Array, ""], number: Int[Array, "R"]
    ) -> "DecodingRows":
        """`number`: what rotary positions count of the row's first decoded token."""
        return cls(length, step, sight_of(cfg, Numbers((number + step)[:, None])))

    def leave(self, x: Hidden) -> Float[Array, "R 1 D"]:
        return x

    def route(self, part: Routed, x: Hidden) -> Hidden:
        return part.text(x)

    def attend(
        self, q: Array, k: Array, v: Array, cache: tuple[LayerCache | HeldLayer, LayerCache], kind: Kind
    ) -> tuple[Array, tuple[LayerCache | HeldLayer, LayerCache]]:
        q, k = self.sight.turned(kind, q, k)
        held, recent = cache
        recent = recent.append(k, v, self.step)
        last = jnp.broadcast_to(self.step, self.length.shape)[:, None]
        first, first_recent = (self.sight.first(kind, at) for at in ((self.length + self.step)[:, None], last))
        out = held.attend(q, self.length, first, (*recent.read(q.dtype), last, first_recent))
        return out, (held, recent)


TRAINING_ROWS: dict[str, type[SplitRows] | type[MaskedRows]] = {"split": SplitRows, "masked": MaskedRows}
