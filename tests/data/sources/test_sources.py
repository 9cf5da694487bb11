"""Every kind of source gives the records that a LLaVA file gives, and names what is wrong with the others."""

import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from eve_jax.data.image.patches import image_size, load_patches
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.image_file import BadImage, StoredImage, image_bytes
from eve_jax.data.record import BadRecord, Record, Turn
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import Records, open_records
from eve_jax.errors import UserError
from tests.data.source_files import add_member, samples_of, write_parquet, write_tar, write_tfds
from tests.data.synthetic import byte_tokenizer, write_records

TALK = {
    "id": tfds.features.Text(),
    "images": tfds.features.Sequence(tfds.features.Image()),
    "conversations": tfds.features.Sequence({"from": tfds.features.Text(), "value": tfds.features.Text()}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same ten records as records.jsonl with images/, as Parquet, tar and TFDS."""
    target = tmp_path_factory.mktemp("sources")
    write_records(target, 10)
    samples = samples_of(target)
    write_parquet(target / "a.parquet", samples)
    write_tar(target / "a.tar", samples)
    examples = [{**s, "images": [io.BytesIO(data) for _, data in s["files"]]} for s in samples]
    write_tfds(target, TALK, [{name: example[name] for name in TALK} for example in examples])
    return target


def name_of(kind: str, folder: Path) -> str:
    return f"tfds:{folder}/talk/1.0.0" if kind == "tfds" else f"{folder}/a.{kind}"


def contents(records: Sequence[Record]) -> list[tuple[str, tuple[Turn, ...], list[bytes]]]:
    return [(r.id, r.turns, [image_bytes(image) for image in r.images]) for r in records]


@pytest.mark.parametrize("kind", ["parquet", "tar", "tfds"])
def test_the_same_records_from_every_source(kind: str, folder: Path) -> None:
    expected = open_records(str(folder / "records.jsonl"), folder / "images")
    records = open_records(name_of(kind, folder))
    assert contents(records) == contents(expected)
    for own, other in zip(records, expected, strict=True):
        assert [image_size(image) for image in own.images] == [image_size(image) for image in other.images]
    assert records.fingerprint() == open_records(name_of(kind, folder)).fingerprint()

    images = ImageRule(max_size=96)
    rule = SampleRule(byte_tokenizer(), images, "qwen2", max_tokens=1000)
    lengths, wanted = measure(records, rule), measure(expected, rule)
    assert np.array_equal(lengths.text, wanted.text)
    assert np.array_equal(lengths.grids, wanted.grids)
    image = records[2].images[1]
    assert np.array_equal(load_patches(image, images)[0], load_patches(expected[2].images[1], images)[0])


@pytest.mark.parametrize("kind", ["parquet", "tar", "tfds"])
def test_threads_read_without_disturbing_one_another(kind: str, folder: Path) -> None:
    records = open_records(name_of(kind, folder))
    alone = contents(records)
    found: list[Any] = [None] * 4

    def work(number: int) -> None:
        order = np.random.default_rng(number).permutation(10)
        found[number] = contents([records[i] for i in order])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(sorted(some) == sorted(alone) for some in found)


@pytest.mark.parametrize(
    ("kind", "where", "image"),
    [
        ("parquet", "/a.parquet#3", "/a.parquet#3[2]"),
        ("tar", "/a.tar#part/r2", "/a.tar#part/r2[2]"),
        ("tfds", "/talk/1.0.0:train#3", "/talk/1.0.0:train#3[2]"),
    ],
)
def test_places_have_names(kind: str, where: str, image: str, folder: Path) -> None:
    records = open_records(name_of(kind, folder))
    assert records.where(2).endswith(where)
    assert records[2].where == records.where(2)
    assert str(records[2].images[1]).endswith(image)


def picture(color: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(stream, "PNG")
    return stream.getvalue()


class TestParquet:
    def write(self, folder: Path, columns: dict[str, Any], **options: Any) -> Records:
        pq.write_table(pa.table(columns), folder / "a.parquet", **options)
        return open_records(str(folder / "a.parquet"), folder)

    def test_one_image_a_record_or_none(self, folder: Path, tmp_path: Path) -> None:
        samples = [sample for sample in samples_of(folder) if len(sample["files"]) < 2]
        write_parquet(tmp_path / "a.parquet", samples, several=False)
        records = open_records(str(tmp_path / "a.parquet"))
        expected = [(s["id"], [data for _, data in s["files"]]) for s in samples]
        assert [(id, files) for id, _, files in contents(records)] == expected

    def test_images_as_plain_bytes_or_paths_and_captions(self, tmp_path: Path) -> None:
        records = self.write(tmp_path, {"image": [picture(), None], "text": ["Red.", "Nothing."]})
        assert [record.id for record in records] == ["a.parquet#1", "a.parquet#2"]
        assert contents(records)[0][1:] == ((Turn("gpt", "Red."),), [picture()])
        assert records[1].images == ()
        (tmp_path / "b.png").write_bytes(picture("blue"))
        records = self.write(tmp_path, {"image": ["b.png"], "caption": ["Blue."]})
        assert image_bytes(records[0].images[0]) == picture("blue")

    def test_a_path_without_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "b.png").write_bytes(picture("blue"))
        cells = [{"bytes": None, "path": path} for path in ("b.png", "gone.png", None)]
        records = self.write(tmp_path, {"image": cells, "caption": ["Blue."] * 3})
        assert image_bytes(records[0].images[0]) == picture("blue")
        with pytest.raises(BadImage, match="missing file"):
            image_size(records[1].images[0])
        assert records[2].images == ()

    def test_row_groups_are_read_when_they_are_needed(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        records = open_records(str(folder / "a.parquet"))
        read: list[tuple[int, tuple[str, ...]]] = []
        original = pq.ParquetFile.read_row_group

        def spy(self: Any, group: int, columns: list[str]) -> pa.Table:
            read.append((group, tuple(columns)))
            return original(self, group, columns)

        monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
        assert [record.id for record in records[4:8]] == ["r4", "r5", "r6", "r7"]
        assert [group for group, _ in read] == [1]
        assert not any("bytes" in column for column in read[0][1])
        image_size(records[4].images[0])
        assert [group for group, _ in read] == [1, 1]

    def test_bad_rows_and_files(self, tmp_path: Path) -> None:
        talk = [[{"from": "human", "value": "Q"}], [{"from": "robot", "value": "Q"}], None]
        records = self.write(tmp_path, {"id": ["a", "b", "c"], "conversations": talk})
        assert records[0].turns == (Turn("human", "Q"),)
        for index, reason in ((1, r"a\.parquet#2 \(record b\): turn 1 is from 'robot'"), (2, "no conversations")):
            with pytest.raises(BadRecord, match=reason):
                records[index]
        pq.write_table(pa.table({"label": [1]}), tmp_path / "b.parquet")
        with pytest.raises(UserError, match="neither conversations nor a caption, but the columns label"):
            open_records(str(tmp_path / "b.parquet"))
        (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
        with pytest.raises(UserError, match=r"b\.parquet: not a Parquet file"):
            open_records(str(tmp_path / "b.parquet"))

    def test_a_folder_of_files(self, folder: Path, tmp_path: Path) -> None:
        samples = samples_of(folder)
        for number in range(3):
            write_parquet(tmp_path / f"train-0000{number}-of-00003.parquet", samples[number::3])
        records = open_records(str(tmp_path))
        assert [record.id for record in records] == [s["id"] for k in range(3) for s in samples[k::3]]
        assert records.names == [str(tmp_path)]


class TestTar:
    def write(self, folder: Path, *members: tuple[str, bytes]) -> Records:
        with tarfile.open(folder / "a.tar", "w") as tar:
            for name, data in members:
                add_member(tar, name, data)
        return open_records(str(folder / "a.tar"))

    def test_captions(self, tmp_path: Path) -> None:
        records = self.write(
            tmp_path,
            ("a.jpg", picture()),
            ("a.txt", b" A red one.\n"),
            ("b.JPEG", picture()),
            ("b.json", b'{"caption": "Of json.", "width": 4, "id": null}'),
            ("b.txt", b"Of json.\n"),
            ("notes/readme.md", b"?"),
            ("c.json", b'{"conversations": [{"from": "human", "value": "Q"}]}'),
        )
        assert [(r.id, len(r.images), r.turns[0].text) for r in records] == [
            ("a", 1, "A red one."),
            ("b", 1, "Of json."),
            ("c", 0, "Q"),
        ]

    def test_bad_samples(self, tmp_path: Path) -> None:
        records = self.write(
            tmp_path,
            ("a.jpg", picture()),
            ("b.json", b"{no"),
            ("c.json", b"[1]"),
            ("d.txt", b"\xff"),
            ("e.jpg", b""),
            ("e.txt", b"Empty."),
        )
        for index, reason in enumerate(["no conversations", "not valid JSON", "not an object", "not valid UTF-8"]):
            with pytest.raises(BadRecord, match=reason) as error:
                records[index]
            assert error.value.where == records.where(index)
        with pytest.raises(BadImage, match=r"a\.tar#e\[1\]: empty file"):
            image_size(records[4].images[0])

    def test_a_file_that_is_cut_off(self, folder: Path, tmp_path: Path) -> None:
        data = (folder / "a.tar").read_bytes()
        with tarfile.open(folder / "a.tar") as tar:
            cut = tar.getmember("part/r7.json").offset_data + 20
        (tmp_path / "a.tar").write_bytes(data[:cut])
        records = open_records(str(tmp_path / "a.tar"))
        assert len(records) == 8
        assert records[6].id == "r6"
        with pytest.raises(BadRecord, match="the tar file ends within it"):
            records[7]

    def test_headers_are_enough_for_sizes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        records = self.write(tmp_path, ("a.png", stream.getvalue()), ("a.txt", b"Noise."))
        read: list[int] = []
        original = os.pread

        def spy(file: int, size: int, offset: int) -> bytes:
            read.append(size)
            return original(file, size, offset)

        monkeypatch.setattr("os.pread", spy)
        assert image_size(records[0].images[0]) == (800, 600)
        assert sum(read) < 50_000

    def test_not_a_tar(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").write_bytes(b"no tar file " * 100)
        with pytest.raises(UserError, match=r"a\.tar: not a tar file"):
            open_records(str(tmp_path / "a.tar"))


def test_an_image_whose_source_fails_is_a_bad_image() -> None:
    def fail() -> Any:
        raise RuntimeError("shard\nis gone")

    for use in (image_size, image_bytes):
        with pytest.raises(BadImage, match=r"x: cannot be read \(RuntimeError: shard is gone\)"):
            use(StoredImage("x", fail))


def test_sources_load_neither_jax_nor_tensorflow(folder: Path) -> None:
    code = (
        "import sys\nfrom eve_jax.data.sources.records import open_records\n"
        f"for name in {[name_of(kind, folder) for kind in ('parquet', 'tar', 'tfds')]!r}: open_records(name)[0]\n"
        "import eve_jax.data.sources.shards, eve_jax.data.prepare.convert\n"
        "assert not {'jax', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
