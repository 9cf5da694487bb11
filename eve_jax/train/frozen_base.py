"""The weights under adapters: what they may be, and how they lie while the adapters train."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from eve_jax.data.samples.sample_rule import hash_of
from eve_jax.errors import UserError
from eve_jax.model import quantized
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, abstract_params, logical_axes, quantizable
from eve_jax.sharding import parameter_sharding

INT8 = "int8"


def check_base(cfg: ModelConfig, name: str) -> None:
    """Raise UserError when the model `cfg`, called `name`, has adapters itself, so that nothing can start from it."""
    if cfg.lora is not None:
        raise UserError(
            f"{name} has adapters (config.lora.rank={cfg.lora.rank}), which a run does not start from: add them into "
            "its weights by `launch.convert merge --from=RUN --to=FOLDER` and name that folder"
        )


def describe(cfg: ModelConfig, trainable: Params, origins: list[dict[str, Any]]) -> str:
    """Return one line about what trains, and on which base: `origins` as in `eve_jax.checkpoint.frozen_weights`."""
    assert cfg.lora is not None
    count = sum(math.prod(value.shape) for value in trainable.values())
    weights = {name: one[1] for origin in origins for name, one in origin["weights"].items()}
    on = ", ".join(origin["absolute"] for origin in origins)
    return f"adapters of rank {cfg.lora.rank} for {', '.join(cfg.lora.groups)} train, {count:,} numbers" + (
        f", on {on} (fingerprint {hash_of(weights)[:12]})" if origins else ""
    )


def base(cfg: ModelConfig, frozen: Params, mesh: Mesh) -> Params:
    """Return the `frozen` weights of `cfg` as its adapters train on them: with base int8 the layers' are quantized.

    Raise UserError for weights that cannot be.
    """
    out = dict(frozen)
    for name, places in _places(cfg, mesh).items():
        parts = jax.jit(_parts, out_shardings=places)(out.pop(name))
        if not bool(jnp.isfinite(jnp.sum(parts[1]))):
            raise UserError(f"{name} of the base is NaN or infinite and cannot be quantized: use another checkpoint")
        out[name] = quantized.joined(*parts)
    return out


def abstract_base(cfg: ModelConfig, frozen: Params, mesh: Mesh) -> Params:
    """Return shapes, dtypes and shardings of what `base` returns for abstract `frozen` weights."""
    out = dict(frozen)
    for name, places in _places(cfg, mesh).items():
        parts = zip(jax.eval_shape(_parts, out[name]), places, strict=True)
        out[name] = quantized.joined(*(jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=where) for p, where in parts))
    return out


def _places(cfg: ModelConfig, mesh: Mesh) -> dict[str, tuple[NamedSharding, NamedSharding]]:
    """Where values and scales of each matrix lie that is quantized."""
    if cfg.lora is None or not cfg.lora.base:
        return {}
    axes, shapes, found = logical_axes(cfg), abstract_params(cfg), {}
    for name in sorted(quantizable(cfg)):
        shape = shapes[name].shape
        values, scales = (parameter_sharding(mesh, axes[name], s) for s in (shape, quantized.scale_shape(shape, INT8)))
        found[name] = values, scales
    return found


def _parts(value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Values and scales of the matrices of all layers."""
    made = jax.lax.map(lambda one: quantized.quantize(one, INT8), value)
    return made.qvalue, made.scale
