"""Process-wide settings of JAX, made once by every launcher."""

import os

import jax

from eve_jax.process import caches, host_memory, interrupt, kept_programs, xla_flags
from eve_jax.process.hush import hush_loops


def setup(computes: bool = False) -> None:
    """Called by every launcher after its imports, with `computes` by those that run a model. Ctrl-C works from here on.

    Keep compiled programs (`eve_jax.process.caches`), so that a second start compiles nothing. What JAX's own variables
    in the environment say is left as it is.
    """
    interrupt.ready()
    hush_loops()
    if computes:
        host_memory.keep_freed()
        xla_flags.prepare()
    keep_programs()


def keep_programs() -> None:
    """Let JAX keep what it compiles in the folder for that, but for what its variables in the environment say."""
    kept_programs.write_whole_files()
    folder = caches.cache_folder()
    settings = {
        "jax_compilation_cache_dir": folder and str(folder / "xla"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)


def keep_programs_of_library() -> None:
    """`keep_programs` in a process that is not ours, where nothing was said of where programs are kept, or whether."""
    said = jax.config.values
    if said["jax_compilation_cache_dir"] is None and said["jax_enable_compilation_cache"]:
        keep_programs()
