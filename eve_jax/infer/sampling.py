"""The next token: the most probable one, or one drawn from the model's distribution."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from eve_jax.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """Greedy when `temperature` is 0, else softmax(logits / temperature), of which `top_p` < 1 keeps the nucleus: the
    most probable tokens whose probabilities add up to top_p (Holtzman et al., arXiv 1904.09751).

    Which token is drawn depends on `seed` and the token's position in its own sequence alone, so a prompt gets the same
    answer alone and in any batch. Raises UserError for values out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature={self.temperature}: expected 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p}: expected more than 0 and at most 1")
        if self.top_p < 1 and self.temperature == 0:
            raise UserError(f"top_p={self.top_p} needs a temperature above 0; without one the answer is greedy")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: expected 0 to {2**32 - 1}")

    def arrays(self) -> dict[str, Any] | None:
        """What `choose` takes: scalars of a compiled program; None for greedy."""
        if self.temperature == 0:
            return None
        scalars = {"temperature": np.float32(self.temperature), "seed": np.uint32(self.seed)}
        return scalars | ({"top_p": np.float32(self.top_p)} if self.top_p < 1 else {})


GREEDY = Sampling()


def choose(logits: Float[Array, "R Q"], position: Int[Array, "R"], sampling: dict[str, Any] | None) -> Int[Array, "R"]:
    """Each row's next token, whose index in its sequence is `position`; `sampling` as `Sampling.arrays` gives it."""
    if sampling is None:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = logits / sampling["temperature"]
    if "top_p" in sampling:
        logits = _nucleus(logits, sampling["top_p"])
    key = jax.random.key(sampling["seed"])
    draw = jax.vmap(lambda p, row: jax.random.categorical(jax.random.fold_in(key, p), row))
    return draw(position, logits).astype(jnp.int32)


def _nucleus(logits: Float[Array, "R Q"], top_p: Float[Array, ""]) -> Float[Array, "R Q"]:
    """Logits with -inf outside the smallest set of most probable tokens that has `top_p` of the probability."""
    ordered = jnp.sort(logits, axis=-1, descending=True)
    probability = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    last = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= last, logits, -jnp.inf)
