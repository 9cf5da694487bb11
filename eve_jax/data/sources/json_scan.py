"""Where the records of a JSON file begin, block by block: the lines of JSONL, the items of an array."""

import numpy as np

# What a scanner remembers from one block to the next, int64 [8].
COUNT = 0  # records begun so far
OPEN = 1  # 1 within a record
LINE = 2  # lines: number of this one
START = 3  # byte at which this line, or the last item, begins
DEPTH, STRING, ESCAPED, EXTRA = 4, 5, 6, 7  # array: brackets open, states of a text, 1 + byte after the array's end

BLANK = b" \t\r"
_BLANK_BYTES = np.isin(np.arange(256), [*BLANK, *b"\n"])


def begin(start: int, line: int) -> np.ndarray:
    """Return the state of a scanner before byte `start`, at which line `line` or an array's first item begins."""
    state = np.zeros(8, np.int64)
    state[START], state[LINE], state[DEPTH] = start, line, 1
    return state


def scan_lines(block: bytes, base: int, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return first byte and line number, int64 [n] each, of the records that begin in `block`: lines, but blank ones.

    base: the byte of the file that `block` begins with.
    """
    data = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(data == 10)
    begins = np.concatenate([[0], ends + 1])  # of lines; the first one and the last one may be parts
    filled = np.zeros(len(begins), bool)
    inside = begins < len(data)
    filled[inside] = ~_BLANK_BYTES[data[begins[inside]]]
    stops = np.append(ends, len(data))
    for number in np.flatnonzero(~filled):
        filled[number] = bool(block[begins[number] : stops[number]].strip(BLANK))
    starts, numbers = begins + base, np.arange(len(begins)) + state[LINE]
    starts[0] = state[START]
    new = filled.copy()
    new[0] &= not state[OPEN]
    state[OPEN] = filled[-1] or (state[OPEN] and not len(ends))
    state[START], state[LINE] = starts[-1], numbers[-1]
    state[COUNT] += np.count_nonzero(new)
    return starts[new], numbers[new]


def nth_line(block: bytes, n: int) -> tuple[bytes, int] | None:
    """Return line `n`, from 0, of those in `block` that are not blank, and how many lines stand before it; or None."""
    left = n
    for number, line in enumerate(block.split(b"\n")):
        if line.strip(BLANK):
            if not left:
                return line, number
            left -= 1
    return None
