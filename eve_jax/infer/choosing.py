"""The next token of each row inside a compiled program: the most probable one, or one that is drawn.

One program serves every setting: what no row asks for is a branch that is not taken, so greedy rows cost an argmax.

Dimensions: R rows, Q tokens of the vocabulary, N token ids of a list.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from eve_jax.infer.finite import or_broken
from eve_jax.infer.sampling import Rules

IN_PROMPT = 1 << 24  # added to a token's count in the answer when the prompt has it


class Logprobs(NamedTuple):
    """Log-probabilities of the model's own distribution: of the chosen token [R], and the largest with their ids."""

    chosen: Float[Array, "R"]
    top: Float[Array, "R N"]
    top_ids: Int[Array, "R N"]


def choose(
    logits: Float[Array, "R Q"],
    position: Int[Array, "R"],
    how: Rules | None,
    seen: Int[Array, "R Q"] | None = None,
    banned: Int[Array, "R N"] | None = None,
) -> Int[Array, "R"]:
    """Return each row's next token, whose index in its sequence is `position`; BROKEN where logits are not finite.

    how: rules of every row, or of one that stands for all; None: greedy. seen: how often each token is in a row's
    answer, IN_PROMPT more if its prompt has it; None when no penalty counts. banned: tokens that a row cannot choose;
    negative ones are none.
    """
    if how is None:
        return or_broken(logits, _first_largest(logits))
    rows = logits.shape[0]
    how = Rules(*(jnp.broadcast_to(x, (rows, *x.shape[1:])) for x in how))
    drawn = how.temperature > 0
    penalized = (how.presence != 0) | (how.frequency != 0) | (how.repetition != 1)

    def by_rules() -> Int[Array, "R"]:
        changed = _biased(logits, how, banned)
        if seen is not None:
            changed = jax.lax.cond(jnp.any(penalized), lambda x: _penalized(x, how, seen), lambda x: x, changed)

        def greedy() -> Int[Array, "R"]:
            return _first_largest(changed)

        return jax.lax.cond(jnp.any(drawn), lambda: jnp.where(drawn, _draw(changed, position, how), greedy()), greedy)

    # Apart, since a branch that hands logits on copies them.
    any_rule = jnp.any(drawn | penalized) | jnp.any(jnp.asarray(how.bias_ids) >= 0)
    if banned is not None:
        any_rule |= jnp.any(banned >= 0)
    token = jax.lax.cond(any_rule, by_rules, lambda: _first_largest(logits))
    return or_broken(logits, token)


def in_prompts(texts: Sequence[Sequence[int]], vocabulary: int) -> np.ndarray:
    """Return `seen`, int32 [R, vocabulary], of rows whose prompts have the tokens `texts` and that have no answer."""
    seen = np.zeros((len(texts), vocabulary), np.int32)
    for row, ids in enumerate(texts):
        seen[row, np.asarray(ids, np.int64)] = IN_PROMPT
    return seen


def counted(seen: Int[Array, "R Q"], token: Int[Array, "R"], where: Array) -> Int[Array, "R Q"]:
    """Return `seen` with each row's `token` counted once more, in the rows `where` is true."""
    rows = jnp.arange(token.shape[0])
    return seen.at[rows, jnp.maximum(token, 0)].add(jnp.where(where & (token >= 0), 1, 0))


def logprobs(logits: Float[Array, "R Q"], token: Int[Array, "R"], count: int) -> Logprobs:
    """Return the log-probability of `token` and the `count` largest ones."""
    every = jax.nn.log_softmax(logits, axis=-1)
    chosen = jnp.take_along_axis(every, jnp.maximum(token, 0)[:, None], axis=-1)[:, 0]
    return Logprobs(chosen, *jax.lax.top_k(every, count))


def _first_largest(logits: Float[Array, "R Q"]) -> Int[Array, "R"]:
    """As `argmax`, which takes several times as long on a CPU."""
    place = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    return jnp.min(jnp.where(logits == jnp.max(logits, axis=-1, keepdims=True), place, len(place)), axis=-1)


def _biased(logits: Array, how: Rules, banned: Array | None) -> Array:
    """Logits with `logit_bias` added, -inf for `banned` ones."""
    ids, bias = jnp.asarray(how.bias_ids), jnp.asarray(how.bias)
    if banned is not None:
        ids = jnp.concatenate([ids, banned], axis=1)
        bias = jnp.concatenate([bias, jnp.full(banned.shape, -jnp.inf)], axis=1)
    if not ids.shape[1]:
        return logits
    at = jnp.where(ids < 0, logits.shape[1], ids)  # beyond the last one: dropped

    def add(x: Array) -> Array:
        return x.at[jnp.arange(x.shape[0])[:, None], at].add(bias, mode="drop")

    return jax.lax.cond(jnp.any(ids >= 0), add, lambda x: x, logits)


def _penalized(logits: Array, how: Rules, seen: Array) -> Array:
    count = seen % IN_PROMPT
    r = how.repetition[:, None]
    logits = jnp.where(seen > 0, jnp.where(logits > 0, logits / r, logits * r), logits)
    return logits - how.frequency[:, None] * count - how.presence[:, None] * (count > 0)


def _draw(logits: Array, position: Array, how: Rules) -> Int[Array, "R"]:
    """A token for each row by its seed and position; of a greedy row, any."""
    # The largest is 0 before the division, so that a small temperature overflows the others to -inf, never to NaN.
    temperature = jnp.where(how.temperature > 0, how.temperature, 1)[:, None]
    scaled = (logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature
    cut = (how.top_p < 1) | (how.top_k > 0) | (how.min_p > 0)
    scaled = jax.lax.cond(jnp.any(cut), lambda x: _kept(x, how), lambda x: x, scaled)

    def one(seed: Array, place: Array, row: Array) -> Array:
        return jax.random.categorical(jax.random.fold_in(jax.random.key(seed), place), row)

    return jax.vmap(one)(jnp.asarray(how.seed), position, scaled).astype(jnp.int32)


def _kept(logits: Float[Array, "R Q"], how: Rules) -> Float[Array, "R Q"]:
    """Logits, the largest 0, with -inf for the tokens that min_p, top_k and then top_p leave out."""
    ordered = jnp.sort(logits, axis=-1, descending=True)
    least = jnp.where(how.min_p > 0, jnp.log(how.min_p), -jnp.inf)
    rank = jnp.clip(how.top_k - 1, 0, logits.shape[-1] - 1)
    kth = jnp.take_along_axis(ordered, rank[:, None], axis=-1)[:, 0]
    least = jnp.maximum(least, jnp.where(how.top_k > 0, kth, -jnp.inf))[:, None]
    probability = jax.nn.softmax(jnp.where(ordered >= least, ordered, -jnp.inf), axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    nucleus = jnp.min(jnp.where(before < how.top_p[:, None], ordered, jnp.inf), axis=-1)
    least = jnp.maximum(least[:, 0], jnp.where(how.top_p < 1, nucleus, -jnp.inf))
    return jnp.where(logits >= least[:, None], logits, -jnp.inf)
