"""Images and captions for pre-training: drawn as the demo's are, none of them among its records.

Held-out compositions are not among them either.
"""

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from eve_jax.data.image.square import padded
from eve_jax.demo.compose import TrainingComposer
from eve_jax.demo.questions import caption
from eve_jax.demo.scenes import draw
from eve_jax.demo.settings import DemoSettings
from eve_jax.process.progress import tracked


class Drawn(NamedTuple):
    """Square images, as a model with an encoder or a vocabulary sees them, and a caption of each."""

    images: UInt8[np.ndarray, "n S S 3"]
    captions: list[str]


def drawn(settings: DemoSettings, seed: int, purpose: str, count: int, side: int) -> Drawn:
    """Return `count` images of `side` pixels that follow from seed and purpose."""
    composer = TrainingComposer(settings, Random(f"{seed} pre-training {purpose}"))
    found = Drawn(np.empty((count, side, side, 3), np.uint8), [])
    for number in tracked(range(count), f"drawing images for the {purpose}", "images"):
        scene = composer.scene()
        found.images[number] = padded(draw(scene), side)
        found.captions.append(caption(scene, composer.rng))
    return found


def batches(count: int, size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the numbers of the images of each step: every one of `count` once before any comes again."""
    rng, left = np.random.default_rng(seed), np.empty(0, np.int64)
    for _ in range(steps):
        if len(left) < size:
            left = np.concatenate([left, rng.permutation(count)])
        yield left[:size]
        left = left[size:]
