"""The batches of a plan's steps in order, built ahead row by row by threads, of this process or in front of others."""

import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

from eve_jax.batch import RowShape
from eve_jax.data.plan.plan import MicroBatch, Plan
from eve_jax.data.rows.build import Batch
from eve_jax.process.cores import default_threads


class RowWriter(Protocol):
    """What builds rows: `RowBuilder` in this process, `RowProcesses` in others."""

    def empty(self, shape: RowShape, rows: int) -> Batch:
        """Return the batch that `build_row` is to fill."""

    def build_row(self, batch: Batch, number: int, micro_batch: MicroBatch) -> None:
        """Write row `number` of a micro-batch into its place in `batch`; called by several threads."""


class _Open:
    """A micro-batch some of whose rows are being built."""

    def __init__(self, micro_batch: MicroBatch, batch: Batch) -> None:
        self.micro_batch, self.batch = micro_batch, batch


class _Rows:
    """The rows of all micro-batches from `start_step` on, one after the other, as grain's random access.

    rows: of each micro-batch, those that are built; None for all.
    """

    def __init__(self, plan: Plan, builder: RowWriter, start_step: int, rows: Sequence[int] | None) -> None:
        self._plan, self._builder, self._first = plan, builder, start_step * plan.micro_batches
        self._rows = range(plan.rows) if rows is None else rows
        self._open: dict[int, _Open] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return (self._plan.steps * self._plan.micro_batches - self._first) * len(self._rows)

    def __getitem__(self, index: int) -> int:
        return int(index)

    def build(self, index: int) -> int:
        """Build row `index` into its batch; returns the index."""
        number, row = divmod(index, len(self._rows))
        with self._lock:
            if number not in self._open:
                shape, rows = self._plan.micro_batch(self._first + number)
                mine = MicroBatch(shape, [rows[r] for r in self._rows])
                self._open[number] = _Open(mine, self._builder.empty(shape, len(mine.rows)))
            one = self._open[number]
        self._builder.build_row(one.batch, row, one.micro_batch)
        return index

    def take(self, number: int) -> Batch:
        """Return micro-batch `number`, whose rows are all built."""
        with self._lock:
            return dict(self._open.pop(number).batch)


def loader(
    plan: Plan,
    builder: RowWriter,
    start_step: int = 0,
    threads: int = 2,
    prefetch: int = 4,
    rows: Sequence[int] | None = None,
) -> Iterator[tuple[int, list[Batch]]]:
    """Yields (step, its `plan.micro_batches` batches) from `start_step` to the end of the plan.

    The batches are the same for any number of `threads` (0: built when asked for, -1: by the machine) and any
    `start_step`. `prefetch` is the number of micro-batches built ahead, more where threads would wait. rows: the rows
    of each micro-batch that this host builds, in that order (what the sharding of batches asks of it); only their
    records are read.
    """
    import grain  # here, because it loads JAX, which nothing else under eve_jax.data needs

    if start_step >= plan.steps:
        return
    threads = default_threads() if threads < 0 else threads
    tasks = _Rows(plan, builder, start_step, rows)
    n_rows = len(tasks) // ((plan.steps - start_step) * plan.micro_batches)
    ahead = max(prefetch * n_rows, threads + n_rows) if threads else 0
    dataset = grain.MapDataset.source(tasks).map(tasks.build)
    built = iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)))
    try:
        for step in range(start_step, plan.steps):
            batches = []
            for _ in range(plan.micro_batches):
                last = [next(built) for _ in range(n_rows)][-1]
                batches.append(tasks.take(last // n_rows))
            yield step, batches
    finally:
        built.close()
