"""Logits that are not finite: how a row marks it among its tokens, and the error that names the cause."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params
from eve_jax.model.quantized import is_quantized

BROKEN = -2  # in place of a token whose logits are not all finite


class NotFinite(UserError):
    """Logits that are NaN or infinite; `rows` are the rows of the batch that have them."""

    def __init__(self, reason: str, rows: Sequence[int]):
        super().__init__(reason)
        self.rows = list(rows)


def or_broken(logits: Float[Array, "R Q"], token: Int[Array, "R"]) -> Int[Array, "R"]:
    """Return each row's `token`, or BROKEN where the row's logits are not all finite."""
    return jnp.where(jnp.isfinite(logits).all(axis=-1), token, BROKEN)


def cause(cfg: ModelConfig, params: Params) -> str:
    """Return why logits or a loss are not finite: the first parameter that is not, or an overflow in `cfg.dtype`.

    Reads every weight, so call it only once something is known to be wrong.
    """
    floating = {name: w.scale if is_quantized(w) else w for name, w in params.items()}
    bad = {name: count for name, w in floating.items() if (count := int(_not_finite(w)))}
    if not bad:
        return (
            f"all weights are finite, so activations overflow in {cfg.dtype}: the weights are damaged or belong to "
            "another architecture"
        )
    first = next(iter(bad))
    kind = "scales" if is_quantized(params[first]) else "weights"
    more = f" (the first of {len(bad)} such parameters)" if len(bad) > 1 else ""
    return (
        f"{first}{more} is NaN or infinite in {bad[first]:,} of its {floating[first].size:,} {kind}: use another "
        "checkpoint"
    )


@jax.jit
def _not_finite(weights: Array) -> Int[Array, ""]:
    return jnp.sum(~jnp.isfinite(weights))
