"""Converting again: images that changed since are refused, by name; those that are gone are not."""

import os
import resource
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eve_jax.data.image_file import ImageFile, image_bytes
from eve_jax.data.plan.measured_on import Stamp
from eve_jax.data.prepare import convert as convert_module
from eve_jax.data.prepare.convert import Conversion, convert
from eve_jax.data.samples import image_changes
from eve_jax.data.samples.image_stamps import is_changed, stamp_of
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from tests.data.synthetic import write_records


def conversion(folder: Path, records: str = "records.jsonl") -> Conversion:
    return Conversion(str(folder / records), str(folder / "images"), str(folder / "made"), 5, "headers")


CHANGED = (
    r"made: the image \S+/images/5_0\.png \(of \S+records\.jsonl:6\) changed since it was converted; restore the file"
)


def test_a_replaced_image_is_noticed(tmp_path: Path) -> None:
    write_records(tmp_path, 13)
    convert(conversion(tmp_path))
    image, other = tmp_path / "images" / "5_0.png", tmp_path / "images" / "1_0.png"
    known = image.read_bytes()
    for data in (other.read_bytes(), b"broken"):
        image.write_bytes(data)
        with pytest.raises(UserError, match=CHANGED):
            convert(conversion(tmp_path))
    image.write_bytes(known)  # with another time
    assert convert(conversion(tmp_path))["kept"] == 13
    image.unlink()
    assert convert(conversion(tmp_path))["kept"] == 13


@pytest.mark.parametrize("place", [0, 40_000, 100_000, 150_000, 190_000])
def test_an_edit_anywhere_in_a_large_file_is_noticed(tmp_path: Path, place: int) -> None:
    """One of the same size, as of a bitmap's pixels."""
    file = tmp_path / "a.bmp"
    data = bytearray(os.urandom(200_000))
    file.write_bytes(data)
    known = stamp_of(str(file))
    data[place : place + 16_000] = bytes(len(data[place : place + 16_000]))
    file.write_bytes(data)
    os.utime(file, ns=(1, known.time + 1))
    assert is_changed(str(file), known)


def test_an_image_that_came_is_noticed(tmp_path: Path) -> None:
    write_records(tmp_path, 13)
    image = tmp_path / "images" / "5_0.png"
    known = image.read_bytes()
    image.unlink()
    for data in (None, b"broken"):  # still of no use
        if data:
            image.write_bytes(data)
        assert convert(conversion(tmp_path))["kept"] == 12
    image.write_bytes(known)
    with pytest.raises(UserError, match=CHANGED):
        convert(conversion(tmp_path))


def test_a_resumed_conversion_notices_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_records(tmp_path, 13)
    monkeypatch.setattr(convert_module, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        convert(conversion(tmp_path))
    monkeypatch.undo()
    image = tmp_path / "images" / "5_0.png"
    known = image.read_bytes()
    shutil.copy(tmp_path / "images" / "1_0.png", image)
    with pytest.raises(UserError, match=CHANGED):
        convert(conversion(tmp_path))
    image.write_bytes(known)
    (tmp_path / "made" / "00001.json").unlink()  # a shard to do over again
    convert(conversion(tmp_path))
    assert image_bytes(open_records(str(tmp_path / "made"))[5].images[0]) == known


def test_an_even_sample_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_records(tmp_path, 13)
    convert(conversion(tmp_path))
    looked: list[str] = []
    monkeypatch.setattr("eve_jax.data.prepare.noted_images.MOST", 3)
    original = image_changes.is_changed

    def spy(file: ImageFile, stamp: Stamp) -> bool:
        looked.append(str(file))
        return original(file, stamp)

    monkeypatch.setattr(image_changes, "is_changed", spy)
    convert(conversion(tmp_path))
    assert len(looked) == 3


def test_paths_in_parquet(tmp_path: Path) -> None:
    write_records(tmp_path, 13)
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": name} for name in ("1_0.png", "5_0.png")], type=cell)
    pq.write_table(pa.table({"image": images, "caption": ["A", "B"]}), tmp_path / "a.parquet")
    convert(conversion(tmp_path, "a.parquet"))
    shutil.copy(tmp_path / "images" / "1_0.png", tmp_path / "images" / "5_0.png")
    os.utime(tmp_path / "images" / "1_0.png")
    with pytest.raises(UserError, match=r"the image \S+a\.parquet#2\S* \(of \S+a\.parquet#2\) changed since"):
        convert(conversion(tmp_path, "a.parquet"))


def test_a_full_disk_is_one_line_and_no_loss(tmp_path: Path) -> None:
    """ArrayRecord raises an error of its own. Files of at most 4 KB stand for the disk."""
    write_records(tmp_path, 13)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(UserError, match=r"made: shards cannot be written \(.*File too large.*rerun"):
            convert(conversion(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert convert(conversion(tmp_path))["kept"] == 13
    assert not list((tmp_path / "made").glob("*.part"))
