"""numba's cache of compiled functions, made safe. A module of its own: numba takes a while and 70 MB to import."""

import contextlib
import hashlib
import pickle
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

from eve_jax.process.caches import numba_folder

_DIGEST = 16  # bytes before the data of a file


def compile_cached(function: Callable[..., Any]) -> Any:
    """Return numba's function of `function`, which is compiled, or read from the cache, when it is called."""
    compiled: Any = numba.njit(nogil=True)(function)
    config: Any = numba.config
    folder = numba_folder()
    if folder is not None:
        before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
        try:
            compiled._cache = _Cache(function)
        except RuntimeError:  # the folder can no longer be written: nothing is kept
            pass
        finally:
            config.CACHE_DIR = before
    return compiled


class _Cache(FunctionCache):
    """The cache of a function; what cannot be read is compiled again, what cannot be written is not kept."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__(function)
        source = self._impl.locator.get_source_stamp()
        self._cache_file = _CacheFile(self._cache_path, self._impl.filename_base, source)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function if that is possible."""
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


class _CacheFile(IndexDataCacheFile):
    """Files of compiled functions with a digest before the data: machine code that was damaged must not be run."""

    def _load_index(self) -> dict[Any, str]:
        try:
            return super()._load_index()
        except Exception:  # unpickling bytes that are damaged raises anything
            return {}

    def _load_data(self, name: str) -> Any:
        with open(self._data_path(name), "rb") as file:
            digest, data = file.read(_DIGEST), file.read()
        if digest != _digest(data):
            raise OSError(f"{name} is damaged")  # which numba takes for a file that is gone
        return pickle.loads(data)

    def _save_data(self, name: str, data: Any) -> None:
        dumped = self._dump(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(_digest(dumped) + dumped)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()
