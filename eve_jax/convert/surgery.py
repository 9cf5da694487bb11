"""Weights made from weights: vision twins of text weights, gated deltas and the fold that ends them."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from eve_jax.errors import UserError
from eve_jax.model.config import DELTA, ModelConfig
from eve_jax.model.eve import Params, abstract_params, init_params
from eve_jax.model.layers import GATE, folded

DELTA_NAME = re.compile(r"(layers\.mlp\.text\.)delta_(up|down)\.(weight|gate)")


class ParamSource(Protocol):
    """Parameters that are read one at a time."""

    cfg: ModelConfig
    shapes: Params  # name -> jax.ShapeDtypeStruct

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array."""


def text_twin(name: str) -> str:
    """The text weight that a vision weight starts as."""
    return re.sub(r"\.vision\.", ".text.", name)


def is_delta(name: str) -> bool:
    """True for the weights and gates of the gated deltas (variant rep)."""
    return DELTA_NAME.fullmatch(name) is not None


def delta_start(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """What a delta's weight or gate starts as: the model is then the LLM (see `GatedDelta`)."""
    return np.full(shape, GATE if name.endswith(".gate") else 0.0, dtype)


def refuse_loss(source: ModelConfig, target: ModelConfig) -> None:
    """UserError when a model `source` has weights that a model `target` has no place for."""
    lost = sorted(set(source.parts) - set(target.parts))
    if lost:
        raise UserError(
            f"the checkpoint has weights of its own for {', '.join(lost)} (variants moe, dac, rep), which would be "
            "dropped; choose the variant that it has"
        )


def complete(params: Params, shapes: Params) -> Params:
    """`params` and what a model of `shapes` has beside: vision twins copied from the text weights, deltas that do
    nothing yet (start of stage 2.1)."""
    made = {}
    for name, shape in shapes.items():
        if name not in params and is_delta(name):
            made[name] = jnp.asarray(delta_start(name, shape.shape, shape.dtype))
        elif name not in params and text_twin(name) in params:
            made[name] = params[text_twin(name)].copy()
    return {**params, **made}


def fold(cfg: ModelConfig, params: Params) -> tuple[ModelConfig, Params]:
    """The same model with its gated deltas added into the weights; (cfg, params) themselves when there are none."""
    if DELTA not in cfg.parts:
        return cfg, params
    out = {name: value for name, value in params.items() if not is_delta(name)}
    for name in out:
        delta, gate = _deltas_of(name)
        if delta in params:
            out[name] = folded(out[name], params[delta], params[gate]).astype(out[name].dtype)
    return replace(cfg, parts=()), out


def _deltas_of(name: str) -> tuple[str, str]:
    """Names of the delta and the gate that belong to a feed-forward weight."""
    found = re.fullmatch(r"(layers\.mlp\.text\.)(up|down)", name)
    stem = f"{found[1]}delta_{found[2]}" if found else ""
    return f"{stem}.weight", f"{stem}.gate"


class Folded:
    """`source` with its gated deltas added into the weights, a layer at a time."""

    def __init__(self, source: ParamSource):
        self.source = source
        self.cfg = replace(source.cfg, parts=tuple(p for p in source.cfg.parts if p != DELTA))
        self.shapes: Params = {name: shape for name, shape in source.shapes.items() if not is_delta(name)}

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array."""
        delta, gate = _deltas_of(name)
        if delta not in self.source.shapes:
            yield from self.source.pieces(name)
            return
        of = self.source.pieces
        for pieces in zip(of(name), of(delta), of(gate), strict=True):
            yield np.asarray(folded(*map(jnp.asarray, pieces))).astype(pieces[0].dtype)


class Completed:
    """`source` as a model of `parts`: the vision twins that it lacks are copies of its text weights, a patch embedding
    that it lacks is initialised from `seed` (the values of `init_params`), gated deltas start as in `GatedDelta`.

    Raises UserError when `source` has parts that the model would drop.
    """

    def __init__(self, source: ParamSource, parts: tuple[str, ...], seed: int = 0):
        self.source, self.seed = source, seed
        self.cfg = replace(source.cfg, parts=parts)
        refuse_loss(source.cfg, self.cfg)
        self.shapes: Params = {}
        for name, shape in abstract_params(self.cfg).items():
            origin = self._origin(name)
            self.shapes[name] = source.shapes[origin] if origin else shape

    def _origin(self, name: str) -> str | None:
        return next((n for n in (name, text_twin(name)) if n in self.source.shapes), None)

    @cached_property
    def _fresh(self) -> Params:
        return init_params(self.cfg, self.seed, "patch_embed.")

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array."""
        origin = self._origin(name)
        if origin is not None:
            yield from self.source.pieces(origin)
        elif is_delta(name):
            shape = self.shapes[name]
            yield from (delta_start(name, shape.shape[1:], shape.dtype) for _ in range(shape.shape[0]))
        else:
            yield np.asarray(self._fresh[name])
