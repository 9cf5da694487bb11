"""Mixtures: how often the records of each source come, and in which order, by a seed.

    source -> an endless stream: pass after pass over its records, each pass shuffled anew
    rounds -> equal parts of an epoch, short enough that no record comes twice in one
    round  -> its share of every stream, interleaved evenly

Shuffles are our own, so that a plan does not depend on the release of a library.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from eve_jax.errors import Field, FieldError
from eve_jax.process.compiled import njit
from eve_jax.process.section import MOST

BUCKET = 1 << 14  # entries shuffled at a time: they stay in the processor's cache
_GOLDEN, _MIX1, _MIX2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Mixture(NamedTuple):
    """Sources by name: the entries starts[k] to starts[k + 1] (int64 [sources + 1]) come repeats[k] times an epoch."""

    names: tuple[str, ...]
    starts: np.ndarray
    repeats: tuple[float, ...]

    @classmethod
    def single(cls, size: int) -> Self:
        """A source of `size` entries, each once an epoch."""
        return cls(("records",), np.array([0, size], np.int64), (1.0,))

    @classmethod
    def of(cls, sizes: Mapping[str, int], repeats: str = "", weights: str = "") -> Self:
        """Sources of so many entries each, in order, mixed as `repeats_of` says."""
        starts = np.cumsum([0, *sizes.values()]).astype(np.int64)
        return cls(tuple(sizes), starts, tuple(repeats_of(sizes, repeats, weights)))


def repeats_of(sizes: Mapping[str, int], repeats: str = "", weights: str = "") -> list[float]:
    """How many times an epoch holds the records of each source (name -> number of usable records).

    repeats: "2,0.5,1", those numbers themselves. weights: "7,2,1" (or "7:2:1"), in which ratio the samples of the
    sources stand; the source that is smallest for its weight then comes once, the others in part.
    Without either every source comes once. Raises `UserError` when they make no sense.
    """
    check_mixture(repeats, weights)
    values = _numbers("repeats", repeats, len(sizes)) if repeats else [1.0] * len(sizes)
    if weights:
        ratio = _numbers("weights", weights, len(sizes))
        for (name, size), weight in zip(sizes.items(), ratio, strict=True):
            if weight and not size:
                raise FieldError(Field("data.weights"), f"={weights!r}: {name} has no record that can be used")
        most = min(size / weight for size, weight in zip(sizes.values(), ratio, strict=True) if weight)
        values = [weight * most / size if weight else 0.0 for size, weight in zip(sizes.values(), ratio, strict=True)]
    return values


def parse_numbers(field: str, text: str) -> list[float]:
    """Return the numbers in `text`, the value of config.data.`field`; none for "". Raise FieldError."""
    try:
        values = [float(item) for item in text.replace(":", ",").split(",")] if text else []
    except ValueError:
        raise FieldError(Field(f"data.{field}"), f"={text!r} is not a list of numbers such as 7,2,1") from None
    if not all(0 <= value <= MOST[float] for value in values) or (values and not any(values)):
        raise FieldError(
            Field(f"data.{field}"), f"={text!r}: numbers are at least 0, at most {MOST[float]:g}, and one is above 0"
        )
    return values


def check_mixture(repeats: str, weights: str) -> None:
    """Raise FieldError when both fields of the config are set."""
    if repeats and weights:
        raise FieldError(Field("data.repeats"), " and ", Field("data.weights"), " are both set; empty one of them")


def _numbers(field: str, text: str, n_sources: int) -> list[float]:
    values = parse_numbers(field, text)
    if len(values) != n_sources:
        raise FieldError(
            Field(f"data.{field}"), f"={text!r} has {len(values)} numbers for {n_sources} sources of records"
        )
    return values


def rounds(sources: Sequence[np.ndarray], repeats: Sequence[float], seed: Any) -> Iterator[tuple[np.ndarray, bool]]:
    """Endless rounds: entries int32 in order, each at most once, and whether the round ends an epoch.

    sources: the entries (int32) of each source. An epoch has ceil(max(repeats)) rounds and holds `repeats` times the
    entries of a source, up to one; a source goes through all its entries before one comes again.
    """
    streams = [_Stream(entries, [seed, number]) for number, entries in enumerate(sources)]
    per_epoch = max(int(np.ceil(max(repeats) - 1e-9)), 1)
    number = 0
    while True:
        number += 1
        parts = []
        for stream, repeat in zip(streams, repeats, strict=True):
            due = round(repeat * len(stream.entries) * number / per_epoch)
            parts.append(stream.take(due - stream.taken))
        sizes = np.array([len(part) for part in parts], np.int64)
        order = parts[0] if len(parts) == 1 else _interleave(np.concatenate(parts), sizes)
        yield order, number % per_epoch == 0


class _Stream:
    """The entries of a source, shuffled, pass after pass."""

    def __init__(self, entries: np.ndarray, seed: Any) -> None:
        self.entries, self.seed = entries, seed
        self.taken, self.passes = 0, 0
        self._rest = entries[:0]

    def take(self, count: int) -> np.ndarray:
        """The next `count` entries, at most all; none is among them twice."""
        self.taken += count
        count = min(count, len(self.entries))  # rounding may ask for one more than there are
        taken, self._rest = self._rest[:count], self._rest[count:]
        if len(taken) == count:
            return taken
        fresh = self._shuffled()
        head = fresh[~np.isin(fresh, taken)][: count - len(taken)] if len(taken) else fresh[:count]
        self._rest = fresh[~np.isin(fresh, head)] if len(taken) else fresh[count:]
        return np.concatenate([taken, head])

    def _shuffled(self) -> np.ndarray:
        words = np.random.SeedSequence([*np.ravel(self.seed).tolist(), self.passes]).generate_state(1, np.uint64)
        self.passes += 1
        return shuffled(self.entries, words[0])


def shuffled(values: np.ndarray, seed: np.uint64) -> np.ndarray:
    """`values` int32 [n] in a random order: dealt into buckets, each then shuffled (Rao 1961, Sandelius 1962)."""
    n_buckets = -(-len(values) // BUCKET)
    return _shuffled(np.ascontiguousarray(values, np.int32), np.uint64(seed), n_buckets)


@njit
def _mixed(state):
    """A 64-bit random number from a counter (SplitMix64, Steele et al. 2014)."""
    z = (state ^ (state >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))


@njit
def _below(state, n):
    """A random number below n (less than 2^32)."""
    return np.int64(((_mixed(state) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@njit
def _shuffled(values, seed, n_buckets):
    first = np.zeros(n_buckets + 1, np.int64)
    state = _mixed(seed)
    for _ in range(len(values)):
        state += _GOLDEN
        first[_below(state, n_buckets) + 1] += 1
    first = np.cumsum(first)
    out = np.empty(len(values), np.int32)
    place = first[:-1].copy()
    state = _mixed(seed)
    for i in range(len(values)):
        state += _GOLDEN
        bucket = _below(state, n_buckets)
        out[place[bucket]] = values[i]
        place[bucket] += 1
    for bucket in range(n_buckets):
        start = first[bucket]
        for i in range(first[bucket + 1] - start - 1, 0, -1):
            state += _GOLDEN
            other = start + _below(state, i + 1)
            out[start + i], out[other] = out[other], out[start + i]
    return out


@njit
def _interleave(entries, sizes):
    """Lists of `sizes`, one behind the other in `entries`, as one in which every stretch has their ratio."""
    total = len(entries)
    out = np.empty(total, np.int32)
    place = np.cumsum(sizes) - sizes
    owed = np.zeros(len(sizes), np.int64)  # times total
    for i in range(total):
        most = 0
        for s in range(len(sizes)):
            owed[s] += sizes[s]
            if owed[s] > owed[most]:
                most = s
        owed[most] -= total
        out[i] = entries[place[most]]
        place[most] += 1
    return out
