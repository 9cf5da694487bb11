"""Adapters added into the matrices that they belong to."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from eve_jax.checkpoint.vision_copies import ParamSource
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, declared
from eve_jax.model.lora import ADAPTER_ROLES, merged

_merged = jax.jit(merged, static_argnums=4)


def adapted_by(cfg: ModelConfig) -> dict[str, dict[str, str]]:
    """Return, by the name of a matrix, the names of its adapter's "lora_a" and "lora_b"."""
    found: dict[str, dict[str, str]] = {}
    for name, weight in declared(cfg).items():
        if weight.role in ADAPTER_ROLES:
            found.setdefault(weight.delta_of, {})[weight.role] = name
    return found


def merge(cfg: ModelConfig, params: Params) -> tuple[ModelConfig, Params]:
    """Return the same model without adapters, which are added into their matrices; (cfg, params) where it has none.

    Matrices keep their dtype, but for one that the computation would have to widen.
    """
    if cfg.lora is None:
        return cfg, params
    adapters, plain = adapted_by(cfg), replace(cfg, lora=None)
    out = {name: params[name] for name in declared(plain)}
    for name, own in adapters.items():
        dtype = jnp.promote_types(out[name].dtype, cfg.dtype)
        add = jax.jit(partial(merged, scale=cfg.lora.scale, dtype=dtype), out_shardings=out[name].sharding)
        out[name] = add(out[name], params[own["lora_a"]], params[own["lora_b"]])
    return plain, out


class Merged:
    """`source` with its adapters added into the matrices, a layer at a time, which get the wider of both dtypes."""

    def __init__(self, source: ParamSource):
        assert source.cfg.lora is not None
        self.source, self.scale = source, source.cfg.lora.scale
        self.cfg = replace(source.cfg, lora=None)
        self.adapters = adapted_by(source.cfg)
        self.shapes: Params = {name: source.shapes[name] for name in source.shapes if name in declared(self.cfg)}
        for name, own in self.adapters.items():
            shape = self.shapes[name]
            dtype = jnp.promote_types(shape.dtype, source.shapes[own["lora_a"]].dtype)
            self.shapes[name] = jax.ShapeDtypeStruct(shape.shape, dtype)

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array."""
        if name not in self.adapters:
            yield from self.source.pieces(name)
            return
        of, own = self.source.pieces, self.adapters[name]
        for pieces in zip(of(name), of(own["lora_a"]), of(own["lora_b"]), strict=True):
            yield np.asarray(_merged(*map(jnp.asarray, pieces), self.scale, self.shapes[name].dtype))


def without_adapters(source: ParamSource) -> ParamSource:
    """Return `source` with its adapters added in, itself where it has none."""
    return source if source.cfg.lora is None else Merged(source)
