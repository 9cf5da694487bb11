"""Image files that are as they were when this process measured them, so that they need not be hashed once more.

Kept in memory alone, as what a stage leaves on disk must not depend on when it ran.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from eve_jax.data.image_file import ImageFile, StoredImage

MOST = 1 << 20  # files that are remembered, 8 bytes each
SETTLED = 2 * 10**9  # ns after which a further write to a file changes its times, whatever their grain
UNKNOWN = 0
_lock = Lock()
_states: dict[Path, np.ndarray] = {}


def state_of(found: os.stat_result | None, looked: int) -> int:
    """Return a number that changes with every write to a file of this status; UNKNOWN for none, or one just written.

    looked: when it was asked for, `time.time_ns()` or earlier.
    """
    if found is None or looked - found.st_ctime_ns < SETTLED:
        return UNKNOWN
    return hash((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))


def is_as_it_was(file: ImageFile, state: int) -> bool:
    """Return whether a file is in a `state` that is known, so that what was read of it before this call is, too."""
    if state == UNKNOWN or isinstance(file, StoredImage):
        return False
    looked = time.time_ns()
    try:
        return state_of(os.stat(file), looked) == state
    except OSError:
        return False


def remember(shard: Path, states: Sequence[int]) -> None:
    """Keep what `state_of` said of the image of each record of a measured shard, before it was read."""
    with _lock:
        _states.pop(shard, None)
        if sum(map(len, _states.values())) + len(states) <= MOST:
            _states[shard] = np.array(states, np.int64)


def remembered(shard: Path) -> np.ndarray | None:
    """Return what was kept of a measured shard, int64 [records]; None where another process measured it."""
    return _states.get(shard)
