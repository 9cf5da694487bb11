"""Files that are named as records and are something else: one line says what they are."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eve_jax.data.record import BadRecord
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from tests.data.source_files import add_member

ONE = b'{"text": "A dot."}'
PRETTY = json.dumps({"id": 1, "text": "A dot."}, indent=2).encode()


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    return stream.getvalue()


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        add_member(file, "PAR1.txt", b"A dot.")  # the name stands where other formats have their mark
    return stream.getvalue()


def parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": ["A dot."]}), stream)
    return stream.getvalue()


FILES: dict[str, tuple[str, bytes, str]] = {
    "URLs": (
        "a.jsonl",
        b"https://e.org/1.jpg\nhttps://e.org/2.jpg\n",
        r"holds URLs \(https://e\.org/1\.jpg\), not records",
    ),
    "pretty": ("a.jsonl", PRETTY + b"\n" + PRETTY, "JSON objects over several lines; records are a JSON array, or"),
    "pretty, one": ("a.json", PRETTY, "JSON objects over several lines"),
    "pretty, Windows": ("a.jsonl", PRETTY.replace(b"\n", b"\r\n"), "JSON objects over several lines"),
    "wrapped": (
        "a.json",
        json.dumps({"data": [{"text": "A"}]}, indent=1).encode(),
        "'data' holds an array: write that",
    ),
    "CSV": ("a.csv", b"image,text\n0.png,A dot\n", r"is CSV \(its first line: 'image,text'\)"),
    "CSV by content": ("a.jsonl", b'"id";"caption"\n1;"A dot"\n', "is CSV"),
    "TSV": ("a.tsv", b"image\ttext\n0.png\tA dot\n", "is TSV"),
    "list of files": ("a.txt", b"0.png\n1.png\n", r"holds no JSON object \(its first line: '0\.png'\)"),
    "YAML": ("a.yaml", b"- text: A dot\n", "holds no JSON object"),
    "HTML": ("a.jsonl", b"<!DOCTYPE html>\n<html>", "is a web page or XML"),
    "Git LFS": ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid x", "is a pointer of Git LFS"),
    "UTF-16": (
        "a.jsonl",
        ONE.decode().encode("utf-16"),
        "is UTF-16; records are UTF-8: iconv -f UTF-16 -t UTF-8 a.jsonl",
    ),
    "UTF-16, no mark": ("a.jsonl", ONE.decode().encode("utf-16-le"), "is UTF-16"),
    "UTF-16, array": ("a.json", (b"[" + ONE + b"]").decode().encode("utf-16-be"), "is UTF-16"),
    "UTF-32": ("a.jsonl", ONE.decode().encode("utf-32"), "is UTF-32"),
    "gzip": ("a.jsonl", gzip.compress(ONE), r"while it is compressed \(gzip\); unpack it first"),
    "gzip, tar": ("a.tar", gzip.compress(tar()), r"compressed \(gzip\)"),
    "gzip, Parquet": ("a.parquet", gzip.compress(parquet()), r"compressed \(gzip\)"),
    "zstd": ("a.json", b"\x28\xb5\x2f\xfd" + ONE, r"compressed \(zstd\)"),
    "bzip2": ("a.jsonl", bz2.compress(ONE), r"compressed \(bzip2\)"),
    "xz": ("a.jsonl", lzma.compress(ONE), r"compressed \(xz\)"),
    "zip": ("a.jsonl", b"PK\3\4" + ONE, r"compressed \(zip\)"),
    "by its name": ("a.jsonl.zst", b"?", "while it is compressed; unpack it first"),
    "Parquet": ("a.jsonl", parquet(), r"is a Parquet file; give it the ending \.parquet"),
    "tar": ("a.json", tar(), r"is a tar file; give it the ending \.tar"),
    "Arrow": ("a.arrow", b"ARROW1\0\0", "is an Arrow file; write it as Parquet"),
    "image": ("a.png", png(), "is an image; name the file of the records"),
}


@pytest.mark.parametrize("kind", FILES)
def test_other_formats(kind: str, tmp_path: Path) -> None:
    name, data, reason = FILES[kind]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name}: .*{reason}") as error:
        open_records(str(tmp_path / name))
    assert "\n" not in str(error.value)
    if name.endswith((".json", ".jsonl", ".parquet", ".tar")):
        with pytest.raises(UserError, match=reason):
            open_records(str(tmp_path))  # in a folder, too


def test_files_that_are_read(tmp_path: Path) -> None:
    for name, data in (
        ("a.tar", tar()),
        ("a.parquet", parquet()),
        ("a.data", ONE),
        ("a.txt", b" \n\xef\xbb\xbf" + ONE),
    ):
        (tmp_path / name).write_bytes(data)
        if name != "a.txt":
            assert open_records(str(tmp_path / name))[0].turns[0].text == "A dot."
    for broken in (b"{\n" + ONE, b"https://e.org/1.jpg\n" + ONE, b"x" * 5000 + b"\n" + ONE, b'{\n"x\n' + ONE):
        (tmp_path / "a.jsonl").write_bytes(broken)
        records = open_records(str(tmp_path / "a.jsonl"))  # one broken line leaves the others alone
        assert records[len(records) - 1].turns[0].text == "A dot."
        with pytest.raises(BadRecord, match="not valid JSON"):
            records[0]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (ONE + ONE, r"not valid JSON \(several objects on one line; write one a line\)"),
        (ONE + b" " + ONE, "several objects on one line"),
        (ONE + b",", "a comma after the object; remove it"),
        (b'{"data": [' + ONE + b"]}", "'data' holds a list of records: write an array of the records alone"),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_lines_of_another_form(line: bytes, reason: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(line + b"\n" + ONE)
    records = open_records(str(tmp_path / name))
    with pytest.raises(BadRecord, match=reason):
        records[0]
    assert records[1].turns[0].text == "A dot."


def test_an_array_of_texts(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('["https://e.org/1.jpg"]')
    with pytest.raises(BadRecord, match=r"not an object but str \('https://e\.org/1\.jpg'\)"):
        open_records(str(tmp_path / "a.json"))[0]
