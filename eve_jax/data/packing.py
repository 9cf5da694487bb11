"""The inner loops of planning: which records share a row. Everything is deterministic, also across machines."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numba import njit

WINDOW = 64  # records that are looked at to find the next one of a row


@dataclass(frozen=True, eq=False)
class Packed:
    """Rows of records: row r is of shape number `shape[r]` and holds entries[first[r] : first[r + 1]].

    entries int32, first int64 [rows + 1], shape int32 [rows]. left_out int32: entries that no shape can hold.
    """

    entries: np.ndarray
    first: np.ndarray
    shape: np.ndarray
    left_out: np.ndarray

    def __len__(self) -> int:
        return len(self.shape)

    @classmethod
    def empty(cls) -> Self:
        """No rows."""
        return cls(np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))

    def joined(self, other: "Packed") -> "Packed":
        """The rows of both, those of `other` behind."""
        return Packed(
            np.concatenate([self.entries, other.entries]),
            np.concatenate([self.first, self.first[-1] + other.first[1:]]),
            np.concatenate([self.shape, other.shape]),
            np.concatenate([self.left_out, other.left_out]),
        )

    def rows(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Entries and bounds (as `entries`, `first`) of the rows `numbers` int [m] in that order; -1: an empty row."""
        start = np.where(numbers < 0, 0, self.first[numbers])
        size = np.where(numbers < 0, 0, self.first[numbers + 1] - start)
        first = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
        return self.entries[np.repeat(start - first[:-1], size) + np.arange(first[-1])], first


def pack(counts: np.ndarray, order: np.ndarray, shapes: np.ndarray, window: int = WINDOW) -> Packed:
    """Packs the records `order` (int [n], indices into `counts` int32 [.., 3]) into rows of `shapes` int32 [K, 3].

    A window of the records that come next is kept open. A row starts with the oldest of it and takes, as long as
    one fits all three budgets, the record that leaves the smallest squared norm of unused budget shares (norm-based
    greedy vector packing, Panigrahy et al. 2011); every shape is tried and the fullest row is kept.
    """
    return Packed(*_pack(counts, order.astype(np.int32), shapes, window))


@njit(cache=True, nogil=True)
def _fill(size, taken, n_open, seed, shape, picked):
    """Fills one row from the window, `seed` first; returns how many it picked and their tokens."""
    weight = 1.0 / np.maximum(shape, 1) ** 2
    room0, room1, room2 = shape[0], shape[1], shape[2]
    n_picked, used = 0, 0
    chosen = seed
    while chosen >= 0:
        room0 -= size[chosen, 0]
        room1 -= size[chosen, 1]
        room2 -= size[chosen, 2]
        used += size[chosen, 0] + size[chosen, 1] + size[chosen, 2]
        picked[n_picked] = chosen
        n_picked += 1
        taken[chosen] = True
        chosen = -1
        best = np.inf
        for q in range(n_open):
            left0, left1, left2 = room0 - size[q, 0], room1 - size[q, 1], room2 - size[q, 2]
            if left0 < 0 or left1 < 0 or left2 < 0 or taken[q]:
                continue
            score = left0 * left0 * weight[0] + left1 * left1 * weight[1] + left2 * left2 * weight[2]
            if score < best:
                best = score
                chosen = q
    for n in range(n_picked):
        taken[picked[n]] = False
    return n_picked, used


@njit(cache=True, nogil=True)
def _pack(counts, order, shapes, window):
    n = len(order)
    entries, first = np.empty(n, np.int32), np.zeros(n + 1, np.int64)
    row_shape, left_out = np.empty(n, np.int32), np.empty(n, np.int32)
    n_rows, n_left_out = 0, 0
    # The window: the sizes of its records, and their places in `order`, oldest first.
    size, place = np.empty((window, 3), np.int64), np.empty(window, np.int64)
    taken = np.zeros(window, np.bool_)
    picked, kept = np.empty(window, np.int64), np.empty(window, np.int64)
    n_open, n_read = 0, 0
    while True:
        while n_open < window and n_read < n:
            size[n_open] = counts[order[n_read]]
            place[n_open] = n_read
            n_open += 1
            n_read += 1
        if n_open == 0:
            break
        best_shape, best_fill, n_kept = -1, -1.0, 0
        for k in range(len(shapes)):
            shape = shapes[k]
            if size[0, 0] > shape[0] or size[0, 1] > shape[1] or size[0, 2] > shape[2]:
                continue
            n_picked, used = _fill(size, taken, n_open, 0, shape, picked)
            fill = used / shape.sum()
            if fill > best_fill:
                best_shape, best_fill, n_kept = k, fill, n_picked
                kept[:n_picked] = picked[:n_picked]
        if best_shape < 0:
            left_out[n_left_out] = order[place[0]]
            n_left_out += 1
            kept[0], n_kept = 0, 1
        else:
            first[n_rows + 1] = first[n_rows] + n_kept
            row_shape[n_rows] = best_shape
            for i in range(n_kept):
                entries[first[n_rows] + i] = order[place[kept[i]]]
            n_rows += 1
        for i in range(n_kept):
            taken[kept[i]] = True
        n_left = 0
        for q in range(n_open):
            if taken[q]:
                taken[q] = False
                continue
            size[n_left] = size[q]
            place[n_left] = place[q]
            n_left += 1
        n_open = n_left
    n_placed = first[n_rows]
    return entries[:n_placed], first[: n_rows + 1], row_shape[:n_rows], left_out[:n_left_out]


@njit(cache=True, nogil=True)
def frontier(counts):
    """Indices of rows of `counts` int32 [n, 3] such that each row is no larger than one of theirs, in all three."""
    front = np.empty(len(counts), np.int64)
    n_front = 0
    for i in range(len(counts)):
        a0, a1, a2 = counts[i]
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
        front[n_left] = i
        n_front = n_left + 1
    return front[:n_front]
