"""The reference files of tests/golden/eval, and the comparison that they are reproduced by."""

import json
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

ARCHIVE = Path(__file__).parents[1] / "golden" / "eval" / "goldens.tar.xz"


@cache
def _files() -> dict[str, str]:
    with tarfile.open(ARCHIVE) as archive:
        members = {name: archive.extractfile(name) for name in archive.getnames()}
        return {name.removesuffix(".json"): file.read().decode() for name, file in members.items() if file}


NAMES = sorted(name for name in _files() if name != "schemas")


def golden(name: str) -> dict[str, Any]:
    """Return the reference file `BENCHMARK.PROTOCOL`, anew."""
    return json.loads(_files()[name])


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Return where two JSON values differ; numbers may by 1e-9."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        return [line for key in expected for line in differences(expected[key], found[key], f"{where}.{key}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for number, (one, other) in pairs for line in differences(one, other, f"{where}[{number}]")]
    if isinstance(expected, int | float) and isinstance(found, int | float):
        same = abs(expected - found) <= 1e-9
    else:
        same = expected == found
    return [] if same else [f"{where}: {expected!r} expected, {found!r} found"]
