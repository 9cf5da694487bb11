"""Where the items of a JSON array begin and end. A module of its own: numba takes a while and 70 MB to import."""

import numpy as np

from eve_jax.data.sources.json_scan import COUNT, DEPTH, ESCAPED, EXTRA, OPEN, START, STRING
from eve_jax.process.compiled import njit


def scan_items(block: bytes, base: int, state: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return first byte, end and number, int64 [n] each, of the first `most` items that begin in `block`.

    base: the byte of the file that `block` begins with. The last one's end is that of the block if it is not in it.
    """
    starts, stops, numbers = np.empty(most, np.int64), np.full(most, base + len(block)), np.empty(most, np.int64)
    n = _scan(np.frombuffer(block, np.uint8), base, state, starts, stops, numbers)
    return starts[:n], stops[:n], numbers[:n]


@njit
def _scan(block, base, state, starts, stops, numbers):
    """Writes begin, end and number of the array's items in `block`; returns how many begin in it."""
    n = 0
    for i in range(len(block)):
        c = block[i]
        if state[STRING]:
            if state[ESCAPED]:
                state[ESCAPED] = 0
            elif c == 92:
                state[ESCAPED] = 1
            elif c == 34:
                state[STRING] = 0
            continue
        if c == 32 or c == 10 or c == 13 or c == 9:
            continue
        if state[DEPTH] == 0:
            state[EXTRA] = base + i + 1
            break
        ends = state[DEPTH] == 1 and (c == 44 or c == 93 or c == 125)
        if not state[OPEN] and not (ends and c != 44):
            if n == len(starts):
                break
            state[OPEN] = 1
            state[COUNT] += 1
            state[START] = base + i
            starts[n] = base + i
            numbers[n] = state[COUNT]
            n += 1
        if ends:
            if state[OPEN] and n:
                stops[n - 1] = base + i
            state[OPEN] = 0
        if c == 34:
            state[STRING] = 1
        elif c == 91 or c == 123:
            state[DEPTH] += 1
        elif c == 93 or c == 125:
            state[DEPTH] -= 1
    return n
