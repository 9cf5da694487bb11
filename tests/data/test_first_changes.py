"""Which record or image a resumed run names as the first that changed, whatever was moved."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from eve_jax.data.samples.group_checksums import first_difference, group_checksums
from eve_jax.errors import UserError
from tests.data.test_fingerprint import begun, edit, other_image, resumed, stage_config


def moved(config: ConfigDict, folder: Path, name: str = "elsewhere") -> None:
    """Move the data, so that everything is measured again."""
    (folder / name).mkdir()
    for field in ("records", "images"):
        old = Path(config.data[field])
        shutil.move(old, folder / name / old.name)
        config.data[field] = str(folder / name / old.name)


@pytest.mark.parametrize("most", [1024, 5])
def test_the_first_image_that_changed_is_named(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eve_jax.data.samples.group_checksums.GROUPS", most)
    config = stage_config(tmp_path)
    data = begun(config, tmp_path)
    moved(config, tmp_path)
    for name in ("5_1.png", "7_0.png"):
        other_image(tmp_path / "elsewhere" / "images" / name)
    with pytest.raises(UserError, match=r"images of .*\(source 1\) are not those of its last checkpoint") as error:
        resumed(config, tmp_path, data)
    lengths = data.lengths
    assert len(lengths.grids) == 12
    if most == 1024:
        assert "; the first that changed is " in str(error.value)
        assert "elsewhere/images/5_1.png (of " in str(error.value)
        assert "records.jsonl:6); restore the files, or use another" in str(error.value)
    else:
        assert re.search(r"is one of the [23] from .*/\d_\d\.png \(of .* to .*/\d_\d\.png \(of ", str(error.value))


@pytest.mark.parametrize("kind", ["removed", "record"])
def test_the_first_record_that_changed_is_named(kind: str, tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    (tmp_path / "images" / "1_0.png").unlink()
    data = begun(config, tmp_path)
    assert len(data.lengths.dropped) == 1
    moved(config, tmp_path)
    if kind == "removed":
        (tmp_path / "elsewhere" / "images" / "7_0.png").unlink()
        reason = r"\(10 of them can be used, 11 could; left out is .*records\.jsonl:8: missing file \(.*/7_0\.png\)\)"
    else:
        edit(tmp_path / "elsewhere" / "records.jsonl", "Number 7", "Number 9")
        reason = r"are not those of its last checkpoint; the first that changed is .*/records\.jsonl:8; restore"
    with pytest.raises(UserError, match=reason):
        resumed(config, tmp_path, data)


def test_a_checkpoint_of_an_earlier_version_names_no_image(tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    data = begun(config, tmp_path)
    for source in data.fingerprint["sources"]:
        del source["groups"]
    moved(config, tmp_path)
    other_image(tmp_path / "elsewhere" / "images" / "5_1.png")
    with pytest.raises(UserError, match=r"are not those of its last checkpoint; restore the files, or use another"):
        resumed(config, tmp_path, data)


@pytest.mark.parametrize("count", [0, 1, 7, 1024, 1025, 5000])
def test_groups_tell_where_lists_first_differ(count: int) -> None:
    items = np.arange(count, dtype=np.uint64)
    known = group_checksums(items)
    assert len(known) <= 5464
    assert not first_difference(known, count, group_checksums(items), count)
    for at in sorted({0, count // 2, count - 1} & set(range(count))):
        changed = items.copy()
        changed[at:] += 1
        found = first_difference(known, count, group_checksums(changed), count)
        assert at in found
        assert len(found) <= -(-count // 1024)


def test_lists_of_different_lengths() -> None:
    items = np.arange(9, dtype=np.uint64)
    known = group_checksums(items)
    assert first_difference(known, 9, group_checksums(np.delete(items, 4)), 8) == range(4, 5)
    assert first_difference(known, 9, group_checksums(items[:8]), 8) == range(8, 9)
    assert first_difference(known, 9, group_checksums(items[:0]), 0) == range(0, 1)
    many = np.arange(2000, dtype=np.uint64)
    assert not first_difference(group_checksums(many), 2000, group_checksums(many[1:]), 1999)
