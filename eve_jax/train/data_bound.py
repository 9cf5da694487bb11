"""Says when a run waits for its data, and which setting gives it more."""

import time
from collections.abc import Callable

from eve_jax.data.config import DataConfig, images_in_bucket, reading_threads
from eve_jax.process import cores
from eve_jax.process.connect import peers

FIRST = 2  # steps that are left out: the first batches are waited for by every run
STEPS, SECONDS = 20, 10.0  # looked at together, at least
SHARE = 0.2  # of their time; a larger one spent waiting is said


class DataBound:
    """Looks at the time that a run of the stage `name` waits for batches; prints one line when it is much."""

    def __init__(self, name: str, data: DataConfig, clock: Callable[[], float] = time.perf_counter) -> None:
        self._name, self._data, self._clock = name, data, clock
        self._begin: tuple[int, float, float] | None = None
        self._steps = 0
        self._said = False

    def note(self, waited: float) -> None:
        """Note that a step is done; `waited`: seconds that the run has waited for batches so far."""
        self._steps += 1
        if self._said or self._steps < FIRST:
            return
        now = self._clock()
        if self._begin is None:
            self._begin = self._steps, now, waited
            return
        steps, began, before = self._begin
        if self._steps - steps < STEPS or now - began < SECONDS:
            return
        share = (waited - before) / (now - began)
        self._begin = self._steps, now, waited
        if share > SHARE:
            self._said = True
            who = f" (process {others.index})" if (others := peers()) else ""
            print(
                f"{self._name}{who}: data-bound: {share:.0%} of the last {self._steps - steps} steps' time was spent "
                f"waiting for batches; {remedy(self._data, cores.own_cores())}",
                flush=True,
            )


def remedy(data: DataConfig, own_cores: int) -> str:
    """Return what gives a process that has `own_cores` cores more batches."""
    workers, most = data.workers, cores.MOST_THREADS if images_in_bucket(data) else min(cores.MOST_THREADS, own_cores)
    threads = reading_threads(data)
    threads = threads if threads >= 0 else cores.default_threads(max(workers, 1))
    if not workers and threads < most:
        return f"raise config.data.threads (now {threads}; -1 takes {most} here)"
    if images_in_bucket(data):
        return (
            f"each image is asked of a bucket: raise config.data.threads (now {threads}), or convert the records "
            "(launch.prepare_data convert), whose shards are fetched as a whole"
        )
    if own_cores > max(workers, 1):
        more = min(own_cores, max(2, 2 * workers))
        return f"set config.data.workers={more} (now {workers}; {own_cores} cores, one process reads no faster)"
    return (
        f"all of its {own_cores} cores read images (config.data.workers={workers}): it takes more cores, smaller "
        "images or cheaper decoding (docs/data.md#faster-images)"
    )
