"""Rows built by other processes, where one process's lock of Python lets no more images through.

The arrays of a micro-batch lie in memory that both sides map (a file without a name), so no pixel is copied: a thread
here sends a process its row and the memory's descriptor, and waits for the answer. Rows are those that `RowBuilder`
builds here, to the bit.
"""

import atexit
import mmap
import multiprocessing
import os
import queue
import tempfile
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path

import numpy as np

from eve_jax.batch import ArraySpec, RowShape
from eve_jax.data.plan.lengths import Lengths
from eve_jax.data.plan.plan import MicroBatch
from eve_jax.data.rows.build import Batch, RowBuilder
from eve_jax.data.samples.measure import table_name
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from eve_jax.process.spawned import live_with_parent, without_main

ALIGNED = 64  # bytes between the places where arrays begin
Report = tuple[str, str, str, str]


@dataclass(frozen=True)
class BuilderFiles:
    """What a process opens to have the `RowBuilder` of a stage: records as in the config, and the lengths table.

    index: the folder of the records' indexes. table: the file; key: `Lengths.key`.
    """

    records: str
    images: str
    index: Path
    table: Path
    key: str
    rule: SampleRule
    most_images: Mapping[RowShape, int] | None

    def open(self, reports: "_Reports") -> RowBuilder:
        """Return the builder. Raises UserError where the files are not those that they were."""
        records, lengths = open_records(self.records, self.images, self.index), Lengths.load(self.table)
        if lengths.key != self.key or table_name(records, self.rule) != self.table.name:
            raise UserError("the records changed since the run began; rerun the command")
        return RowBuilder(records, lengths, self.rule, reports, self.most_images)


class _SharedBatch(dict[str, np.ndarray]):
    """A batch in memory that other processes can map by its descriptor, until `rows` rows are written."""

    def __init__(self, arrays: Mapping[str, ArraySpec], rows: int) -> None:
        self.file = _new_file()
        self._missing, self._lock = rows, threading.Lock()
        os.ftruncate(self.file, _layout(arrays)[1])
        super().__init__(_mapped(self.file, arrays))

    def written(self) -> None:
        """Note that a row is written; after the last one the arrays alone keep the memory."""
        with self._lock:
            self._missing -= 1
            if not self._missing:
                os.close(self.file)
                self.file = -1

    def __del__(self) -> None:
        if self.file >= 0:
            os.close(self.file)


def _new_file() -> int:
    """Return the descriptor of a new file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("batch")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _layout(arrays: Mapping[str, ArraySpec]) -> tuple[dict[str, int], int]:
    """Return the first byte of each array, and the size of all."""
    places, size = {}, 0
    for name, (shape, dtype) in arrays.items():
        places[name] = size
        size += -(-int(np.prod(shape)) * dtype.itemsize // ALIGNED) * ALIGNED
    return places, max(size, 1)


def _mapped(file: int, arrays: Mapping[str, ArraySpec]) -> Batch:
    """Return the arrays that lie in an open file; they keep it mapped."""
    places, size = _layout(arrays)
    memory = mmap.mmap(file, size)
    return {
        name: np.frombuffer(memory, dtype, int(np.prod(shape)), places[name]).reshape(shape)
        for name, (shape, dtype) in arrays.items()
    }


class _OneOf:
    """For a message when a process hangs: the records of the row that it builds."""

    def __init__(self, builder: RowBuilder, entries: tuple[int, ...]) -> None:
        self._builder, self._entries = builder, entries

    def __str__(self) -> str:
        lengths, records = self._builder.lengths, self._builder.records
        first, last = (records.where(lengths.entry(e).record) for e in (self._entries[0], self._entries[-1]))
        return first if len(self._entries) == 1 else f"one of those from {first} to {last}"


class RowProcesses:
    """Builds rows like `builder` by `processes` processes of `threads` threads each; to be closed.

    `build_row` may be called by as many threads as there are of all processes together.
    """

    def __init__(self, builder: RowBuilder, files: BuilderFiles, processes: int, threads: int) -> None:
        self._builder = builder
        self._free: queue.SimpleQueue[tuple[Connection, int]] = queue.SimpleQueue()
        self._processes = []
        self._closed = False
        context = multiprocessing.get_context("spawn")
        for _ in range(processes):
            pairs = [context.Pipe() for _ in range(threads)]
            process = context.Process(target=_serve, args=(files, [theirs for _, theirs in pairs]), daemon=True)
            with without_main():
                process.start()
            for mine, theirs in pairs:
                theirs.close()
                self._free.put((mine, process.pid or 0))
            self._processes.append(process)
        atexit.register(self.close)  # before multiprocessing waits for them

    def empty(self, shape: RowShape, rows: int) -> Batch:
        """Return a batch that other processes can fill."""
        return _SharedBatch(self._builder.arrays(shape, rows), rows)

    def build_row(self, batch: Batch, number: int, micro_batch: MicroBatch) -> None:
        """Have a process write row `number` into `batch`; what broke is reported here.

        Raises UserError, also when the process is gone.
        """
        assert isinstance(batch, _SharedBatch)
        entries = micro_batch.rows[number]
        connection, process = self._free.get()
        reading = self._builder.reading
        reading[threading.get_ident()] = _OneOf(self._builder, entries) if entries else "none"
        try:
            connection.send((micro_batch.shape, len(micro_batch.rows), number, entries))
            send_handle(connection, batch.file, process)
            error, reports = connection.recv()
        except (EOFError, OSError):
            if self._closed:
                raise UserError("the data processes were stopped") from None
            raise UserError(
                "a data process died (out of memory?); rerun the command, perhaps with fewer config.data.workers"
            ) from None
        finally:
            del reading[threading.get_ident()]
            self._free.put((connection, process))  # of a process that is gone, too: whoever waits for one is told
        for report in reports:
            self._builder.bad.report(*report)
        if error is not None:
            raise error
        batch.written()

    def close(self) -> None:
        """End the processes; whoever waits for one is told."""
        self._closed = True
        atexit.unregister(self.close)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


class _Reports:
    """Takes the records that break in a process, by the thread that builds their row."""

    def __init__(self) -> None:
        self._found: dict[int, list[Report]] = {}

    def report(self, where: str, id: str, image: str, reason: str) -> None:
        """Note one record."""
        self._found.setdefault(threading.get_ident(), []).append((where, id, image, reason))

    def take(self) -> list[Report]:
        """Return what this thread has noted since the last call."""
        return self._found.pop(threading.get_ident(), [])


def _serve(files: BuilderFiles, connections: list[Connection]) -> None:
    """A process: answers every connection in a thread of its own, until its parent is gone."""
    live_with_parent()
    reports = _Reports()
    opened: RowBuilder | UserError
    try:
        opened = files.open(reports)
    except UserError as error:
        opened = error
    threads = [threading.Thread(target=_answer, args=(opened, reports, one), daemon=True) for one in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _answer(opened: RowBuilder | UserError, reports: _Reports, connection: Connection) -> None:
    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            shape, rows, number, entries = connection.recv()
            file = recv_handle(connection)
            error: BaseException | None = None
            try:
                if isinstance(opened, UserError):
                    raise opened
                own = MicroBatch(shape, [()] * number + [entries])
                opened.build_row(_mapped(file, opened.arrays(shape, rows)), number, own)
            except UserError as known:
                error = UserError(str(known))
            except BaseException:
                error = RuntimeError(f"in a data process:\n{traceback.format_exc()}")
            finally:
                os.close(file)
            connection.send((error, reports.take()))
