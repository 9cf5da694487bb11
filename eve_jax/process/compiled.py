"""Functions compiled by numba, kept between runs in a cache that may be damaged, read-only or missing.

numba takes a sixth of a second to import, so it is imported when the first of them is called.
"""

from collections.abc import Callable
from functools import update_wrapper
from threading import RLock
from typing import Any

_one_at_a_time = RLock()


class njit:
    """A function that numba compiles at its first call, without the GIL; compiled code is kept on disk.

    It may call others, which its module has under their names. numba itself refuses to import a module whose cache
    cannot be written, and raises EOFError when it is damaged.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self._compiled: Any = None
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function returns."""
        return (self._compiled or self.compiled())(*arguments)

    def compiled(self) -> Any:
        """Return numba's function, in which others that it calls are numba's as well."""
        with _one_at_a_time:
            if self._compiled is None:
                from eve_jax.process.compiled_cache import compile_cached

                names = self.function.__globals__
                called = {n: names[n] for n in self.function.__code__.co_names if isinstance(names.get(n), njit)}
                names.update({name: one.compiled() for name, one in called.items() if one is not self})
                self._compiled = compile_cached(self.function)
        return self._compiled
