"""Process-wide settings of JAX, made once by every launcher."""

import os
from collections.abc import Set
from pathlib import Path

import jax

from eve_jax.errors import UserError
from eve_jax.process import caches, host_memory, interrupt, kept_programs, xla_flags
from eve_jax.process.checks import of_type
from eve_jax.process.hush import hush_loops
from eve_jax.process.kept_programs import DIRECTORY
from eve_jax.process.paths import expand

ENABLED = "jax_enable_compilation_cache"
# Of what is compiled, JAX keeps that which took a second; with ours, everything: its default, and ours.
_KEPT = {
    "jax_persistent_cache_min_compile_time_secs": (1.0, 0.0),
    "jax_persistent_cache_min_entry_size_bytes": (0, -1),
}


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
    folder = caches.cache_folder()
    _keep_in(folder and folder / "xla", {name for name in (DIRECTORY, *_KEPT) if name.upper() in os.environ})


def keep_programs_of_library(cache: bool | str | Path) -> None:
    """Let JAX keep what it compiles in a process that is not ours, where `cache` asks for it.

    cache: False changes nothing. True is the folder of the commands, where the process itself has said nothing of
    where programs are kept, or whether. A path is a folder for them, in which JAX's files lie. Other settings of JAX's
    cache that the process has made stay. Raises UserError for a path that cannot be used, or not in this process.
    """
    of_type("cache", cache, "True, False, or the path of a folder", bool, str, Path)
    said = jax.config.values
    if cache is True and said[DIRECTORY] is None and said[ENABLED]:
        folder = caches.cache_folder()
        _keep_of_library(folder and folder / "xla")
    elif not isinstance(cache, bool):
        folder = Path(expand(cache, "cache")).absolute()
        if not said[ENABLED]:
            raise UserError(f"cache={cache}: this process keeps no compiled programs, since {ENABLED} is off")
        if said[DIRECTORY] is not None and Path(said[DIRECTORY]).absolute() != folder:
            raise UserError(
                f"cache={cache}: this process keeps compiled programs in {said[DIRECTORY]} ({DIRECTORY}) already; "
                "leave cache out"
            )
        if why := caches.unwritable(folder):
            raise UserError(f"cache={cache}: the folder cannot be written ({why})")
        if said[DIRECTORY] is None:
            _keep_of_library(folder)


def _keep_of_library(folder: Path | None) -> None:
    said = jax.config.values
    _keep_in(
        folder, {name for name, (by_jax, _) in _KEPT.items() if said[name] != by_jax or name.upper() in os.environ}
    )


def _keep_in(folder: Path | None, stay: Set[str]) -> None:
    """Let JAX keep all that it compiles in `folder`, None for nowhere, but leave its settings `stay` alone."""
    kept_programs.write_whole_files()
    for name, value in {DIRECTORY: folder and str(folder), **{name: ours for name, (_, ours) in _KEPT.items()}}.items():
        if name not in stay:
            jax.config.update(name, value)
