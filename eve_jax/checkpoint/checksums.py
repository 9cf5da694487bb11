"""Sizes and checksums of a checkpoint's files: written into it before it takes its name, checked before it is used.

STEP/manifest.json is {"files": {path below STEP: [bytes, BLAKE2b of 16 bytes as hex]}}, of the files of all items.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath

from eve_jax.errors import UserError, shorten
from eve_jax.process.beats import beat
from eve_jax.process.fetched import writer_of
from eve_jax.process.files import read_json, write_atomically
from eve_jax.process.progress import spinner

MANIFEST = "manifest.json"
_BLOCK = 1 << 22
_SHOWN = 2 << 30  # bytes whose checking is announced


Sum = tuple[int, str]  # bytes and BLAKE2b of a file


def sums(step: Path, share: tuple[int, int] = (0, 1)) -> dict[str, Sum]:
    """Return the sums of the files in the folders of `step`, by path. Raises OSError.

    share: (number, count) of the process whose files they are to be; it looks into no folder of another.
    """
    return sums_of(step, sorted(str(path.relative_to(step)) for path in _files(step, step, share)))


def sums_of(step: Path, names: Sequence[str]) -> dict[str, Sum]:
    """Return the sums of the files `names` below `step`, by name. Raises OSError."""
    paths = [step / name for name in names]
    with ThreadPoolExecutor(_workers()) as pool:
        digests = list(pool.map(_checksum, paths))
    return {n: (p.stat().st_size, d) for n, p, d in zip(names, paths, digests, strict=True)}


def _files(step: Path, folder: Path, share: tuple[int, int]) -> Iterator[Path]:
    """The files in `folder` (but not those next to the items of `step`) and below that a process of `share` wrote."""
    number, count = share
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            process = writer_of(path.relative_to(step).as_posix())
            if entry.is_dir():
                if process is None or process % count == number:
                    yield from _files(step, path, share)
            elif folder != step and (process or 0) % count == number:
                yield path


def write_manifest(step: Path, files: Mapping[str, Sum] | None = None) -> None:
    """Write `step`/manifest.json of `files`, or of all in its folders; whole or not at all. Raises OSError."""
    files = sums(step) if files is None else files
    write_atomically(step / MANIFEST, json.dumps({"files": dict(sorted(files.items()))}, indent=0))


def has_manifest(step: Path) -> bool:
    """False for a checkpoint of before manifests, or one that came by another way."""
    return (step / MANIFEST).is_file()


def damage(
    step: Path,
    items: Sequence[str] = (),
    contents: bool = True,
    share: tuple[int, int] = (0, 1),
    needed: str = "params",
) -> str:
    """What is wrong with the checkpoint folder `step`, naming a file; "" when nothing is.

    Only of `items` if given; without `contents`, checksums are left out. share: (number, count) of the process that
    looks at what it wrote, and every `count`-th process's after it. A checkpoint without a manifest is only looked at:
    its item `needed` must be there.
    """
    if pipe := pipe_in(step):
        return f"{pipe} is a pipe or a device, not a file"
    if not (step / needed).is_dir():
        return f"{step} has no folder {needed}"
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
    if not any(path.parts[0] == needed for path in known):
        return f"{step / MANIFEST} names no file of {needed}"
    number, count = share
    wanted = [p for p in known if (not items or p.parts[0] in items) and (writer_of(str(p)) or 0) % count == number]
    mine = [(step / path, *known[path]) for path in wanted]
    for path, size, _ in mine:
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size} bytes instead of {size}"
    return _changed(step, mine) if contents else ""


def pipe_in(step: Path) -> Path | None:
    """Return what is a pipe or a device of the checkpoint `step`, or of its items: Orbax would wait for it for ever."""
    for folder in (step, *(path for path in step.glob("*") if path.is_dir())):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_file() and not entry.is_dir() and os.path.exists(entry.path):
                    return Path(entry.path)
    return None


def refuse_pipes(step: Path) -> None:
    """Raise UserError for `pipe_in`, before Orbax reads the checkpoint `step`."""
    if pipe := pipe_in(step):
        raise UserError(f"{pipe} is a pipe or a device, not a file: remove it, or the checkpoint {step.name}")


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
    beat()
    return digest.hexdigest()


def _workers() -> int:
    return min(8, os.cpu_count() or 1)
