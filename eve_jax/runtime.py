"""Process-wide settings of JAX, made once by every launcher."""

import os
from pathlib import Path

import jax

from eve_jax import host_memory
from eve_jax.train import interrupt


def setup(computes: bool = False) -> None:
    """Called by every launcher after its imports, with `computes` by those that run a model. Ctrl-C works from here on.

    Keep compiled programs in $EVE_CACHE or ~/.cache/eve_jax, so that a second start compiles nothing.
    """
    interrupt.ready()
    if computes:
        host_memory.keep_freed()
    cache = Path(os.environ.get("EVE_CACHE", Path.home() / ".cache" / "eve_jax")) / "xla"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
