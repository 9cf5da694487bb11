"""Memory of the host: what is freed stays with a process that computes, in large pages; with others it does not.

XLA's CPU backend takes the temporaries of a program from `malloc` at each call. glibc gives large blocks back to the
system when they are freed, which then zeroes them again, page by page, at the next call: up to a quarter of a step's
time. But kept blocks leave holes that later ones do not fit, so that a process comes to hold up to three times what its
programs need: memory is kept where there is much more of it.
"""

import ctypes
import functools
import importlib.util
import os
import sys
from pathlib import Path

ACCELERATORS = ("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin")  # modules that bring JAX another backend
# of <malloc.h> and <sys/mman.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
_GIVES_BACK = ((_MMAP_MAX, 1 << 16), (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 128 << 10))
_MADV_HUGEPAGE = 14
_ABOVE = 4096
_LIMIT = Path("/sys/fs/cgroup/memory.max")  # bytes, or "max"
LITTLE = 1 / 16  # of the machine's memory: the most that programs may need where freed memory is kept
RESERVED = 0.5  # of the machine's memory: addresses only, memory is taken when it is first used
_keeps = False


def _on_cpu() -> bool:
    """Whether JAX will compute on the CPU, as far as can be told before it looks for devices."""
    wanted = os.environ.get("JAX_PLATFORMS")
    return wanted == "cpu" or not (wanted or any(map(importlib.util.find_spec, ACCELERATORS)))


@functools.cache
def keep_freed() -> bool:
    """On a Linux machine with glibc whose CPU JAX will compute on: keep freed memory, in large pages. True if done.

    To be called before JAX starts its threads, each of which would have a heap of its own otherwise.
    """
    global _keeps
    if not sys.platform.startswith("linux") or not _on_cpu():
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1)):
        libc.mallopt(option, value)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = int(RESERVED * machine_memory())
    reserve = libc.malloc(size)  # the heap grows by it; a refusal (NULL) leaves the heap as it is
    libc.malloc(_ABOVE)  # never freed: what is below the heap's last block outlives malloc_trim, which protobuf calls
    libc.free(reserve)
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith("[heap]"):
            start, end = (int(address, 16) for address in line.split()[0].split("-"))
            libc.madvise(start, end - start, _MADV_HUGEPAGE)
    _keeps = True
    return True


def return_freed() -> None:
    """Have Arrow allocate with malloc, where it keeps some 100 MB of free memory otherwise (by mimalloc, jemalloc).

    To be called before pyarrow is imported.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def settle(needed: int) -> None:
    """Give back what was freed so far, such as what compiling took; a program that needs `needed` bytes is to run now.

    Where that is more than LITTLE of the machine's memory, what is freed later is given back as well. Nothing is done
    where `keep_freed` did nothing.
    """
    if not _keeps:
        return
    libc = ctypes.CDLL(None)
    if needed > LITTLE * machine_memory():
        for option, value in _GIVES_BACK:
            libc.mallopt(option, value)
    libc.malloc_trim(0)


def machine_memory(limit: Path = _LIMIT) -> int:
    """Return the bytes of the machine's memory. limit: the file that says how much of it a container gets."""
    all_of_it = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(all_of_it, int(limit.read_text()))
    except (OSError, ValueError):  # no such container, or "max"
        return all_of_it
