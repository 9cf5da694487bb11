"""What the extras `curate` and `experts` take of a disk: the sizes of the files of their packages as installed here."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from eve_jax.errors import install

PROJECT, EXTRA, EXPERTS, ENGINE, MOST_MB = "eve-jax", "curate", "experts", "daft", 450.0


def installed() -> dict[str, Any]:
    """Return the MB of the native engine with all that it requires, and those that `.[curate]` adds to what the project
    requires, both held to MOST_MB; and those that `.[experts]` adds to that.
    """
    extras = f"{EXTRA},{EXPERTS}"
    try:
        base = _required(PROJECT, "")
        engine = {ENGINE, *_required(ENGINE, "")}
        added = _required(PROJECT, EXTRA) - base
        experts = _required(PROJECT, EXPERTS) - base - added
        sizes = {name: _size(name) for name in engine | added | experts}
    except PackageNotFoundError as error:
        return {"error": f"{error} is not installed: {install(extras)}", "holds": False}
    if not added or not experts:
        return {"error": f"the installed project lacks an extra: {install(extras)}", "holds": False}
    mb = [sum(sizes[name] for name in names) for names in (engine, engine | added, added, experts)]
    return {
        "engine_packages": len(engine),
        "engine_mb": round(mb[0]),
        "engine_and_extra_mb": round(mb[1]),
        "extra_packages": len(added),
        "extra_mb": round(mb[2]),
        "experts_packages": len(experts),
        "experts_mb": round(mb[3]),
        "largest": {name: round(sizes[name]) for name in sorted(sizes, key=lambda name: -sizes[name])[:5]},
        "holds": mb[1] <= MOST_MB,
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
