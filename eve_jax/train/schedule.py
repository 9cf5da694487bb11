"""The learning rate by step (docs/train.md#optimizer)."""

import math
from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array

from eve_jax.config.optim import CONSTANT, COSINE, DECAY, EXPONENTIAL, SHAPE, OptimConfig

# What is left of the way from the peak to the lowest rate, by the share of the decay that is over.
LEFT: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + jnp.cos(jnp.pi * x)) / 2,
    "sqrt": lambda x: 1 - jnp.sqrt(x),
}


def warmup_steps(optim: OptimConfig, steps: int) -> int:
    """Return the steps of the warm-up in a run of `steps` steps; a share is rounded up."""
    return optim.warmup_steps or math.ceil(optim.warmup * steps)


def schedule(optim: OptimConfig, steps: int) -> optax.Schedule:
    """Learning rate by step: linear from 0 to `lr` over the warm-up, then what `optim.schedule` says.

    cosine: to `min_lr` at step `steps`. constant: stays. wsd: stays until the last `decay` of the steps (a share,
    rounded up), in which it falls to `min_lr` at step `steps`, along `decay_shape`.
    """
    warmup = warmup_steps(optim, steps)
    if optim.schedule == COSINE:
        last = max(steps, warmup + 1)
        return optax.warmup_cosine_decay_schedule(0.0, optim.lr, warmup, last, end_value=optim.min_lr)
    rising = optax.linear_schedule(0.0, optim.lr, warmup) if warmup else optax.constant_schedule(optim.lr)
    if optim.schedule == CONSTANT:
        return optax.join_schedules([rising, optax.constant_schedule(optim.lr)], [warmup])
    decay = math.ceil((DECAY if optim.decay is None else optim.decay) * steps)
    falls = max(steps - decay, warmup)
    parts = [rising, optax.constant_schedule(optim.lr), _decay(optim, max(steps - falls, 1))]
    return optax.join_schedules(parts, [warmup, falls])


def _decay(optim: OptimConfig, steps: int) -> optax.Schedule:
    """The rate by step of a decay of `steps` steps, from `lr` to `min_lr`, where it stays."""
    shape = optim.decay_shape or SHAPE

    def rate(count: Array) -> Array:
        over = jnp.clip(count / steps, 0, 1)
        if shape == EXPONENTIAL:
            return optim.lr * (optim.min_lr / optim.lr) ** over
        return optim.min_lr + (optim.lr - optim.min_lr) * LEFT[shape](over)

    return rate
