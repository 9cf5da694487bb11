"""A shared folder with the latency and bandwidth of network storage, for threads that stand for hosts.

What Python reads, writes and asks of files below the folder is counted by host and takes its time: a wait of `latency`
for every request, and a place in the queue of the one server that moves `bandwidth` bytes a second. A thread is of the
host of the thread that started it.
"""

import builtins
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

REQUEST = 1 << 20  # bytes of a request of a network file system
ASKED = ("stat", "lstat", "listdir", "scandir", "mkdir", "rename", "replace", "unlink", "rmdir", "utime")
_here = threading.local()


@dataclass
class Count:
    """What a host has asked of the storage and of the key-value service. mapped: bytes that may be read later."""

    asked: int = 0
    reads: int = 0
    writes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    mapped_bytes: int = 0
    messages: int = 0
    values: int = 0
    seconds: float = 0.0


@dataclass
class Storage:
    """The folder `root` with `latency` (seconds) and `bandwidth` (bytes a second); `counts` by host."""

    root: Path
    latency: float
    bandwidth: float
    counts: dict[int, Count] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._free = 0.0
        self._files: set[int] = set()

    def mine(self) -> Count:
        """Return the count of this thread's host."""
        with self._lock:
            return self.counts.setdefault(host(), Count())

    def ask(self) -> None:
        """Wait for an answer about a name."""
        self.mine().asked += 1
        time.sleep(self.latency)

    def move(self, size: int, writes: bool) -> None:
        """Wait until `size` bytes are read or written."""
        count, requests = self.mine(), max(1, -(-size // REQUEST))
        if writes:
            count.writes += requests
            count.written_bytes += size
        else:
            count.reads += requests
            count.read_bytes += size
        with self._lock:
            begin = max(time.monotonic(), self._free)
            self._free = begin + size / self.bandwidth
            until = self._free + self.latency
        time.sleep(max(0.0, until - time.monotonic()))

    def holds(self, path: Any) -> bool:
        """Whether a path, or a file's number, is below the folder."""
        if isinstance(path, int):
            return path in self._files
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(str(self.root))

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Slow down and count what happens in the block."""
        with ExitStack() as stack:
            for name in ASKED:
                stack.enter_context(patch.object(os, name, self._asked(getattr(os, name))))
            opened = self._opened(io.open)
            for module in (io, builtins):
                stack.enter_context(patch.object(module, "open", opened))
            stack.enter_context(patch.object(np, "fromfile", self._fromfile(np.fromfile)))
            stack.enter_context(patch.object(np, "memmap", self._memmap(np.memmap)))
            stack.enter_context(patch.object(os, "pread", self._pread(os.pread)))
            stack.enter_context(patch.object(threading.Thread, "start", _started(threading.Thread.start)))
            yield

    def _asked(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def asked(path: Any = ".", *args: Any, **named: Any) -> Any:
            if self.holds(path):
                self.ask()
            return real(path, *args, **named)

        return asked

    def _opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **named: Any) -> Any:
            if not self.holds(file) or isinstance(file, int):
                return real(file, mode, buffering, *args, **named)
            self.ask()
            raw = _File(file, mode.replace("b", "").replace("t", ""))
            raw.storage = self
            self._files.add(raw.fileno())
            kind = io.BufferedRandom if "+" in mode else io.BufferedReader if "r" in mode else io.BufferedWriter
            buffered = kind(raw, REQUEST)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, *args, **named)

        return opened

    def _fromfile(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def fromfile(file: Any, dtype: Any = float, count: int = -1, *args: Any, **named: Any) -> Any:
            if isinstance(getattr(file, "raw", None), _File):
                at = file.tell()  # NumPy reads past the buffer
                data = os.pread(file.fileno(), count * np.dtype(dtype).itemsize if count >= 0 else 1 << 40, at)
                file.seek(at + len(data))
                return np.frombuffer(bytearray(data), dtype)
            return real(file, dtype, count, *args, **named)

        return fromfile

    def _memmap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def memmap(file: Any, *args: Any, **named: Any) -> Any:
            mapped = real(file, *args, **named)
            if isinstance(getattr(file, "raw", None), _File):
                self.mine().mapped_bytes += mapped.nbytes
            return mapped

        return memmap

    def _pread(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def pread(number: int, size: int, at: int) -> bytes:
            if self.holds(number):
                self.move(size, False)
            return real(number, size, at)

        return pread


class _File(io.FileIO):
    """A file of the slow folder, below the buffers of Python."""

    storage: Storage

    def readinto(self, buffer: Any) -> int | None:
        size = super().readinto(buffer)
        self.storage.move(size or 0, False)
        return size

    def readall(self) -> bytes:
        data = super().readall()
        self.storage.move(len(data), False)
        return data

    def write(self, data: Any) -> int:
        size = super().write(data) or 0
        self.storage.move(size, True)
        return size

    def close(self) -> None:
        if not self.closed:
            self.storage._files.discard(self.fileno())
        super().close()


def host() -> int:
    """Return the host of this thread, -1 of one that stands for none."""
    return getattr(_here, "host", -1)


def be(number: int) -> None:
    """Let this thread stand for host `number`."""
    _here.host = number


def _started(real: Callable[..., None]) -> Callable[..., None]:
    def start(thread: threading.Thread) -> None:
        number, run = host(), thread.run

        def of_host() -> None:
            be(number)
            run()

        thread.run = of_host  # type: ignore[method-assign]
        real(thread)

    return start


class Messages:
    """The key-value service of a run on `storage`'s network, as `Peers` uses it; counts by host."""

    def __init__(self, storage: Storage):
        self.storage = storage
        self._values: dict[str, str] = {}

    def _sent(self, values: int) -> None:
        count = self.storage.mine()
        count.messages += 1
        count.values += values
        time.sleep(self.storage.latency / 4)

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        """Keep a value."""
        self._sent(1)
        self._values[key] = value

    def key_value_dir_get(self, prefix: str) -> list[tuple[str, str]]:
        """Return the keys with a prefix and their values."""
        found = [(key, value) for key, value in list(self._values.items()) if key.startswith(prefix)]
        self._sent(len(found))
        return found

    def key_value_delete(self, key: str) -> None:
        """Forget a value."""
        self._sent(1)
        self._values.pop(key, None)
