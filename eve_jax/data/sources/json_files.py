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
from eve_jax.data.sources.kept_index import EVERY, LEAST, Index, State, load_index, save_index
from eve_jax.errors import Field, FieldError, UserError
from eve_jax.process.compiled import njit
from eve_jax.process.places import shown
from eve_jax.process.strict_json import without_repeats

SCAN_BYTES = 1 << 20
_DECODER = json.JSONDecoder(object_pairs_hook=without_repeats)

# What the scanners remember from one block to the next.
_COUNT = 0  # records begun so far
_OPEN = 1  # 1 within a record
_LINE = 2  # lines: number of this one
_START = 3  # byte at which this line, or the last item, begins
_DEPTH, _STRING, _ESCAPED, _EXTRA = 4, 5, 6, 7  # array: brackets open, states of a text, 1 + byte after the array's end


@njit
def _scan_lines(block, base, state, starts, stops, numbers):
    """Writes begin, end and line number of the lines in `block` that are not blank; returns how many begin in it."""
    n = 0
    for i in range(len(block)):
        c = block[i]
        if c == 10:
            if state[_OPEN] and n:
                stops[n - 1] = base + i
            state[_OPEN] = 0
            state[_LINE] += 1
            state[_START] = base + i + 1
        elif not state[_OPEN] and c != 32 and c != 9 and c != 13:
            if n == len(starts):
                break
            state[_OPEN] = 1
            starts[n] = state[_START]
            numbers[n] = state[_LINE]
            n += 1
    state[_COUNT] += n
    return n


@njit
def _scan_items(block, base, state, starts, stops, numbers):
    """Writes begin, end and number of the array's items in `block`; returns how many begin in it."""
    n = 0
    for i in range(len(block)):
        c = block[i]
        if state[_STRING]:
            if state[_ESCAPED]:
                state[_ESCAPED] = 0
            elif c == 92:
                state[_ESCAPED] = 1
            elif c == 34:
                state[_STRING] = 0
            continue
        if c == 32 or c == 10 or c == 13 or c == 9:
            continue
        if state[_DEPTH] == 0:
            state[_EXTRA] = base + i + 1
            break
        ends = state[_DEPTH] == 1 and (c == 44 or c == 93 or c == 125)
        if not state[_OPEN] and not (ends and c != 44):
            if n == len(starts):
                break
            state[_OPEN] = 1
            state[_COUNT] += 1
            state[_START] = base + i
            starts[n] = base + i
            numbers[n] = state[_COUNT]
            n += 1
        if ends:
            if state[_OPEN] and n:
                stops[n - 1] = base + i
            state[_OPEN] = 0
        if c == 34:
            state[_STRING] = 1
        elif c == 91 or c == 123:
            state[_DEPTH] += 1
        elif c == 93 or c == 125:
            state[_DEPTH] -= 1
    return n


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
        state = self._state(self._first, 1)
        places, lines = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]

        def blocks() -> Iterator[bytes]:
            position = 0
            while block := os.pread(self._file, SCAN_BYTES, position):
                own = block[max(self._first - position, 0) :]
                position += len(block)
                if own:
                    skip = -int(state[_COUNT]) % EVERY
                    most = len(own) // 2 + 1  # a record has one byte at least, and one between it and the next
                    starts, _, numbers = self._scan(own, position - len(own), state, most)
                    places.append(starts[skip::EVERY].copy())
                    lines.append(numbers[skip::EVERY].copy())
                yield block

        fingerprint = digest_of(chain(map(shown, [str(self.path), self.images_dir]), blocks()))  # a block at a time
        if self._array and (state[_EXTRA] or state[_DEPTH]):
            last = f"it ends within item {state[_COUNT]}, which begins at byte {state[_START]}"
            extra = f"there is something after the array's end, at byte {state[_EXTRA] - 1}"
            raise UserError(
                f"{self.path}: not valid JSON ({extra if state[_EXTRA] else last}); "
                "fix the file, or write one record a line (JSONL)"
            )
        numbers = np.concatenate(lines)
        regular = np.array_equal(numbers, np.arange(1, 1 + EVERY * len(numbers), EVERY))
        return Index(int(state[_COUNT]), np.concatenate(places), None if regular else numbers, fingerprint)

    def _state(self, start: int, line: int) -> np.ndarray:
        state = np.zeros(8, np.int64)
        state[_START], state[_LINE], state[_DEPTH] = start, line, 1
        return state

    def _scan(self, block: bytes, base: int, state: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First byte, end and number of the first `most` records that begin in `block`; the last may end with it."""
        starts, stops = np.empty(most, np.int64), np.full(most, base + len(block))
        numbers = np.empty(most, np.int64)
        scan = _scan_items if self._array else _scan_lines
        n = scan(np.frombuffer(block, np.uint8), base, state, starts, stops, numbers)
        return starts[:n], stops[:n], numbers[:n]

    def __len__(self) -> int:
        return self._index.records

    def _read(self, index: int) -> tuple[bytes, str]:
        """The bytes of a record and its place."""
        group, own = divmod(index, EVERY)
        places = self._index.places
        start = int(places[group])
        stop = int(places[group + 1]) if group + 1 < len(places) else self._size
        block = os.pread(self._file, stop - start, start)
        starts, stops, numbers = self._scan(block, 0, self._state(0, self._index.line(group)), EVERY)
        if own >= len(starts):
            raise BadRecord("the file was changed since it was opened", f"{self.path}, record {index + 1}")
        where = f"{self.path}#{index + 1}" if self._array else f"{self.path}:{numbers[own]}"
        return block[starts[own] : stops[own]], where

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
