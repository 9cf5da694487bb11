"""The lengths table: how many tokens of each kind every usable record has, made once and cached.

record -> text tokens (tokenised), image grids (from file headers; nothing is decoded)
       -> one line of `Lengths`, or a line of its `dropped`
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import track

from eve_jax.data.chat import IMAGE_ID, encode_chat
from eve_jax.data.images import BadImage, ImageRule, image_size
from eve_jax.data.records import BadRecord, Records
from eve_jax.data.tokenizer import Tokenizer

VERSION = 1  # of the table; part of its key
HASH_BYTES = 1 << 22
ARRAYS = ("record", "text", "patches", "specials", "grids", "first_grid")


class Dropped(NamedTuple):
    """A record that is left out: `where` it stands, its `id`, the `image` at fault or "", and the `reason`."""

    where: str
    id: str
    image: str
    reason: str


@dataclass(frozen=True, eq=False)
class Lengths:
    """Token counts of the n usable records, in order. Arrays int32 [n] unless said otherwise.

    record: index into the records. text, patches, specials: tokens by kind (specials: a class token an image and a
    split token a row of patches). grids: int32 [images, 2], rows and columns of patches; those of entry i are
    grids[first_grid[i] : first_grid[i + 1]] (first_grid int64 [n + 1]). dropped: the records left out.
    """

    record: np.ndarray
    text: np.ndarray
    patches: np.ndarray
    specials: np.ndarray
    grids: np.ndarray
    first_grid: np.ndarray
    dropped: list[Dropped]

    def __len__(self) -> int:
        return len(self.record)

    def entry_grids(self, entry: int) -> list[tuple[int, int]]:
        """Rows and columns of patches (h, w) of each image of an entry."""
        rows = self.grids[self.first_grid[entry] : self.first_grid[entry + 1]]
        return [(int(h), int(w)) for h, w in rows]


def measure(
    records: Records,
    tokenizer: Tokenizer,
    rule: ImageRule,
    template: str,
    image_first: bool,
    max_tokens: int,
    cache_dir: str | Path | None = None,
) -> Lengths:
    """Measures every record; those that are malformed, lack an image or exceed `max_tokens` are in `dropped`.

    With `cache_dir` the table is kept there under the hash of all it depends on: the records files' content, the
    tokenizer and the settings, but not the image files; delete it when images were added or mended.
    """
    path = None
    if cache_dir is not None:
        settings = repr((VERSION, rule, template, image_first, max_tokens, records.images_dir, tokenizer.fingerprint()))
        path = Path(cache_dir) / f"lengths-{_content_hash(records.paths, settings)}.npz"
        if path.exists():
            return _load(path)
    lengths = _measure(records, tokenizer, rule, template, image_first, max_tokens)
    if path is not None:
        _save(path, lengths)
    return lengths


def _measure(
    records: Records, tokenizer: Tokenizer, rule: ImageRule, template: str, image_first: bool, max_tokens: int
) -> Lengths:
    size_of = lru_cache(1 << 16)(image_size)  # many records ask about the same picture
    counts: list[tuple[int, int, int, int]] = []
    images: list[int] = [0]
    grids: list[tuple[int, int]] = []
    dropped = []
    quick = len(records) < 2000
    for index in track(range(len(records)), description="measuring records", transient=True, disable=quick):
        where, id = records.where(index), ""
        try:
            record = records[index]
            id = record.id
            ids, _ = encode_chat(record.turns, tokenizer, template, len(record.images), image_first)
            own = [rule.grid(*size_of(path)) for path in record.images]
            text = int((ids != IMAGE_ID).sum())
            patches, specials = grid_tokens(own)
            if text + patches + specials > max_tokens:
                raise BadRecord(f"too long: {text + patches + specials} tokens, more than {max_tokens}")
        except BadImage as e:
            dropped.append(Dropped(where, id, e.path, e.reason))
        except BadRecord as e:
            dropped.append(Dropped(where, id or e.id, e.image, e.reason))
        else:
            counts.append((index, text, patches, specials))
            grids += own
            images.append(len(grids))
    indices, text_tokens, n_patches, n_specials = np.array(counts, np.int32).reshape(-1, 4).T.copy()
    all_grids = np.array(grids, np.int32).reshape(-1, 2)
    return Lengths(indices, text_tokens, n_patches, n_specials, all_grids, np.array(images, np.int64), dropped)


def grid_tokens(grids: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Patches and special tokens of images of `grids` (h, w): h * w and 1 + h each (EVEv2 paper, section 3.2)."""
    patches = specials = 0
    for h, w in grids:
        patches += h * w
        specials += 1 + h
    return patches, specials


def _content_hash(paths: Iterable[Path], settings: str) -> str:
    digest = hashlib.blake2b(settings.encode(), digest_size=16)
    for path in paths:
        digest.update(f"\0{path}\0".encode())
        with path.open("rb") as file:
            while block := file.read(HASH_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _save(path: Path, lengths: Lengths) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    arrays = {name: getattr(lengths, name) for name in ARRAYS}
    with part.open("wb") as file:
        np.savez(file, dropped=np.array(json.dumps(lengths.dropped)), **arrays)
    part.replace(path)


def _load(path: Path) -> Lengths:
    with np.load(path) as file:
        arrays = {name: file[name] for name in ARRAYS}
        return Lengths(**arrays, dropped=[Dropped(*line) for line in json.loads(str(file["dropped"]))])
