"""TensorFlow Datasets: what is read of them, what is refused, and that they import nothing of their own."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from eve_jax.data.image_file import image_bytes
from eve_jax.data.record import Turn
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from tests.data.source_files import write_tfds


def _picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(stream, "PNG")
    return stream.getvalue()


PICTURE = _picture()


def test_nothing_foreign_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_tfds(tmp_path, {"caption": tfds.features.Text()}, [{"caption": "A bus."}])
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    features, own = target / "features.json", (target / "features.json").read_text()
    for name in ("stranger.Text", "this.Text", "tensorflow_datasets_x.Text", "os.Text", "tensorflow_datasets/x.T"):
        features.write_text(own.replace("tensorflow_datasets.core.features.text_feature.Text", name))
        assert name in features.read_text()
        with pytest.raises(UserError, match="which TensorFlow Datasets does not have"):
            open_records(f"tfds:{target}")
    assert not {"stranger", "this"} & set(sys.modules)
    features.write_text(own)
    assert open_records(f"tfds:{target}")[0].turns == (Turn("gpt", "A bus."),)


def test_captions(tmp_path: Path) -> None:
    features = {
        "image": tfds.features.Image(),
        "captions": tfds.features.Sequence({"text": tfds.features.Text(), "id": tfds.features.Scalar(np.int64)}),
    }
    texts = [{"text": "First.", "id": 1}, {"text": "Second.", "id": 2}]
    target = write_tfds(tmp_path, features, [{"image": io.BytesIO(PICTURE), "captions": texts}])
    (record,) = open_records(f"tfds:{target}:train")
    assert record.turns == (Turn("gpt", "First."),)
    assert record.id.endswith("talk/1.0.0:train#1")
    assert image_bytes(record.images[0]) == PICTURE


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        UserError, match=r"tfds:mnist: the package tensorflow-datasets is missing: pip install .*\[tfds\]"
    ):
        open_records("tfds:mnist")


def test_what_cannot_be_used(tmp_path: Path) -> None:
    target = write_tfds(tmp_path, {"label": tfds.features.Scalar(np.int64)}, [{"label": 1}])
    for name, message in (
        (f"tfds:{target}", "neither conversations nor a caption, but the features label"),
        (f"tfds:{target}:test", "cannot be opened"),
        (f"tfds:{tmp_path}/nothing", "no such folder"),
        (
            "tfds:huggingface:mnist/x",
            "no such folder, and no name of a data set that TensorFlow Datasets has itself",
        ),
        ("tfds:", "names no data set"),
        (str(target), rf"write tfds:{target}"),
    ):
        with pytest.raises(UserError, match=message) as error:
            open_records(name)
        assert "\n" not in str(error.value)
