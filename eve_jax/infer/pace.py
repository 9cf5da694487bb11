"""How long pieces of prompts and blocks of answers take on this machine, by those that it has done."""

import bisect
import math
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

RECENT = 5  # measurements that count: their median, since other jobs on the machine hold one up now and then
BOUNDS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)  # of `Stalls`, in blocks
clock: Callable[[], float] = time.perf_counter


class Pace:
    """Seconds of a piece's work by its shape, and of a block by the number of its rows; what is not known is the worst
    that is."""

    def __init__(self) -> None:
        self._work: dict[Hashable, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._blocks: dict[Hashable, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))

    @contextmanager
    def piece(self, shape: Hashable, work: float) -> Iterator[None]:
        """Measure the block of code, which reads a piece of `shape` that is so much `work`."""
        began = clock()
        yield
        self._work[shape].append((clock() - began) / work)

    @contextmanager
    def block(self, rows: int) -> Iterator[None]:
        """Measure the block of code, which decodes a whole block of `rows` rows."""
        began = clock()
        yield
        self._blocks[rows].append(clock() - began)

    def seconds(self, shape: Hashable, work: float) -> float:
        """What a piece of `shape` takes, probably; 0 while none was measured."""
        known = [self._work[shape]] if shape in self._work else self._work.values()
        return work * max((statistics.median(one) for one in known), default=0.0)

    def block_seconds(self, rows: int) -> float:
        """What a block of `rows` rows takes, probably; infinity while none was measured."""
        known = [self._blocks[rows]] if rows in self._blocks else self._blocks.values()
        return min((statistics.median(one) for one in known), default=math.inf)


class Stalls:
    """How long answers waited for pieces of prompts before a block, in times of that block: how many such waits were up
    to each of `BOUNDS`, and above, and the sum."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def note(self, wait: float, block: float) -> None:
        """Count a wait of so many seconds before a block of so many."""
        blocks = wait / block if block > 0 else math.inf
        self.counts[bisect.bisect_left(BOUNDS, blocks)] += 1
        self.total += blocks
