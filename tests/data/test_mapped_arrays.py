"""Arrays on disk: the same when mapped, whole or not there at all."""

from pathlib import Path

import numpy as np
import pytest

from eve_jax.data.plan.mapped_arrays import ArrayFile, save_arrays


def test_mapped_arrays_are_those_saved(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(10, dtype=np.int32),
        "empty": np.zeros((0, 2), np.int32),
        "text": np.array('{"x": 1}'),
        "texts": np.array(["a", "bcd"]),
        "grid": np.arange(6, dtype=np.int64).reshape(2, 3),
        "columns": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    }
    path = tmp_path / "deep" / "x.npz"
    save_arrays(path, arrays)
    mapped = ArrayFile(path).mapped()
    assert mapped.keys() == arrays.keys()
    for name, array in arrays.items():
        assert mapped[name].dtype == array.dtype
        assert mapped[name].shape == array.shape
        assert np.array_equal(mapped[name], array)
        assert array.size == 0 or not mapped[name].flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        mapped["a"][0] = 1
    assert [p.name for p in path.parent.iterdir()] == ["x.npz"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    save_arrays(path, {"a": np.arange(3)})

    class Bad:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        save_arrays(path, {"a": np.arange(4), "b": Bad()})
    assert ArrayFile(path).mapped()["a"].tolist() == [0, 1, 2]


def test_parts_are_read(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {"a": np.arange(10, dtype=np.int32), "grids": np.arange(12).reshape(6, 2)}
    save_arrays(tmp_path / "x.npz", arrays)
    file = ArrayFile(tmp_path / "x.npz")
    assert file.read("a", 3, 5).tolist() == [3, 4]
    assert file.read("grids", 2, 5).tolist() == arrays["grids"][2:5].tolist()
    assert file.read("grids", 2, 2).shape == (0, 2)


def test_a_file_that_is_replaced_stays_one_table(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    save_arrays(path, {"a": np.arange(3), "b": np.arange(5)})
    file = ArrayFile(path)
    save_arrays(path, {"a": np.zeros(3, np.int64), "b": np.zeros(5, np.int64)})
    assert file.mapped()["a"].tolist() == [0, 1, 2]
    assert file.mapped()["b"].tolist() == [0, 1, 2, 3, 4]
    assert file.read("b", 2, 5).tolist() == [2, 3, 4]
    path.unlink()
    assert file.read("a", 1, 3).tolist() == [1, 2]
