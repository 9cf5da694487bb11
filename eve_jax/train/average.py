"""An exponential moving average of what trains, kept with the optimizer's state.

It is one more tree of the state, so that it is saved, resumed, placed and counted as the moments are, and a step that
is skipped leaves it alone.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eve_jax.checkpoint.stored import AVERAGE
from eve_jax.model.eve import Params


class Averaged(NamedTuple):
    """The state of a rule, and the average of its parameters, float32."""

    rule: Any
    average: Params


assert Averaged._fields[1] == AVERAGE


def averaged(tx: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """Return the rule `tx` with an average that begins as the parameters and is decay * average + (1 - decay) *
    parameters after each update, these before they are rounded to the dtype that they are stored in."""

    def init(params: Params) -> Averaged:
        return Averaged(tx.init(params), jax.tree.map(jnp.copy, params))  # the state is donated

    def update(updates: Params, state: Averaged, params: Params) -> tuple[Params, Averaged]:
        updates, rule = tx.update(updates, state.rule, params)
        moved = {n: decay * state.average[n] + (1 - decay) * (params[n] + updates[n]) for n in updates}
        return updates, Averaged(rule, moved)

    return optax.GradientTransformation(init, update)


def with_average(optimizer: Any, trainable: Params) -> Params:
    """Return the average in the state `optimizer` in place of `trainable`, in its dtypes."""
    assert isinstance(optimizer, Averaged)
    return {name: optimizer.average[name].astype(value.dtype) for name, value in trainable.items()}
