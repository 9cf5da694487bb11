"""How many cores this process may use: those that it is bound to, within the quota of its container."""

import os
from pathlib import Path

MOST_THREADS = 16  # of a process that read images: with more, Python's lock lets none of them do more
MOST_WORKERS = 1024  # processes, or threads of one, that a setting may ask for: more than hosts have cores
_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "200000 100000": microseconds of a core in each such period, or "max 100000"
_sharing = 1


def cores(quota: Path = _QUOTA) -> int:
    """Return the number of cores, at least 1. quota: the file that says how much of them a container gets."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        granted, period = quota.read_text().split()
        return max(1, min(bound, int(granted) // int(period)))
    except (OSError, ValueError):  # no such container, or "max"
        return bound


def shared_by(processes: int) -> None:
    """Say that so many processes of the run are on this machine, which share its cores."""
    global _sharing
    _sharing = processes


def default_threads(processes: int = 1) -> int:
    """Return how many threads read images in each of `processes` processes that this one has for it."""
    return max(1, min(MOST_THREADS, own_cores() // processes))


def own_cores() -> int:
    """Return how many of the cores are this process's, next to the others of the run on this machine."""
    return max(1, cores() // _sharing)
