"""What the extra `curate` adds to an installation: the sizes of the files of its packages, where they are installed."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from eve_jax.errors import install

PROJECT, EXTRA, MOST_MB = "eve-jax", "curate", 450.0


def installed() -> dict[str, Any]:
    """Return the MB of the packages that `.[curate]` requires and the project alone does not."""
    try:
        added = _required(PROJECT, EXTRA).keys() - _required(PROJECT, "").keys()
        sizes = {name: _size(name) for name in added}
    except PackageNotFoundError as error:
        return {"error": f"{error} is not installed: {install(EXTRA)}", "holds": False}
    if not added:
        return {"error": f"the installed project has no extra {EXTRA}: {install(EXTRA)}", "holds": False}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:4]
    total = sum(sizes.values())
    return {
        "packages": len(added),
        "mb": round(total),
        "largest": {name: round(sizes[name]) for name in largest},
        "holds": total <= MOST_MB,
    }


def _required(name: str, extra: str) -> dict[str, None]:
    """Return the packages that `name[extra]` requires here, and those that these require."""
    found: dict[str, None] = {}
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
            found[other] = None
            left += [(other, more) for more in ("", *wanted.extras)]
    return found


def _size(name: str) -> float:
    """Return the MB of a package's files. Raises PackageNotFoundError, which names it, where it is not installed."""
    files = distribution(name).files
    if files is None:
        raise PackageNotFoundError(name)
    places = (Path(file.locate()) for file in files)
    return sum(place.stat().st_size for place in places if place.is_file()) / 1e6
