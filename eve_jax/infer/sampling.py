"""The next token: the most probable one, or one drawn from the model's distribution."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from eve_jax.errors import UserError
from eve_jax.infer.finite import or_broken
from eve_jax.process.checks import number, whole

SINGLE = np.finfo(np.float32)
TINY, HUGE = float(SINGLE.tiny), float(SINGLE.max)  # processors take anything below TINY as 0


@dataclass(frozen=True)
class Sampling:
    """Greedy when `temperature` is 0, else softmax(logits / temperature), of which `top_p` < 1 keeps the nucleus: the
    most probable tokens whose probabilities add up to top_p (Holtzman et al., arXiv 1904.09751).

    Towards a temperature of 0 the drawn token tends to the greedy one, towards infinity to any token alike; a top_p
    towards 0 keeps the most probable token.

    Which token is drawn depends on `seed` and the token's position in its own sequence alone, so a prompt gets the same
    answer alone and in any batch. Raises UserError for values out of range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        checked = {
            "temperature": number("temperature", self.temperature, "0 (greedy) or a number above 0", 0),
            "top_p": number("top_p", self.top_p, "more than 0 and at most 1", math.ulp(0.0), 1),
            "seed": whole("seed", self.seed, f"a whole number of 0 to {2**32 - 1}", 0, 2**32 - 1),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.top_p < 1 and self.temperature == 0:
            raise UserError(f"top_p={self.top_p} needs a temperature above 0; without one the answer is greedy")

    def arrays(self) -> dict[str, Any] | None:
        """What `choose` takes: scalars of a compiled program; None for greedy."""
        if self.temperature < TINY:
            return None
        scalars = {"temperature": np.float32(min(self.temperature, HUGE)), "seed": np.uint32(self.seed)}
        return scalars | ({"top_p": np.float32(max(self.top_p, TINY))} if self.top_p < 1 else {})


GREEDY = Sampling()


def choose(logits: Float[Array, "R Q"], position: Int[Array, "R"], sampling: dict[str, Any] | None) -> Int[Array, "R"]:
    """Return each row's next token, whose index in its sequence is `position`; BROKEN where logits are not finite.

    `sampling` is what `Sampling.arrays` gives.
    """
    if sampling is None:
        return or_broken(logits, _first_largest(logits))
    # The largest is 0 before the division, so that a small temperature overflows the others to -inf, never to NaN.
    scaled = (logits - jnp.max(logits, axis=-1, keepdims=True)) / sampling["temperature"]
    if "top_p" in sampling:
        scaled = _nucleus(scaled, sampling["top_p"])
    key = jax.random.key(sampling["seed"])
    draw = jax.vmap(lambda p, row: jax.random.categorical(jax.random.fold_in(key, p), row))
    return or_broken(logits, draw(position, scaled).astype(jnp.int32))


def _first_largest(logits: Float[Array, "R Q"]) -> Int[Array, "R"]:
    """As `argmax`, which takes several times as long on a CPU."""
    place = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    return jnp.min(jnp.where(logits == jnp.max(logits, axis=-1, keepdims=True), place, len(place)), axis=-1)


def _nucleus(logits: Float[Array, "R Q"], top_p: Float[Array, ""]) -> Float[Array, "R Q"]:
    """Logits with -inf outside the smallest set of most probable tokens that has `top_p` of the probability."""
    ordered = jnp.sort(logits, axis=-1, descending=True)
    probability = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    last = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= last, logits, -jnp.inf)
