"""The inner loops of planning: which records share a row. Integers alone, so the same on every machine.

records in a seeded order -> a window of those that come next -> rows, each of the row shape that it fills best
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from eve_jax.process.compiled import njit

WINDOW = 64  # records that are looked at to find the next one of a row
NARROW_WINDOW, WIDE_WINDOW = 40, 256  # the same where there are very many, and few
MAX_WINDOW = 512
AHEAD = 1024  # records whose sizes are fetched at a time
FULL = 990  # per mille: a row this full is taken without trying other shapes
BIG = np.int32(1 << 29)  # patches of a record of the window that is taken: it fits nowhere
NO_FIT = np.int32((1 << 31) - 1)


@dataclass(frozen=True, eq=False)
class Packed:
    """Rows of records: row r is of shape number `shape[r]` and holds entries[first[r] : first[r + 1]].

    entries int32, first int64 [rows + 1], shape uint8 [rows]; tokens and vision int32 [rows]: the row's real tokens,
    and those of them that are patches or specials. left_out int32: entries that no shape can hold.
    """

    entries: np.ndarray
    first: np.ndarray
    shape: np.ndarray
    tokens: np.ndarray
    vision: np.ndarray
    left_out: np.ndarray

    def __len__(self) -> int:
        return len(self.shape)

    @classmethod
    def joined(cls, parts: Sequence["Packed"]) -> Self:
        """The rows of all parts (at least one), one part after the other."""
        starts = np.cumsum([0] + [len(part.entries) for part in parts])
        first = [start + part.first[:-1] for start, part in zip(starts[:-1], parts, strict=True)]
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("entries", "shape", "tokens", "vision", "left_out")
        }
        return cls(first=np.concatenate([*first, starts[-1:]]), **columns)

    def rows(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`entries` and `first` of the rows `numbers` int64 [m], in that order; -1 is an empty row."""
        return _rows_of(self.entries, self.first, numbers)


def pack(counts: np.ndarray, order: np.ndarray, shapes: np.ndarray, window: int = WINDOW) -> Packed:
    """Packs the records `order` (int [n], indices into `counts` int32 [.., 3]) into rows of `shapes` int32 [K, 3].

    A window of the records that come next (at most MAX_WINDOW) is kept open. A row starts with the oldest of it and
    takes, as long as one fits all three budgets, the record that leaves the smallest squared norm of unused budget
    shares (norm-based greedy vector packing, Panigrahy et al. 2011). Shapes are tried from the one that was taken
    last until a row is FULL; else the fullest row is kept.
    """
    order = np.ascontiguousarray(order, np.int32)
    return Packed(*_pack(counts, order, np.ascontiguousarray(shapes, np.int32), min(window, MAX_WINDOW)))


@njit
def _best(size, room0, room1, room2, inverse0, inverse1, inverse2, index_bits):
    """Which record of the window fits best: its squared norm of unused shares above its number, or NO_FIT.

    Every step is cut back to int32 so that the loop becomes vector instructions, 8 to 16 records at a time.
    """
    best = NO_FIT
    for q in range(size.shape[1]):
        left0, left1, left2 = np.int32(room0 - size[0, q]), np.int32(room1 - size[1, q]), np.int32(room2 - size[2, q])
        share0 = np.int32(np.int32(left0 * inverse0) >> np.int32(19))
        share1 = np.int32(np.int32(left1 * inverse1) >> np.int32(19))
        share2 = np.int32(np.int32(left2 * inverse2) >> np.int32(19))
        norm = np.int32(np.int32(share0 * share0) + np.int32(share1 * share1))
        norm = np.int32(norm + np.int32(share2 * share2))
        score = np.int32(np.int32(norm << index_bits) | np.int32(q))
        score = score if np.int32(left0 | left1 | left2) >= np.int32(0) else NO_FIT
        best = min(best, score)
    return best


@njit
def _fill(size, seed, shapes, inverse, k, index_bits, picked):
    """Fills a row of shape k, record `seed` of the window first; returns how many it picked and the slots left over."""
    room0, room1, room2 = shapes[k, 0], shapes[k, 1], shapes[k, 2]
    inverse0, inverse1, inverse2 = inverse[k, 0], inverse[k, 1], inverse[k, 2]
    number_of = np.int32((1 << index_bits) - 1)
    n_picked = 0
    chosen = seed
    while True:
        room0 = np.int32(room0 - size[0, chosen])
        room1 = np.int32(room1 - size[1, chosen])
        room2 = np.int32(room2 - size[2, chosen])
        size[0, chosen] += BIG
        picked[n_picked] = chosen
        n_picked += 1
        best = _best(size, room0, room1, room2, inverse0, inverse1, inverse2, index_bits)
        if best == NO_FIT:
            break
        chosen = best & number_of
    for n in range(n_picked):
        size[0, picked[n]] -= BIG
    return n_picked, np.int64(room0) + room1 + room2


@njit
def _fullest(size, seed, shapes, inverse, index_bits, last, picked, kept):
    """The shape whose row with record `seed` becomes fullest (-1: none holds it), its tokens, and how many it `kept`.

    Shapes are tried from number `last` on, until a row is FULL.
    """
    best, most, n_kept, best_length = -1, 0, 1, np.int64(1)
    kept[0] = seed
    for step in range(len(shapes)):
        k = (last + step) % len(shapes)
        if size[0, seed] > shapes[k, 0] or size[1, seed] > shapes[k, 1] or size[2, seed] > shapes[k, 2]:
            continue
        n_picked, unused = _fill(size, seed, shapes, inverse, k, index_bits, picked)
        length = np.int64(shapes[k, 0]) + shapes[k, 1] + shapes[k, 2]
        used = length - unused
        if best < 0 or used * best_length > most * length:  # fills, multiplied out
            best, most, n_kept, best_length = k, used, n_picked, length
            for i in range(n_picked):
                kept[i] = picked[i]
            if used * 1000 >= FULL * length:
                break
    return best, most, n_kept


@njit
def _inverses(shapes, share_bits):
    """Factors that turn left-over slots into shares of a budget: share = left * factor >> 19, 2**share_bits for all."""
    inverse = np.zeros(shapes.shape, np.int32)
    for k in range(len(shapes)):
        for j in range(3):
            if shapes[k, j] > 0:
                inverse[k, j] = (1 << (share_bits + 19)) // shapes[k, j]
    return inverse


@njit
def _look_ahead(counts, order, n_read, ahead):
    """Copies the sizes of the next records into `ahead`: far apart in memory, they are fetched together."""
    for i in range(min(ahead.shape[1], len(order) - n_read)):
        e = order[n_read + i]
        ahead[0, i], ahead[1, i], ahead[2, i] = counts[e, 0], counts[e, 1], counts[e, 2]


@njit
def _oldest(place):
    """The window's record that was read first, or -1 when none is left."""
    first = NO_FIT
    for q in range(len(place)):
        first = min(first, place[q])
    if first == NO_FIT:
        return np.int32(-1)
    oldest = np.int32(0)
    while place[oldest] != first:
        oldest += np.int32(1)
    return oldest


@njit
def _pack(counts, order, shapes, window):
    n = len(order)
    entries, first = np.empty(n, np.int32), np.zeros(n + 1, np.int64)
    row_shape, tokens, vision = np.empty(n, np.uint8), np.empty(n, np.int32), np.empty(n, np.int32)
    left_out = np.empty(n, np.int32)
    n_rows, n_left_out, n_read, last = 0, 0, 0, 0
    index_bits = np.int32(6 if window <= 64 else 9)  # with three squared shares they must fit into 31 bits
    inverse = _inverses(shapes, 11 if window <= 64 else 10)
    # The window: sizes of its records, and their places in `order`. A place without a record holds one too big.
    size, place = np.full((3, window), BIG, np.int32), np.full(window, NO_FIT, np.int32)
    ahead = np.empty((3, AHEAD), np.int32)
    picked, kept = np.empty(window, np.int32), np.arange(window).astype(np.int32)
    n_kept = window
    while True:
        for i in range(n_kept):
            q = kept[i]
            if n_read == n:
                size[0, q], place[q] = BIG, NO_FIT
                continue
            at = n_read % AHEAD
            if at == 0:
                _look_ahead(counts, order, n_read, ahead)
            size[0, q], size[1, q], size[2, q], place[q] = ahead[0, at], ahead[1, at], ahead[2, at], n_read
            n_read += 1
        seed = _oldest(place)
        if seed < 0:
            break
        k, used, n_kept = _fullest(size, seed, shapes, inverse, index_bits, last, picked, kept)
        if k < 0:
            left_out[n_left_out] = order[place[seed]]
            n_left_out += 1
            continue
        start, text = first[n_rows], 0
        for i in range(n_kept):
            entries[start + i] = order[place[kept[i]]]
            text += size[2, kept[i]]
        first[n_rows + 1] = start + n_kept
        row_shape[n_rows], tokens[n_rows], vision[n_rows] = k, used, used - text
        n_rows += 1
        last = k
    # Copies, so that what was set aside for the worst case is given back.
    return (
        entries[: first[n_rows]].copy(),
        first[: n_rows + 1].copy(),
        row_shape[:n_rows].copy(),
        tokens[:n_rows].copy(),
        vision[:n_rows].copy(),
        left_out[:n_left_out].copy(),
    )


@njit
def _rows_of(entries, first, numbers):
    bounds = np.zeros(len(numbers) + 1, np.int64)
    for i in range(len(numbers)):
        row = numbers[i]
        bounds[i + 1] = bounds[i] + (first[row + 1] - first[row] if row >= 0 else 0)
    out = np.empty(bounds[-1], np.int32)
    for i in range(len(numbers)):
        row = numbers[i]
        if row >= 0:
            out[bounds[i] : bounds[i + 1]] = entries[first[row] : first[row + 1]]
    return out, bounds


@njit
def frontier(counts, entries):
    """Those of `entries` int32 [m], rows of `counts` int32 [n, 3], that no other is at least as large as in all three.

    Of equal ones, the first.
    """
    front = np.empty(len(entries), np.int32)
    n_front = 0
    for e in entries:
        a0, a1, a2 = counts[e]
        covered = False
        for f in range(n_front):
            b0, b1, b2 = counts[front[f]]
            if a0 <= b0 and a1 <= b1 and a2 <= b2:
                covered = True
                break
        if covered:
            continue
        n_left = 0
        for f in range(n_front):
            b0, b1, b2 = counts[front[f]]
            if b0 > a0 or b1 > a1 or b2 > a2:
                front[n_left] = front[f]
                n_left += 1
        front[n_left] = e
        n_front = n_left + 1
    return front[:n_front].copy()
