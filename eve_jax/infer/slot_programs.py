"""The scheduler's compiled programs: a piece of a prefill, a block of decoded tokens, and copies of cache rows.

The cache has a row for each of S slots and is made once. Every program takes it and gives it back in place; which slot
is meant is a number, not a shape, and of a row's entries only those that there are get read, block by block.
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
from eve_jax.infer.cache import appended, placed
from eve_jax.infer.choosing import IN_PROMPT, Logprobs
from eve_jax.infer.programs import NONE, decoding_groups
from eve_jax.infer.requests import MOST_LOGPROBS
from eve_jax.infer.sampling import NO_TOKEN, Rules
from eve_jax.model.config import ModelConfig
from eve_jax.model.decoder import HeldGroup, in_groups
from eve_jax.model.eve import Batch, Cache, Eve, Params, bind
from eve_jax.model.layer_cache import BLOCK, HeldLayer, empty_cache


class Choosing(NamedTuple):
    """How rows choose: their rules, stop ids int32 [R, N], how many tokens still come before a stop, int32 [R], and
    whether log-probabilities are asked for (bool), which are zeros otherwise."""

    rules: Rules
    stops: np.ndarray
    floor: np.ndarray
    logprobs: np.bool_

    def banned(self, step: Array | int) -> Array:
        """Stops that cannot be chosen at `step`."""
        return jnp.where((step < self.floor)[:, None], self.stops, NO_TOKEN)


class State(NamedTuple):
    """What is on the device: the cache, and how often each slot's text has each token, int32 [S, Q]."""

    cache: Cache
    seen: Int[Array, "S Q"]


class Chosen(NamedTuple):
    """Tokens [R, steps], NONE after an end, and their log-probabilities with a leading [R, steps]."""

    tokens: Int[Array, "R T"]
    logprobs: Logprobs


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def empty(cfg: ModelConfig, mesh: Mesh | None, slots: int, capacity: int) -> State:
    """A cache of `slots` rows without tokens."""
    with sharding.use(mesh):
        seen = sharding.constrain(jnp.zeros((slots, cfg.vocab_size), jnp.int32), None, None)
        return State(placed(empty_cache(cfg, slots, capacity)), seen)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def prefill(
    cfg: ModelConfig,
    mesh: Mesh | None,
    params: Params,
    state: State,
    batch: Batch,
    where: tuple[Any, Any, Any],
    ends: Any,
    choosing_: Choosing,
) -> tuple[State, Chosen]:
    """Append a piece to each of R slots, all of them different; the token after each, as [R, 1].

    where: the slots, the tokens that each holds, and those of its piece, int32 [R]. The slots must have room for all
    of a piece's row, pads included. ends: whether a prompt ends with its piece (bool); else no token is worked out.
    """
    slots, start, length = where
    with sharding.use(mesh):
        model = bind(cfg, params)
        new = placed(empty_cache(cfg, *batch["perm"].shape))
        weights = model.layer_groups(1)
        hidden, (new,) = model.extend(batch, [new], start, weights, held=_held(state.cache, slots, 1, mesh))
        last = jnp.take_along_axis(batch["perm"], length[:, None] - 1, axis=1)
        hidden = jnp.take_along_axis(hidden, last[..., None], axis=1)[:, 0]
        none = jnp.zeros((hidden.shape[0], cfg.vocab_size), jnp.float32)
        logits = jax.lax.cond(ends, lambda: model.logits(hidden), lambda: none)  # the head is much to read
        logits = sharding.constrain(logits, None, None)
        token = choosing.choose(logits, start + length, choosing_.rules, state.seen[slots], choosing_.banned(0))
        found = _logprobs(logits, token, choosing_.logprobs)
        cache = placed(_behind(state.cache, new, slots, start))
        return State(cache, state.seen), _whole(Chosen(token[:, None], Logprobs(*(x[:, None] for x in found))))


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def decode(
    cfg: ModelConfig,
    mesh: Mesh | None,
    block: int,
    params: Params,
    state: State,
    rows: tuple[Any, Any, Any, Any, Any],
    choosing_: Choosing,
) -> tuple[State, Chosen]:
    """Up to `block` tokens of each of R slots, [R, block]; ends when every row has.

    rows: the slots, all different, and in order where they are all there are; the tokens that each holds, its last
    token, which is not among them, how many are wanted (0: the slot rests), and what rotary positions count of that
    last token, int32 [R] each. A row ends with a stop or a token of logits that are not finite; its other entries are
    zeros: a masked NaN would still spread.
    """
    slots, length, token, steps, number = rows
    with sharding.use(mesh):
        model = bind(cfg, params)
        groups = decoding_groups(cfg)
        weights, held = model.layer_groups(groups), _held(state.cache, slots, groups, mesh)
        recent = in_groups(placed(empty_cache(cfg, token.shape[0], block)), groups)
        every = token.shape[0] == state.seen.shape[0]
        start = _start(cfg, block, recent, token, steps <= 0, state.seen if every else state.seen[slots])
        read = jnp.where(steps > 0, length, 0)  # what slots that rest have is not read
        body = partial(_step, (model, weights, held), (read, steps, number), choosing_)
        end = jax.lax.while_loop(lambda at: ~jnp.all(at.done), body, start)
        keys, values = (jnp.concatenate(parts) for parts in zip(*end.recent, strict=True))
        real = (jnp.arange(block) < end.read[:, None])[None, :, None, None]
        entries = jnp.where(real, keys, 0), jnp.where(real.swapaxes(3, 4), values, 0)
        cache = placed(_behind(state.cache, entries, slots, length))
        seen = sharding.constrain(end.seen if every else state.seen.at[slots].set(end.seen), None, None)
        return State(cache, seen), _whole(Chosen(end.out, end.logprobs))


def _held(cache: Cache, slots: Int[Array, "R"], groups: int, mesh: Mesh | None) -> list[HeldGroup]:
    """What the layers read of `slots`, as `Eve.extend` takes it."""
    layers, count = cache[0].shape[:2]
    own: Array | None = None if slots.shape[0] == count else slots
    if own is not None and sharding.batch_parts(mesh) > 1:  # brought together once, not for every block of every layer
        keys, values = (jnp.take(x, slots, axis=1) for x in cache)
        cache, own = (keys, values), None
    size = layers // groups

    def group(first: int) -> HeldGroup:
        return lambda number: HeldLayer(*cache, first + number, own)

    return [group(number * size) for number in range(groups)]


class _At(NamedTuple):
    """Where a block is."""

    step: Array
    recent: list[Cache]
    token: Array
    done: Array
    read: Array  # tokens of each row that were read
    seen: Array
    out: Array
    logprobs: Logprobs


def _start(cfg: ModelConfig, block: int, recent: list[Cache], token: Array, done: Array, seen: Array) -> _At:
    shape = token.shape[0], block
    found, zero = _no_logprobs(shape, cfg.vocab_size), jnp.zeros_like(token)
    return _At(jnp.int32(0), recent, token, done, zero, seen, jnp.full(shape, NONE, jnp.int32), found)


def _step(
    model: tuple[Eve, list[Any], list[HeldGroup]], rows: tuple[Array, Array, Array], choosing_: Choosing, at: _At
) -> _At:
    """One token of every row."""
    (eve, weights, held), (length, steps, number) = model, rows
    seen = choosing.counted(at.seen, at.token, ~at.done)
    hidden, recent = eve.decode(at.token, held, at.recent, length, at.step, weights, number)
    logits = eve.logits(hidden)
    chosen = choosing.choose(logits, length + at.step + 1, choosing_.rules, seen, choosing_.banned(at.step))
    token = sharding.constrain(jnp.where(at.done, at.token, chosen), None)
    out = at.out.at[:, at.step].set(jnp.where(at.done, NONE, token))
    new = _logprobs(logits, token, choosing_.logprobs)
    found = Logprobs(*(old.at[:, at.step].set(x) for old, x in zip(at.logprobs, new, strict=True)))
    ends = (token < 0) | jnp.any(token[:, None] == choosing_.stops, axis=1) | (at.step + 1 >= steps)
    return _At(at.step + 1, recent, token, at.done | ends, at.read + ~at.done, seen, out, found)


def _no_logprobs(shape: tuple[int, ...], vocabulary: int) -> Logprobs:
    top = *shape, min(MOST_LOGPROBS, vocabulary)
    return Logprobs(jnp.zeros(shape), jnp.zeros(top), jnp.zeros(top, jnp.int32))


def _logprobs(logits: Array, token: Array, asked: Any) -> Logprobs:
    none = _no_logprobs(token.shape, logits.shape[1])
    return jax.lax.cond(asked, lambda: choosing.logprobs(logits, token, none.top.shape[1]), lambda: none)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def copy(mesh: Mesh | None, state: State, source: Any, target: Any, blocks: Any) -> State:
    """The first `blocks` blocks of entries of slot `source` in slot `target`, too."""

    def one(number: Array, cache: Cache) -> Cache:
        return _put(cache, _block(cache, source, number), target, number)

    with sharding.use(mesh):
        return state._replace(cache=placed(jax.lax.fori_loop(0, blocks, one, state.cache)))


@partial(jax.jit, static_argnums=0)
def take(mesh: Mesh | None, state: State, slot: Any, number: Any) -> Cache:
    """A copy of a slot's block of entries by its number."""
    with sharding.use(mesh):
        return placed(_block(state.cache, slot, number))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def put(mesh: Mesh | None, state: State, block: Cache, slot: Any, number: Any) -> State:
    """A block of `take` as that of a slot."""
    with sharding.use(mesh):
        return state._replace(cache=placed(_put(state.cache, block, slot, number)))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def clear(mesh: Mesh | None, state: State, slot: Any) -> State:
    """Zeros in a slot, which had entries that are not finite."""
    with sharding.use(mesh):
        keys, values = (x.at[:, slot].set(0) for x in state.cache)
        return state._replace(cache=placed((keys, values)))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def note_prompt(mesh: Mesh | None, state: State, slot: Any, ids: Int[Array, "N"]) -> State:
    """Forget what a slot's text was; it has the tokens `ids` now, negative ones are none."""
    with sharding.use(mesh):
        at = jnp.where(ids < 0, state.seen.shape[1], ids)
        row = jnp.zeros(state.seen.shape[1], jnp.int32).at[at].set(IN_PROMPT, mode="drop")
        return state._replace(seen=sharding.constrain(state.seen.at[slot].set(row), None, None))


def _block(cache: Cache, slot: Any, number: Any) -> Cache:
    keys, values = cache
    layers, _, heads, size, _ = keys.shape
    first = number * BLOCK
    return (
        jax.lax.dynamic_slice(keys, (0, slot, 0, 0, first), (layers, 1, heads, size, BLOCK)),
        jax.lax.dynamic_slice(values, (0, slot, 0, first, 0), (layers, 1, heads, BLOCK, size)),
    )


def _put(cache: Cache, block: Cache, slot: Any, number: Any) -> Cache:
    first = number * BLOCK
    return (
        jax.lax.dynamic_update_slice(cache[0], block[0], (0, slot, 0, 0, first)),
        jax.lax.dynamic_update_slice(cache[1], block[1], (0, slot, 0, first, 0)),
    )


def _behind(cache: Cache, entries: Cache, slots: Int[Array, "R"], length: Array) -> Cache:
    """`cache` with a row's `entries` behind the `length` entries of its slot.

    Row by row, since XLA would scatter entry by entry; where a mesh divides the rows, all in their places.
    """
    if slots.shape[0] == cache[0].shape[1] and sharding.batch_parts(sharding.current()) > 1:
        return appended(cache, entries, length)

    def one(row: Array, cache: Cache) -> Cache:
        keys, values = (jax.lax.dynamic_slice_in_dim(x, row, 1, 1) for x in entries)
        slot, end = slots[row], length[row]
        return (
            jax.lax.dynamic_update_slice(cache[0], keys, (0, slot, 0, 0, end)),
            jax.lax.dynamic_update_slice(cache[1], values, (0, slot, 0, end, 0)),
        )

    return jax.lax.fori_loop(0, length.shape[0], one, cache)


def _whole(chosen: Chosen) -> Chosen:
    """What the host reads, whole on every device."""
    return jax.tree.map(lambda x: sharding.constrain(x, *[None] * x.ndim), chosen)
