"""Sizes and checksums of a checkpoint's files: written into it before it takes its name, checked before it is used.

STEP/manifest.json is {"files": {path below STEP: [bytes, BLAKE2b of 16 bytes as hex]}}, of the files of all items.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from eve_jax.errors import UserError, shorten
from eve_jax.process.files import read_json, write_atomically
from eve_jax.process.progress import spinner

MANIFEST = "manifest.json"
_BLOCK = 1 << 22
_SHOWN = 2 << 30  # bytes whose checking is announced


def write_manifest(step: Path) -> None:
    """Write `step`/manifest.json over the files in the folders of `step`; whole or not at all. Raises OSError."""
    paths = sorted(p for item in step.iterdir() if item.is_dir() for p in item.rglob("*") if p.is_file())
    with ThreadPoolExecutor(_workers()) as pool:
        sums = pool.map(_checksum, paths)
        files = {str(p.relative_to(step)): [p.stat().st_size, s] for p, s in zip(paths, sums, strict=True)}
    write_atomically(step / MANIFEST, json.dumps({"files": files}, indent=0))


def has_manifest(step: Path) -> bool:
    """False for a checkpoint of before manifests, or one that came by another way."""
    return (step / MANIFEST).is_file()


def damage(step: Path, items: Sequence[str] = (), contents: bool = True) -> str:
    """What is wrong with the checkpoint folder `step`, naming a file; "" when nothing is.

    Only of `items` if given; without `contents`, checksums are left out. A checkpoint without a manifest is only
    looked at: its parameters must be there.
    """
    if not (step / "params").is_dir():
        return f"{step} has no folder params"
    if not has_manifest(step):
        return ""
    try:
        files = read_json(step / MANIFEST)["files"]
        known = {PurePosixPath(name): (size, checksum) for name, (size, checksum) in files.items()}
    except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{step / MANIFEST} cannot be read ({shorten(str(error))})"
    outside = next((path for path in known if not path.parts or path.is_absolute() or ".." in path.parts), None)
    if outside is not None:
        return f"{step / MANIFEST} names {shorten(repr(str(outside)))}, which is no file of a checkpoint"
    if not any(path.parts[0] == "params" for path in known):
        return f"{step / MANIFEST} names no file of params"
    mine = [(step / path, *known[path]) for path in known if not items or path.parts[0] in items]
    for path, size, _ in mine:
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size} bytes instead of {size}"
    return _changed(step, mine) if contents else ""


def _changed(step: Path, files: Sequence[tuple[Path, int, str]]) -> str:
    total = sum(size for _, size, _ in files)
    note = f"checking {step} ({total / 1e9:.1f} GB)"
    with spinner(note, off=total <= _SHOWN), ThreadPoolExecutor(_workers()) as pool:
        try:
            sums = pool.map(_checksum, [path for path, _, _ in files])
            wrong = [path for (path, _, checksum), s in zip(files, sums, strict=True) if s != checksum]
        except OSError as error:
            return f"{error.filename} cannot be read ({error.strerror})"
    return f"{wrong[0]} holds other bytes than were written" if wrong else ""


def _checksum(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _workers() -> int:
    return min(8, os.cpu_count() or 1)
