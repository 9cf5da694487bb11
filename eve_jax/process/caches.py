"""Where what can be made anew is kept between runs: programs of XLA and numba, matplotlib's list of fonts.

$EVE_CACHE, else eve_jax in $XDG_CACHE_HOME or ~/.cache; when that cannot be written, a temporary folder, which is said.
A run of several processes keeps programs of XLA in its work folder unless one is named (`kept_programs`).
Variables of the libraries themselves (JAX_COMPILATION_CACHE_DIR, NUMBA_CACHE_DIR, MPLCONFIGDIR) come first.
"""

import functools
import os
import stat
import sys
import tempfile
from pathlib import Path

EVE_CACHE, MPL = "EVE_CACHE", "MPLCONFIGDIR"
_DETERMINES = (EVE_CACHE, "XDG_CACHE_HOME", "HOME")
_replaced: set[str] = set()  # folders that were put into EVE_CACHE here


def cache_folder() -> Path | None:
    """Return the folder for caches, which can be written; None on a machine where nothing can be written."""
    return _found(*(os.environ.get(name, "") for name in _DETERMINES))


def is_given() -> bool:
    """Return whether the user has named a folder for caches by EVE_CACHE."""
    return os.environ.get(EVE_CACHE, "") not in ("", *_replaced)


def numba_folder() -> Path | None:
    """Return the folder for functions compiled by numba: $NUMBA_CACHE_DIR if it can be written, else one of ours."""
    given = os.environ.get("NUMBA_CACHE_DIR", "")
    if given and not unwritable(Path(given)):
        return Path(given)
    folder = cache_folder()
    return folder and folder / "numba"


def own_folder(name: str) -> Path | None:
    """Return the folder `name` for caches, made if need be; None unless it is of this user, and no other can write it.

    For what is believed when it is read again.
    """
    folder = cache_folder()
    try:
        if folder is None:
            return None
        (folder / name).mkdir(mode=0o700, exist_ok=True)
        return folder / name if _is_own(folder / name) else None
    except OSError:
        return None


def share_with_matplotlib() -> None:
    """Let matplotlib, when it is imported later, use $EVE_CACHE if that is set and no folder of its own is."""
    given = os.environ.get(EVE_CACHE)
    if given:
        os.environ.setdefault(MPL, str(_absolute(given) / "matplotlib"))


def unwritable(folder: Path) -> str:
    """Return why `folder` can be neither made nor written, "" when it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


@functools.cache
def _found(eve_cache: str, xdg_cache_home: str, home: str) -> Path | None:
    if eve_cache:
        wanted = _absolute(eve_cache)
    elif os.path.isabs(xdg_cache_home):  # others are to be ignored, as its specification says
        wanted = Path(xdg_cache_home, "eve_jax")
    else:
        wanted = _absolute("~/.cache/eve_jax")
    if wanted.parts[0] == "~":
        why = "there is no home folder"
    elif "://" in eve_cache:
        why = f"EVE_CACHE={eve_cache} is no folder of this machine"
    elif reason := unwritable(wanted):
        why = f"{wanted} cannot be written ({reason})"
    else:
        return wanted
    folder = _temporary()
    what = "compiled programs and copies of remote files"
    kept = f"{what} are kept in {folder}" if folder else f"{what} are not kept"
    print(f"{why}: {kept}; EVE_CACHE=FOLDER names another place", file=sys.stderr, flush=True)
    if folder:  # for processes started from here, and for matplotlib
        os.environ[EVE_CACHE] = str(folder)
        _replaced.add(str(folder))
        if os.environ.get(MPL, "") in ("", str(wanted / "matplotlib")):
            os.environ[MPL] = str(folder / "matplotlib")
    return folder


def _absolute(path: str) -> Path:
    """Return `path` with ~ replaced, absolute; it begins with ~ where there is no home folder."""
    path = os.path.expanduser(path)
    return Path(path) if path.startswith("~") else Path(path).absolute()


def _temporary() -> Path | None:
    """Return this user's folder for caches among the temporary files; a new one if another user could write it."""
    try:
        folder = Path(tempfile.gettempdir(), f"eve_jax-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        if _is_own(folder):
            return folder
    except FileExistsError:
        pass
    except OSError:
        return None
    return Path(tempfile.mkdtemp(prefix="eve_jax-"))


def _is_own(folder: Path) -> bool:
    """Return whether `folder` is one, of this user, that no other can write. Raises OSError."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
