"""Programs of XLA kept on disk by every process of a run, so that a second start compiles nothing on any host.

JAX keeps what it compiles on process 0 alone, whose folder the other hosts may not see, and writes it in place, so that
a kill leaves half a file for good. Here each process keeps what it compiled, whole or not at all; in a folder that all
see, a program that all compile under one key (its name on disk; on CPUs they differ) is written by process 0 alone.
"""

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache, compiler  # what decides who writes has no public name

from eve_jax.process import caches
from eve_jax.process.files import write_atomically
from eve_jax.process.peers import Peers

FOLDER = "cache"  # of a run of several processes, below its work folder
PROGRAMS = "programs/"  # keys of what process 0 compiles and writes, as values of the peers
DIRECTORY = "jax_compilation_cache_dir"
# Other versions of JAX may do it otherwise, and then as they like.
_Folder: Any = getattr(compilation_cache, "LRUCache", object)
_compile = getattr(compiler, "_compile_and_write_cache", None)


class _WholeFiles(_Folder):
    """JAX's folder of programs, whose files are complete; one that could not be read is replaced."""

    def put(self, key: str, value: bytes) -> None:
        """Keep `value`, which no file of `key` could give."""
        if self.eviction_enabled:
            super().put(key, value)
        else:
            write_atomically(Path(str(self.path)) / f"{key}-cache", value)


def write_whole_files() -> None:
    """Let JAX write programs under another name first; before anything is compiled."""
    if _Folder is not object:
        compilation_cache.LRUCache = _WholeFiles  # type: ignore[misc]


def keep_everywhere(workdir: Path, peers: Peers) -> None:
    """Keep the programs of this process of a run, in $EVE_CACHE or, where none is set, in `workdir`/cache of all hosts.

    To be called by every process before anything is compiled. Without a folder, nothing is kept.
    """
    if not caches.is_given() and DIRECTORY.upper() not in os.environ:
        folder = workdir / FOLDER / "xla"
        if not any(peers.gather("cache", caches.unwritable(folder))):
            jax.config.update(DIRECTORY, str(folder.absolute()))
    kept = jax.config.values[DIRECTORY]
    shared = _seen_by_all(Path(kept) if kept else None, peers)
    if kept and _compile is None and peers.index == 0:
        print("this JAX keeps programs on process 0 alone: the other hosts compile at every start", file=sys.stderr)
    elif kept and _compile is not None:
        compiler._compile_and_write_cache = _Writer(_compile, peers, shared)  # type: ignore[assignment]


def _seen_by_all(folder: Path | None, peers: Peers) -> bool:
    """Whether all processes see the folder in which process 0 keeps its programs as theirs."""
    mark = f".process0-{secrets.token_hex(8)}"
    if peers.index == 0 and folder is not None and not caches.unwritable(folder):
        (folder / mark).touch()
    mark = peers.gather("cache mark", mark)[0]
    seen = peers.gather("cache seen", "yes" if folder is not None and (folder / mark).exists() else "")
    if peers.index == 0 and folder is not None:
        (folder / mark).unlink(missing_ok=True)
    return all(seen)


class _Writer:
    """Compiles as JAX does, and keeps programs also in processes that JAX itself keeps none in."""

    def __init__(self, compile: Callable[..., Any], peers: Peers, shared: bool):
        self.compile, self.peers, self.shared = compile, peers, shared

    def __call__(
        self,
        backend: Any,
        computation: Any,
        devices: Any,
        options: Any,
        callbacks: Any,
        name: str,
        key: str,
    ) -> Any:
        """Return the program that JAX compiles from `computation`, kept under `key`."""
        if not self.peers.index:
            if self.shared:
                self.peers.put(f"{PROGRAMS}{key}", "")
            return self.compile(backend, computation, devices, options, callbacks, name, key)
        began = time.monotonic()
        executable = self.compile(backend, computation, devices, options, callbacks, name, key)
        if not callbacks and not (self.shared and key in self.peers.found(PROGRAMS)):
            with contextlib.suppress(OSError):  # what cannot be kept is compiled again
                seconds = int(time.monotonic() - began)
                compilation_cache.put_executable_and_time(key, name, executable, backend, seconds)
        return executable
