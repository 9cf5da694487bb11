"""The scheduler's compiled programs: a piece of a prefill, a block of decoded tokens, and copies of cache rows.

The cache has a row for each of S slots and is made once. Every program takes it and gives it back in place; which slot
is meant is a number, not a shape. `capacity` is how many entries of a row a program reads: one of up to four.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from eve_jax import sharding
from eve_jax.infer import choosing
from eve_jax.infer.cache import placed
from eve_jax.infer.choosing import IN_PROMPT, Logprobs
from eve_jax.infer.programs import NONE, decoding_groups
from eve_jax.infer.requests import MOST_LOGPROBS
from eve_jax.infer.sampling import NO_TOKEN, Rules
from eve_jax.model.config import ModelConfig
from eve_jax.model.decoder import in_groups
from eve_jax.model.eve import Batch, Cache, Eve, Params, bind, empty_cache


class Choosing(NamedTuple):
    """How rows choose: their rules, stop ids int32 [R, N], and how many tokens still come before a stop, int32 [R]."""

    rules: Rules
    stops: np.ndarray
    floor: np.ndarray

    def banned(self, step: Array | int) -> Array:
        """Stops that cannot be chosen at `step`."""
        return jnp.where((step < self.floor)[:, None], self.stops, NO_TOKEN)


class State(NamedTuple):
    """What is on the device: the cache, and how often each slot's text has each token, int32 [S, Q]."""

    cache: Cache
    seen: Int[Array, "S Q"]


class Chosen(NamedTuple):
    """Tokens [R, steps], NONE after an end, and their log-probabilities, if asked, with a leading [R, steps]."""

    tokens: Int[Array, "R T"]
    logprobs: Logprobs | None


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def empty(cfg: ModelConfig, mesh: Mesh | None, slots: int, capacity: int) -> State:
    """A cache of `slots` rows without tokens."""
    with sharding.use(mesh):
        seen = sharding.constrain(jnp.zeros((slots, cfg.vocab_size), jnp.int32), None, None)
        return State(placed(empty_cache(cfg, slots, capacity)), seen)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def prefill(
    cfg: ModelConfig,
    mesh: Mesh | None,
    capacity: int,
    params: Params,
    state: State,
    batch: Batch,
    where: tuple[Any, Any, Any],
    choosing_: Choosing,
) -> tuple[State, Chosen]:
    """Append one row's piece to a slot; the token after it, as [1, 1], with its log-probabilities.

    where: the slot, the tokens that it holds, and those of the piece, int32. The slot's row must have room for
    `capacity` entries, those of the pads included.
    """
    slot, start, length = where
    with sharding.use(mesh):
        model = bind(cfg, params)
        row = _row(state.cache, slot, capacity)
        hidden, (row,) = model.extend(batch, [row], start[None], model.layer_groups(1))
        last = batch["perm"][0, length - 1]
        logits = sharding.constrain(model.logits(jax.lax.dynamic_index_in_dim(hidden, last, 1, False)), None, None)
        seen = jax.lax.dynamic_slice_in_dim(state.seen, slot, 1)
        token = choosing.choose(logits, (start + length)[None], choosing_.rules, seen, choosing_.banned(0))
        found = choosing.logprobs(logits, token, min(MOST_LOGPROBS, cfg.vocab_size))
        cache = placed(_put_from(state.cache, row, slot, start, hidden.shape[1]))
        return State(cache, state.seen), _whole(Chosen(token[:, None], Logprobs(*(x[:, None] for x in found))))


class Sizes(NamedTuple):
    """Sizes of a block: entries of a row that it reads, tokens that it decodes, whether with log-probabilities."""

    capacity: int
    block: int
    logprobs: bool


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def decode(
    cfg: ModelConfig,
    mesh: Mesh | None,
    sizes: Sizes,
    params: Params,
    state: State,
    rows: tuple[Any, Any, Any],
    choosing_: Choosing,
) -> tuple[State, Chosen]:
    """Up to `sizes.block` tokens of every slot, [S, block]; ends when every row has.

    rows: the tokens that each slot holds, its last token, which is not among them, and how many are wanted (0: the slot
    rests), int32 [S] each. A row ends with a stop or a token of logits that are not finite. Entries of a row that has
    ended are zeros: a masked NaN would still spread.
    """
    length, token, steps = rows
    with sharding.use(mesh):
        model = bind(cfg, params)
        groups = decoding_groups(cfg)
        weights = model.layer_groups(groups)
        held = in_groups((state.cache[0][..., : sizes.capacity], state.cache[1][..., : sizes.capacity, :]), groups)
        recent = in_groups(placed(empty_cache(cfg, token.shape[0], sizes.block)), groups)
        start = _start(cfg, sizes, recent, token, steps <= 0, state.seen)
        body = partial(_step, (model, weights, held), (jnp.minimum(length, sizes.capacity), steps), choosing_)
        end = jax.lax.while_loop(lambda at: ~jnp.all(at.done), body, start)
        keys, values = (jnp.concatenate(parts) for parts in zip(*end.recent, strict=True))
        real = (jnp.arange(sizes.block) < end.read[:, None])[None, :, None, None]
        entries = jnp.where(real, keys, 0), jnp.where(real.swapaxes(3, 4), values, 0)
        cache = placed(_behind(state.cache, entries, length))
        return State(cache, sharding.constrain(end.seen, None, None)), _whole(Chosen(end.out, end.logprobs))


class _At(NamedTuple):
    """Where a block is."""

    step: Array
    recent: list[Cache]
    token: Array
    done: Array
    read: Array  # tokens of each row that were read
    seen: Array
    out: Array
    logprobs: Logprobs | None


def _start(cfg: ModelConfig, sizes: Sizes, recent: list[Cache], token: Array, done: Array, seen: Array) -> _At:
    shape = token.shape[0], sizes.block
    top = min(MOST_LOGPROBS, cfg.vocab_size)
    found = None
    if sizes.logprobs:
        found = Logprobs(jnp.zeros(shape), jnp.zeros((*shape, top)), jnp.zeros((*shape, top), jnp.int32))
    zero = jnp.zeros_like(token)
    return _At(jnp.int32(0), recent, token, done, zero, seen, jnp.full(shape, NONE, jnp.int32), found)


def _step(model: tuple[Eve, list[Any], list[Cache]], rows: tuple[Array, Array], choosing_: Choosing, at: _At) -> _At:
    """One token of every row."""
    (eve, weights, held), (length, steps) = model, rows
    seen = choosing.counted(at.seen, at.token, ~at.done)
    hidden, recent = eve.decode(at.token, held, at.recent, length, at.step, weights)
    logits = eve.logits(hidden)
    chosen = choosing.choose(logits, length + at.step + 1, choosing_.rules, seen, choosing_.banned(at.step))
    token = sharding.constrain(jnp.where(at.done, at.token, chosen), None)
    out = at.out.at[:, at.step].set(jnp.where(at.done, NONE, token))
    found = at.logprobs
    if found is not None:
        new = choosing.logprobs(logits, token, found.top.shape[2])
        found = Logprobs(*(old.at[:, at.step].set(x) for old, x in zip(found, new, strict=True)))
    ends = (token < 0) | jnp.any(token[:, None] == choosing_.stops, axis=1) | (at.step + 1 >= steps)
    return _At(at.step + 1, recent, token, at.done | ends, at.read + ~at.done, seen, out, found)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def copy(mesh: Mesh | None, capacity: int, state: State, source: Any, target: Any) -> State:
    """The first `capacity` entries of slot `source` in slot `target`, too."""
    with sharding.use(mesh):
        return state._replace(cache=placed(_put(state.cache, _row(state.cache, source, capacity), target)))


@partial(jax.jit, static_argnums=(0, 1))
def take(mesh: Mesh | None, capacity: int, state: State, slot: Any) -> Cache:
    """A copy of the first `capacity` entries of a slot."""
    with sharding.use(mesh):
        return placed(_row(state.cache, slot, capacity))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def put(mesh: Mesh | None, state: State, row: Cache, slot: Any) -> State:
    """A row of `take` as the first entries of a slot."""
    with sharding.use(mesh):
        return state._replace(cache=placed(_put(state.cache, row, slot)))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def clear(mesh: Mesh | None, state: State, slot: Any) -> State:
    """Zeros in a slot, which had entries that are not finite."""
    with sharding.use(mesh):
        row = _row(state.cache, slot, state.cache[1].shape[3])
        return state._replace(cache=placed(_put(state.cache, jax.tree.map(jnp.zeros_like, row), slot)))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def note_prompt(mesh: Mesh | None, state: State, slot: Any, ids: Int[Array, "N"]) -> State:
    """Forget what a slot's text was; it has the tokens `ids` now, negative ones are none."""
    with sharding.use(mesh):
        at = jnp.where(ids < 0, state.seen.shape[1], ids)
        row = jnp.zeros(state.seen.shape[1], jnp.int32).at[at].set(IN_PROMPT, mode="drop")
        return state._replace(seen=sharding.constrain(state.seen.at[slot].set(row), None, None))


def _row(cache: Cache, slot: Any, capacity: int) -> Cache:
    keys, values = cache
    layers, _, heads, size, _ = keys.shape
    at = (0, slot, 0, 0, 0)
    return (
        jax.lax.dynamic_slice(keys, at, (layers, 1, heads, size, capacity)),
        jax.lax.dynamic_slice(values, at, (layers, 1, heads, capacity, size)),
    )


def _put(cache: Cache, row: Cache, slot: Any) -> Cache:
    at = (0, slot, 0, 0, 0)
    return jax.lax.dynamic_update_slice(cache[0], row[0], at), jax.lax.dynamic_update_slice(cache[1], row[1], at)


def _put_from(cache: Cache, row: Cache, slot: Any, start: Any, count: int) -> Cache:
    """`cache` with `count` entries of `row`, from `start` on, in the slot: what a piece has added to it."""
    keys = jax.lax.dynamic_slice_in_dim(row[0], start, count, 4)
    values = jax.lax.dynamic_slice_in_dim(row[1], start, count, 3)
    return (
        jax.lax.dynamic_update_slice(cache[0], keys, (0, slot, 0, 0, start)),
        jax.lax.dynamic_update_slice(cache[1], values, (0, slot, 0, start, 0)),
    )


def _behind(cache: Cache, entries: Cache, length: Array) -> Cache:
    """`cache` with a row's `entries` behind its `length` entries: row by row, since XLA would scatter one by one."""

    def one(slot: Array, cache: Cache) -> Cache:
        keys, values = (jax.lax.dynamic_slice_in_dim(x, slot, 1, 1) for x in entries)
        end = length[slot]
        return (
            jax.lax.dynamic_update_slice(cache[0], keys, (0, slot, 0, 0, end)),
            jax.lax.dynamic_update_slice(cache[1], values, (0, slot, 0, end, 0)),
        )

    return jax.lax.fori_loop(0, length.shape[0], one, cache)


def _whole(chosen: Chosen) -> Chosen:
    """What the host reads, whole on every device."""
    return jax.tree.map(lambda x: sharding.constrain(x, *[None] * x.ndim), chosen)
