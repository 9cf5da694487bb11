"""What the engine and the extra `curate` take of a disk: the sizes of the files of their packages as installed here."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from eve_jax.errors import install

PROJECT, EXTRA, ENGINE, MOST_MB = "eve-jax", "curate", "daft", 450.0


def installed() -> dict[str, Any]:
    """Return the MB of the native engine with all that it requires, which is what is held to MOST_MB, and those that
    `.[curate]`, with its experts, adds to what the project requires.
    """
    try:
        engine = {ENGINE, *_required(ENGINE, "")}
        added = _required(PROJECT, EXTRA) - _required(PROJECT, "")
        sizes = {name: _size(name) for name in engine | added}
    except PackageNotFoundError as error:
        return {"error": f"{error} is not installed: {install(EXTRA)}", "holds": False}
    if not added:
        return {"error": f"the installed project has no extra {EXTRA}: {install(EXTRA)}", "holds": False}
    engine_mb, added_mb = (sum(sizes[name] for name in names) for names in (engine, added))
    return {
        "engine_packages": len(engine),
        "engine_mb": round(engine_mb),
        "extra_packages": len(added),
        "extra_mb": round(added_mb),
        "largest": {name: round(sizes[name]) for name in sorted(sizes, key=lambda name: -sizes[name])[:5]},
        "holds": engine_mb <= MOST_MB,
    }


def _required(name: str, extra: str) -> set[str]:
    """Return the packages that `name[extra]` requires here, and those that these require."""
    found: set[str] = set()
    left = [(name, extra)]
    seen = set()
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        for text in distribution(one[0]).requires or ():
            wanted = Requirement(text)
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": one[1]}):
                continue
            other = canonicalize_name(wanted.name)
            found.add(other)
            left += [(other, more) for more in ("", *wanted.extras)]
    return found


def _size(name: str) -> float:
    """Return the MB of a package's files. Raises PackageNotFoundError, which names it, where it is not installed."""
    files = distribution(name).files
    if files is None:
        raise PackageNotFoundError(name)
    places = (Path(file.locate()) for file in files)
    return sum(place.stat().st_size for place in places if place.is_file()) / 1e6
