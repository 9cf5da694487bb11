"""LLaVA's own files: one JSON array, or a record a line (JSONL); images lie in a folder next to them.

A file is read once to note where every `EVERY`-th record begins, half a byte a record, and to hash its content; a
record is then read and parsed when asked for, so that neither time nor memory depends on how many there are, and a
broken one leaves the others alone. Both are kept (`kept_index`): a large file is read once for all starts and hosts.
"""

import json
import os
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.data.record import BOM, BadRecord, Fields, Record, digest_of
from eve_jax.data.sources.fields import Place, read_record
from eve_jax.data.sources.json_scan import COUNT, DEPTH, EXTRA, START, begin, nth_line, scan_lines
from eve_jax.data.sources.kept_index import EVERY, LEAST, Index, State, load_index, save_index
from eve_jax.errors import Field, FieldError, UserError
from eve_jax.process.places import shown
from eve_jax.process.strict_json import without_repeats

SCAN_BYTES = 1 << 20
_DECODER = json.JSONDecoder(object_pairs_hook=without_repeats)


def _scan_items(block: bytes, base: int, state: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from eve_jax.data.sources.json_items import scan_items  # of arrays alone: imports numba, which takes long

    return scan_items(block, base, state, most)


class JsonFile:
    """The records of a JSON or JSONL file, see `base.Source`; image paths are relative to `images_dir`.

    index: a folder where its index may be kept, see `keep_index`.
    """

    tables: Path | None = None
    form = ""  # of `eve_jax.data.sources.forms`, that alone is read
    texts = True  # False also reads records without texts

    def __init__(self, path: str | Path, images_dir: str | Path = "", index: Path | None = None) -> None:
        self.path, self.images_dir = Path(path), str(images_dir)
        self._beside = str(self.path.parent)
        if not self.path.is_file():
            raise FieldError(f"{path}: no such records file; set ", Field("data.records"), " to files that exist")
        try:
            self._file = os.open(path, os.O_RDONLY)  # never closed: shared by the threads through os.pread
            self._known = State.of(self._file, str(self.path), self.images_dir)
            head = os.pread(self._file, 4096, 0)
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror})") from None
        self._size = self._known.size
        text = head.removeprefix(BOM).lstrip()
        self._array = text.startswith(b"[")
        self._first = len(head) - len(text) + 1 if self._array else len(head) - len(head.removeprefix(BOM))
        kept = load_index(index, self._known, self._file) if index else None
        self._keep_in = index if kept is None and self._size >= LEAST and index and self._known.settle() else None
        self._index = kept or self._scanned()

    def keep_index(self) -> None:
        """Keep the index in the folder that was given, unless the file is small, or was written since it was opened."""
        if self._keep_in and State.of(self._file, str(self.path), self.images_dir) == self._known:
            save_index(self._keep_in, self._known, self._file, self._index)
        self._keep_in = None

    def _scanned(self) -> Index:
        """Return the index, for which the file is read once."""
        state = begin(self._first, 1)
        places, lines = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]

        def blocks() -> Iterator[bytes]:
            position = 0
            while block := os.pread(self._file, SCAN_BYTES, position):
                own = block[max(self._first - position, 0) :]
                position += len(block)
                if own:
                    skip = -int(state[COUNT]) % EVERY
                    starts, numbers = self._begins(own, position - len(own), state)
                    places.append(starts[skip::EVERY].copy())
                    lines.append(numbers[skip::EVERY].copy())
                yield block

        fingerprint = digest_of(chain(map(shown, [str(self.path), self.images_dir]), blocks()))  # a block at a time
        if self._array and (state[EXTRA] or state[DEPTH]):
            last = f"it ends within item {state[COUNT]}, which begins at byte {state[START]}"
            extra = f"there is something after the array's end, at byte {state[EXTRA] - 1}"
            raise UserError(
                f"{self.path}: not valid JSON ({extra if state[EXTRA] else last}); "
                "fix the file, or write one record a line (JSONL)"
            )
        numbers = np.concatenate(lines)
        regular = np.array_equal(numbers, np.arange(1, 1 + EVERY * len(numbers), EVERY))
        return Index(int(state[COUNT]), np.concatenate(places), None if regular else numbers, fingerprint)

    def _begins(self, block: bytes, base: int, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First byte and number of the records that begin in `block`, which begins at byte `base`."""
        if not self._array:
            return scan_lines(block, base, state)
        most = len(block) // 2 + 1  # an item has one byte at least, and one between it and the next
        starts, _, numbers = _scan_items(block, base, state, most)
        return starts, numbers

    def __len__(self) -> int:
        return self._index.records

    def _read(self, index: int) -> tuple[bytes, str]:
        """The bytes of a record and its place."""
        group, own = divmod(index, EVERY)
        places = self._index.places
        start = int(places[group])
        stop = int(places[group + 1]) if group + 1 < len(places) else self._size
        block = os.pread(self._file, stop - start, start)
        if not self._array:
            line = nth_line(block, own)
            if line is not None:
                return line[0], f"{self.path}:{self._index.line(group) + line[1]}"
        else:
            starts, stops, _ = _scan_items(block, 0, begin(0, 1), EVERY)
            if own < len(starts):
                return block[starts[own] : stops[own]], f"{self.path}#{index + 1}"
        raise BadRecord("the file was changed since it was opened", f"{self.path}, record {index + 1}")

    def where(self, index: int) -> str:
        """file:line (JSONL) or file#number (JSON array), from 1."""
        return self._read(index)[1]

    def read(self, index: int) -> tuple[Record, Fields]:
        """Return the record, parsed, and its fields. Raises `BadRecord`."""
        data, where = self._read(index)
        place = Place(where, where.rpartition("/")[2], self.images_dir, self._beside, form=self.form, texts=self.texts)
        return read_record(parse_json(data, where), place)

    def fingerprint(self) -> str:
        """Hash of the file's content when it was opened, its path, that of the images and the form chosen."""
        kept = self._index.fingerprint
        return digest_of([kept, self.form]) if self.form else kept


def parse_json(data: bytes, where: str) -> Any:
    """The JSON value in `data`. Raises `BadRecord`, with the id if one can be made out."""
    text = data.removeprefix(BOM).decode(
        "utf-8", "surrogateescape"
    )  # a bad byte is reported with the record's id, by `text_of`
    try:
        return _DECODER.decode(text)
    except ValueError as e:
        found = re.search(r'"id"\s*:\s*"?([^",}]*)', text)
        id = found.group(1).encode("utf-8", "replace").decode() if found else ""
        after = text[e.pos] if isinstance(e, json.JSONDecodeError) and e.msg == "Extra data" else ""
        why = {"{": "several objects on one line; write one a line", ",": "a comma after the object; remove it"}
        raise BadRecord(f"not valid JSON ({why.get(after, e)})", where, id) from None
    except RecursionError:
        raise BadRecord("not valid JSON (nested too deeply)", where) from None
