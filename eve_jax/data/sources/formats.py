"""What a file of records is by its first bytes, where it is not what it is read as: one line says what to do."""

import os
import re
from pathlib import Path

from eve_jax.data.record import BOM
from eve_jax.data.sources.forms import CAPTIONS, PAIRS, QUERY, QUESTION, TALKS
from eve_jax.data.sources.media import kind_of_bytes
from eve_jax.errors import UserError, shorten

HEAD = 4096
PACKED = {
    **{b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"},
    **{b"PK\3\4": "zip", b"7z\xbc\xaf\x27\x1c": "7z", b"\x04\x22\x4d\x18": "lz4"},
}
PACKED_SUFFIXES = (".gz", ".tgz", ".zip", ".zst", ".bz2", ".xz", ".7z", ".lz4")
OTHERS = {
    b"PAR1": "a Parquet file; give it the ending .parquet",
    b"ARROW1": "an Arrow file; write it as Parquet",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; fetch it with git lfs pull",
    b"SQLite format 3": "an SQLite database; write its records as JSON, one a line",
    b"\x93NUMPY": "a NumPy array; write the records as JSON, one a line",
    **dict.fromkeys((b"\x80\4", b"\x80\5"), "a pickle; write the records as JSON, one a line"),
}
UTF_16 = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
ARRAY = "records are a JSON array, or JSON objects, one a line (JSONL)"


def check_format(path: Path) -> None:
    """Raise `UserError` for a file that is compressed or of another format than its name says. Reads its first bytes.

    A file that cannot be opened, or whose single records are broken, is left to those who read it.
    """
    if not path.is_file():
        return
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(HEAD)
        size = os.path.getsize(path)
    except OSError:
        return
    reads = path.suffix if path.suffix in (".parquet", ".tar") else ".json"
    is_tar = head[257:262] == b"ustar"
    if is_tar and reads == ".tar":  # it begins with the name of a member, which may be any
        return
    packed = next((kind for start, kind in PACKED.items() if head.startswith(start)), "")
    if packed or path.suffix in PACKED_SUFFIXES:
        how = f" ({packed})" if packed else ""
        raise UserError(f"{path}: cannot be read at any place while it is compressed{how}; unpack it first")
    other = next((what for start, what in OTHERS.items() if head.startswith(start)), "")
    if is_tar:
        other = "a tar file; give it the ending .tar"
    if not other and (kind := kind_of_bytes(head)):
        other = f"{'an image' if kind == 'image' else kind}; name the file of the records"
    if other and f"ending {reads}" not in other:
        raise UserError(f"{path}: is {other}")
    if reads == ".json":
        _check_text(path, head, whole=len(head) == size)


def _check_text(path: Path, head: bytes, whole: bool) -> None:
    """Raise `UserError` for a text that is neither a JSON array nor JSON objects, one a line."""
    if head.startswith(UTF_16) or (b"\0" in head[:4] and head[:4].strip(b"\0")):
        kind = "UTF-32" if head[:4].count(0) > 2 or head.startswith(b"\xff\xfe\0\0") else "UTF-16"
        raise UserError(f"{path}: is {kind}; records are UTF-8: iconv -f {kind} -t UTF-8 {shorten(path.name, 100)}")
    text = head.removeprefix(BOM).lstrip()
    lines = [line.strip() for line in text.split(b"\n") if line.strip()]
    if not lines or text.startswith(b"["):
        return
    if lines[0].startswith(b"{"):
        others = any(line.startswith(b"{") and line.rstrip().endswith(b"}") for line in text.split(b"\n")[1:])
        if len(lines) > 1 and _goes_on(lines[0], lines[1]) and not others:
            key = re.match(rb'\{\s*"([^"]{1,60})"\s*:\s*\[\s*\{', text)
            wrapped = key is not None and key[1].decode("utf-8", "replace") not in (*TALKS, PAIRS, *QUERY)
            name = repr(key[1].decode("utf-8", "replace")) if key is not None and wrapped else ""
            inner = f"; {name} holds an array: write that array alone" if name else ""
            raise UserError(f"{path}: JSON objects over several lines; {ARRAY}{inner}")
        return
    if lines[0][:15].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"{path}: is a web page or XML, perhaps that of a failed download; {ARRAY}")
    if any(line.startswith((b"{", b"[", b"\x1e")) for line in lines) or (len(lines) < 2 and not whole):
        return  # a broken line among others, or one that is longer than what was read
    raise UserError(f"{path}: {_described(path, lines)}; {ARRAY}")


def _goes_on(first: bytes, second: bytes) -> bool:
    """Whether an object that begins in the line `first` continues in the line `second`: pretty-printed JSON."""
    opened = first == b"{" or first.endswith((b",", b"[", b"{"))
    return opened and (second.startswith((b'"', b"}")) or (first.endswith((b"[", b"{")) and second == b"{"))


def _described(path: Path, lines: list[bytes]) -> str:
    """Return what the lines of a text that is no JSON are."""
    first = lines[0].decode("utf-8", "replace")
    if re.match(r"[a-z][a-z0-9+.-]*://\S+$", first, re.IGNORECASE):
        return f"holds URLs ({shorten(first, 80)}), not records; download what they name"
    for name, mark in (("TSV", "\t"), ("CSV", ","), ("CSV", ";")):
        columns = [column.strip(' "').lower() for column in first.split(mark)]
        known = {
            *TALKS,
            PAIRS,
            *QUERY,
            *QUESTION,
            *CAPTIONS,
            "image",
            "image_path",
            "file_name",
            "filename",
            "url",
            "id",
        }
        if len(columns) > 1 and (known & set(columns) or path.suffix.lower() == f".{name.lower()}"):
            return f"is {name} (its first line: {shorten(first, 80)!r})"
    return f"holds no JSON object (its first line: {shorten(first, 80)!r})"
