"""Weights made from weights: vision copies of text weights, gated deltas and the fold that ends them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from eve_jax.errors import UserError
from eve_jax.model.config import DELTA, PARTS, ModelConfig
from eve_jax.model.eve import Params, abstract_params, declared, init_params
from eve_jax.model.layers import folded
from eve_jax.model.place_heads import quarters
from eve_jax.model.weight import EXTRA_GROUP, PLACE_GROUP


class ParamSource(Protocol):
    """Parameters that are read one at a time."""

    cfg: ModelConfig
    shapes: Params  # name -> jax.ShapeDtypeStruct

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array."""


def refuse_loss(source: ModelConfig, target: ModelConfig) -> None:
    """UserError when a model `source` has weights that a model `target` has no place for."""
    lost = sorted(name for name in set(source.parts) - set(target.parts) if not _has_sets_of(target, name))
    if lost:
        raise UserError(
            f"the checkpoint has weights of its own for {', '.join(lost)} (variants moe, dac, rep), which would be "
            "dropped; choose the variant that it has"
        )


def _has_sets_of(cfg: ModelConfig, name: str) -> bool:
    """Whether a model `cfg` has the sets of weights of the part `name`, divided into more kinds of tokens."""
    own = cfg.divided(PARTS[name].of) if name in PARTS else None
    return own is not None and set(PARTS[name].sets) <= set(own.sets)


def add_vision_copies(cfg: ModelConfig, params: Params) -> Params:
    """Return `params` and what a model `cfg` has in addition (start of stage 2.1): vision weights as copies of the text
    weights, gated deltas that do nothing yet."""
    made = {}
    for name, weight in declared(cfg).items():
        if name in params:
            continue
        if weight.copy_of in params:
            made[name] = params[weight.copy_of].copy()
        elif weight.changes_matrix and weight.start is not None:
            shape = abstract_params(cfg)[name]
            made[name] = jnp.full(shape.shape, weight.start, shape.dtype)
    return {**params, **made}


def copied_from(cfg: ModelConfig, name: str) -> str:
    """Return the name of the text weight that the vision weight `name` starts as; any other name itself."""
    return declared(cfg)[name].copy_of or name


def _deltas(cfg: ModelConfig) -> dict[str, dict[str, str]]:
    """Return, by the name of a matrix, the names of its gated delta's "delta" and "gate"."""
    found: dict[str, dict[str, str]] = {}
    for name, weight in declared(cfg).items():
        if weight.changes_matrix:
            found.setdefault(weight.delta_of, {})[weight.role] = name
    return found


def fold(cfg: ModelConfig, params: Params) -> tuple[ModelConfig, Params]:
    """The same model with its gated deltas added into the weights; (cfg, params) themselves when there are none."""
    if DELTA not in cfg.parts:
        return cfg, params
    deltas = _deltas(cfg)
    out = {name: value for name, value in params.items() if not declared(cfg)[name].changes_matrix}
    for name in out:
        if name in deltas:
            delta, gate = (params[deltas[name][role]] for role in ("delta", "gate"))
            out[name] = folded(out[name], delta, gate).astype(out[name].dtype)
    return replace(cfg, parts=()), out


class Folded:
    """`source` with its gated deltas added into the weights, a layer at a time."""

    def __init__(self, source: ParamSource):
        self.source = source
        self.cfg = replace(source.cfg, parts=tuple(p for p in source.cfg.parts if p != DELTA))
        self.deltas = _deltas(source.cfg)
        kept = declared(self.cfg)
        self.shapes: Params = {name: shape for name, shape in source.shapes.items() if name in kept}

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array."""
        if name not in self.deltas:
            yield from self.source.pieces(name)
            return
        of, own = self.source.pieces, self.deltas[name]
        for pieces in zip(of(name), of(own["delta"]), of(own["gate"]), strict=True):
            yield np.asarray(folded(*map(jnp.asarray, pieces))).astype(pieces[0].dtype)


class Completed:
    """`source` as a model of `parts`: the vision copies that it lacks are copies of its text weights, a patch embedding
    and layers that it lacks are initialized from `seed` (the values of `init_params`), gated deltas start as in
    `GatedDelta`, and the queries' and keys' parts for places as NEO has them (`eve_jax.model.place_heads.quarters`, 0).

    Raises UserError when `source` has parts that the model would drop.
    """

    def __init__(self, source: ParamSource, parts: tuple[str, ...], seed: int = 0):
        self.source, self.seed = source, seed
        self.cfg = replace(source.cfg, parts=parts)
        refuse_loss(source.cfg, self.cfg)
        self.shapes: Params = {}
        for name, shape in abstract_params(self.cfg).items():
            origin = self._origin(name)
            dtype = source.shapes[of].dtype if (of := origin or self._made_of(name)) else shape.dtype
            self.shapes[name] = source.shapes[origin] if origin else jax.ShapeDtypeStruct(shape.shape, dtype)

    def _origin(self, name: str) -> str | None:
        return next((n for n in (name, copied_from(self.cfg, name)) if n in self.source.shapes), None)

    def _made_of(self, name: str) -> str | None:
        """The name of the source's matrix that the parameter `name` is made from, None for others."""
        of = declared(self.cfg)[name].made_of
        return self._origin(of) if of else None

    @property
    def weights(self) -> str:
        """What the matrices of the layers are quantized to in a Hugging Face folder, "" for whole weights."""
        return getattr(self.source, "weights", "")

    def packed(self, name: str) -> bool:
        """As `HfSource.packed`."""
        return self.source.packed(self._origin(name))  # type: ignore[attr-defined]

    def quantized_pieces(self, name: str, weights: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Values and scales of each layer of the quantized matrix `name`."""
        return self.source.quantized_pieces(self._origin(name), weights)  # type: ignore[attr-defined]

    def row_axis(self, name: str) -> int | None:
        """The axis of a piece of parameter `name` that is the stored rows; None when it is only read whole."""
        origin = self._origin(name)
        return self.source.row_axis(origin) if origin and hasattr(self.source, "row_axis") else None

    def rows(self, name: str, start: int, stop: int) -> Iterator[np.ndarray]:
        """The pieces of parameter `name`, which has a `row_axis`, with the rows from `start` to before `stop` alone."""
        return self.source.rows(self._origin(name), start, stop)  # type: ignore[attr-defined]

    def check_zero(self, name: str, pieces: Sequence[int]) -> None:
        """Raise UserError, or warn, about parameter `name`, of which `pieces` (their numbers) are zero everywhere."""
        self.source.check_zero(self._origin(name), pieces)  # type: ignore[attr-defined]

    @cached_property
    def _fresh(self) -> Params:
        return init_params(self.cfg, self.seed, "patch_embed", "encoder", "vocabulary", PLACE_GROUP, EXTRA_GROUP)

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array."""
        origin, weight, shape = self._origin(name), declared(self.cfg)[name], self.shapes[name]
        if origin is not None:
            yield from self.source.pieces(origin)
        elif (of := self._made_of(name)) is not None:
            yield from (quarters(piece, self.cfg.num_heads) for piece in self.source.pieces(of))
        elif weight.start is not None and weight.group != EXTRA_GROUP:
            yield from (np.full(shape.shape[1:], weight.start, shape.dtype) for _ in range(shape.shape[0]))
        elif weight.stacked:
            yield from np.asarray(self._fresh[name])
        else:
            yield np.asarray(self._fresh[name])
