"""AdamW with warm-up and cosine decay, from the config (docs/model.md#recipe)."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from eve_jax.config.stage import OptimConfig
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, declared
from eve_jax.model.weight import DECAYED
from eve_jax.sharding import replicated
from eve_jax.train.rounding import in_float32


def schedule(optim: OptimConfig, steps: int) -> optax.Schedule:
    """Learning rate by step: linear from 0 to `lr` over `warmup` (a share of the steps, rounded up), cosine to 0."""
    warmup = math.ceil(optim.warmup * steps)
    return optax.warmup_cosine_decay_schedule(0.0, optim.lr, warmup, max(steps, warmup + 1))


def optimizer(
    optim: OptimConfig, lr: optax.Schedule, cfg: ModelConfig, factors: Mapping[str, float]
) -> optax.GradientTransformation:
    """Return clipping by global norm (`clip` > 0), then AdamW at `lr` times the factor of each weight's group.

    It takes gradients and parameters in float32, and has its moments in float32, whatever the parameters are stored in.
    Weight decay applies to the roles in `eve_jax.model.weight.DECAYED`. factors: by group (`group_factors`).
    """
    weights = declared(cfg)

    def corrected(count: Array) -> Array:
        return lr(count) * _bias_correction(optim.b1, count + 1) / jnp.sqrt(_bias_correction(optim.b2, count + 1))

    adamw = optax.adamw(
        corrected,
        b1=optim.b1,
        b2=optim.b2,
        eps=optim.eps,
        weight_decay=optim.weight_decay,
        mask=(lambda params: {name: weights[name].role in DECAYED for name in params}) if optim.weight_decay else None,
    )
    chain = [optax.clip_by_global_norm(optim.clip)] if optim.clip else []
    chain.append(adamw)
    if set(factors.values()) - {0.0, 1.0}:
        scales = {name: factors[weight.group] for name, weight in weights.items()}
        chain.append(optax.stateless(lambda updates, _: {name: u * scales[name] for name, u in updates.items()}))
    return optax.chain(*chain) if len(chain) > 1 else adamw


def _bias_correction(decay: float, count: Array) -> Array:
    """optax's 1 - decay**count over its exact value: in float32 the first step's is off by 1.3e-5 at decay 0.999."""
    return (1 - decay**count) / -jnp.expm1(count * math.log(decay))


def abstract_optimizer(tx: optax.GradientTransformation, trainable: Params, mesh: Mesh) -> Any:
    """Shapes, dtypes and shardings of the state of `tx`: moments in float32, where their parameters lie, the rest
    everywhere.

    `trainable`: parameters, or their abstract values with shardings.
    """

    def leaf(value: Any, where: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=where)

    return optax.tree_utils.tree_map_params(
        tx,
        lambda value, parameter: leaf(value, parameter.sharding),
        jax.eval_shape(partial(_begin, tx), trainable),
        trainable,
        transform_non_params=lambda value: leaf(value, replicated(mesh)),
    )


def optimizer_state(tx: optax.GradientTransformation, trainable: Params, mesh: Mesh) -> Any:
    """The state that `tx` begins with, made where it lies."""
    places = jax.tree.map(lambda value: value.sharding, abstract_optimizer(tx, trainable, mesh))
    return jax.jit(partial(_begin, tx), out_shardings=places)(trainable)


def _begin(tx: optax.GradientTransformation, trainable: Params) -> Any:
    return tx.init(in_float32(trainable))
