"""The update rule of a stage, from the config (docs/model.md#recipe, docs/train.md#optimizer)."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import DictKey
from jaxtyping import Array

from eve_jax.config.optim import MUON, OptimConfig
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, declared, layer_matrices
from eve_jax.model.weight import DECAYED
from eve_jax.sharding import replicated
from eve_jax.train.average import averaged
from eve_jax.train.moments import packed
from eve_jax.train.muon import muon, split
from eve_jax.train.rounding import in_float32


def optimizer(
    optim: OptimConfig, lr: optax.Schedule, cfg: ModelConfig, factors: Mapping[str, float]
) -> optax.GradientTransformation:
    """Return clipping by global norm (`clip` > 0), then `optim.rule` at `lr` times the factor of each weight's group.

    It takes gradients and parameters in float32, and computes its moments in float32, whatever the parameters are
    stored in. Weight decay and other types of moments apply to the roles in `eve_jax.model.weight.DECAYED`. factors: by
    group (`group_factors`).
    """
    weights = declared(cfg)
    rule = adamw = _adamw(optim, lr, cfg)
    if optim.rule == MUON:
        rule = split(muon(optim, lr), adamw, layer_matrices(cfg))
    rule = packed(rule, optim.moments, {name for name, weight in weights.items() if weight.role in DECAYED})
    chain = [optax.clip_by_global_norm(optim.clip)] if optim.clip else []
    chain.append(rule)
    if set(factors.values()) - {0.0, 1.0}:
        scales = {name: factors[weight.group] for name, weight in weights.items()}
        chain.append(optax.stateless(lambda updates, _: {name: u * scales[name] for name, u in updates.items()}))
    whole = optax.chain(*chain) if len(chain) > 1 else rule
    return averaged(whole, optim.ema) if optim.ema else whole


def _adamw(optim: OptimConfig, lr: optax.Schedule, cfg: ModelConfig) -> optax.GradientTransformation:
    weights = declared(cfg)

    def corrected(count: Array) -> Array:
        return lr(count) * _bias_correction(optim.b1, count + 1) / jnp.sqrt(_bias_correction(optim.b2, count + 1))

    return optax.adamw(
        corrected,
        b1=optim.b1,
        b2=optim.b2,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        mask=(lambda params: {name: weights[name].role in DECAYED for name in params}) if optim.weight_decay else None,
    )


def _bias_correction(decay: float, count: Array) -> Array:
    """optax's 1 - decay**count over its exact value: in float32 the first step's is off by 1.3e-5 at decay 0.999."""
    return (1 - decay**count) / -jnp.expm1(count * math.log(decay))


def abstract_optimizer(tx: optax.GradientTransformation, trainable: Params, mesh: Mesh) -> Any:
    """Shapes, dtypes and shardings of the state of `tx`: what it keeps of a parameter (under its name) lies where that
    does, the rest everywhere.

    `trainable`: parameters, or their abstract values with shardings.
    """

    def leaf(path: tuple[Any, ...], value: Any) -> jax.ShapeDtypeStruct:
        names = [key.key for key in path if isinstance(key, DictKey) and key.key in trainable]
        where = _placed_like(trainable[names[0]], value.shape) if names else replicated(mesh)
        return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=where)

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(partial(_begin, tx), trainable))


def _placed_like(parameter: Any, shape: tuple[int, ...]) -> Any:
    """The sharding of what has the dimensions of `parameter`, fewer in the last: whole where they cannot be divided."""
    where = parameter.sharding
    if not isinstance(where, NamedSharding) or shape == parameter.shape:
        return where
    parts = [size // part for size, part in zip(parameter.shape, where.shard_shape(parameter.shape), strict=True)]
    axes = [*where.spec, *[None] * (len(shape) - len(where.spec))]
    spec = [axis if size % part == 0 else None for axis, size, part in zip(axes, shape, parts, strict=True)]
    return NamedSharding(where.mesh, PartitionSpec(*spec))


def optimizer_state(tx: optax.GradientTransformation, trainable: Params, mesh: Mesh) -> Any:
    """The state that `tx` begins with, made where it lies."""
    places = jax.tree.map(lambda value: value.sharding, abstract_optimizer(tx, trainable, mesh))
    return jax.jit(partial(_begin, tx), out_shardings=places)(trainable)


def _begin(tx: optax.GradientTransformation, trainable: Params) -> Any:
    return tx.init(in_float32(trainable))
