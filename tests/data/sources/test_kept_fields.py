"""The web's caption and what experts found go with a record; images without any text are read where asked for."""

import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from eve_jax.data.prepare.shard_writer import ShardWriter, write_dataset
from eve_jax.data.record import Record, Turn
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from tests.data.source_files import write_tfds

EXPERTS = {"tags": [{"name": "cup", "score": 0.9}], "ocr": [{"text": "EXIT", "score": 0.99, "box": [0, 0, 0.5, 0.25]}]}


def jpeg(color: str = "red") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 48), color).save(data, "JPEG")
    return data.getvalue()


def as_json(folder: Path, fields: dict[str, Any]) -> str:
    (folder / "a.jpg").write_bytes(jpeg())
    (folder / "r.jsonl").write_text(json.dumps({"id": "1", "image": "a.jpg", **fields}) + "\n")
    return str(folder / "r.jsonl")


def as_parquet(folder: Path, fields: dict[str, Any]) -> str:
    columns = {name: [value if isinstance(value, str) else json.dumps(value)] for name, value in fields.items()}
    image = pa.array([{"bytes": jpeg(), "path": None}])
    pq.write_table(pa.table({"id": ["1"], "image": image, **columns}), folder / "r.parquet")
    return str(folder / "r.parquet")


def as_tar(folder: Path, fields: dict[str, Any]) -> str:
    members = {"1.jpg": jpeg()} | ({"1.json": json.dumps(fields).encode()} if fields else {})
    with tarfile.open(folder / "r.tar", "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(folder / "r.tar")


@pytest.mark.parametrize("write", [as_json, as_parquet, as_tar])
def test_kept_fields_of_every_source_reach_the_shards(tmp_path: Path, write: Any) -> None:
    name = write(tmp_path, {"caption": "a cup", "alt": "Exit to the café", "experts": EXPERTS})
    record = open_records(name, str(tmp_path) if write is as_json else "")[0]
    assert record.kept["alt"] == "Exit to the café"
    found = record.kept["experts"]
    assert (json.loads(found) if isinstance(found, str) else found) == EXPERTS
    out = tmp_path / "out"
    out.mkdir()
    writer = ShardWriter(out, 0)
    writer.add(record)
    write_dataset(out, [writer.close()])
    again = open_records(str(out))[0]
    assert (again.kept, again.turns) == (record.kept, record.turns)


def test_a_record_without_them_is_written_as_before(tmp_path: Path) -> None:
    """The hash of a shard, on which lengths tables and resumed runs rely, stays what it was."""
    writer = ShardWriter(tmp_path, 0)
    writer.add(Record("1", (), (Turn("gpt", "a"),), "x"))
    line = b'{"id": "1", "images": [], "turns": [["gpt", "a"]]}'
    assert writer.close().digest == hashlib.blake2b(line, digest_size=16).hexdigest()


@pytest.mark.parametrize("write", [as_json, as_parquet, as_tar])
@pytest.mark.parametrize("fields", [{}, {"alt": "a cup"}])
def test_images_without_texts_are_read_where_asked_for(tmp_path: Path, write: Any, fields: dict[str, Any]) -> None:
    name, images = write(tmp_path, fields), str(tmp_path) if write is as_json else ""
    with pytest.raises(UserError, match="caption"):
        open_records(name, images)[0]
    record = open_records(name, images, texts=False)[0]
    assert record.turns == () and len(record.images) == 1 and record.kept.get("alt", "") == fields.get("alt", "")


def test_texts_that_are_there_are_still_read(tmp_path: Path) -> None:
    record = open_records(as_json(tmp_path, {"caption": "a cup"}), str(tmp_path), texts=False)[0]
    assert record.turns == (Turn("gpt", "a cup"),)


def test_what_json_cannot_hold_is_left_out_and_loses_no_record(tmp_path: Path) -> None:
    image = pa.array([{"bytes": jpeg(), "path": None}])
    experts = pa.array([{"tags": b"\xff"}])
    pq.write_table(pa.table({"image": image, "caption": ["a"], "experts": experts}), tmp_path / "r.parquet")
    assert dict(open_records(str(tmp_path / "r.parquet"))[0].kept) == {}


def test_a_tensorflow_data_set_of_images_alone(tmp_path: Path) -> None:
    features = {"image": tfds.features.Image(), "alt": tfds.features.Text()}
    write_tfds(tmp_path, features, [{"image": io.BytesIO(jpeg()), "alt": "a cup"}])
    name = f"tfds:{tmp_path}/talk/1.0.0"
    with pytest.raises(UserError, match="has neither conversations nor a caption"):
        open_records(name)
    record = open_records(name, texts=False)[0]
    assert record.kept == {"alt": "a cup"} and record.turns == () and len(record.images) == 1


def test_records_can_be_sent_to_other_processes() -> None:
    record = Record("1", (), (Turn("gpt", "a"),), "x")
    assert pickle.loads(pickle.dumps(record)) == record
