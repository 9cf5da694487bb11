"""Asks about few images and about none, for the tests of batches on one device, on meshes and over processes."""

import numpy as np

from eve_jax.infer.batches import Ask
from eve_jax.infer.prompt import Prompt
from tests import reference as ref
from tests.infer.test_generate import prompts

LIMITS = {"text": 9, "a1": 7, "a2": 12, "a3": 3, "b1": 8, "two": 6, "last": 5}


def asks() -> dict[str, Ask]:
    """Three asks that share an image and the text before it, one of another image, one of both, text; one ends with its
    image. Each has a limit of its own."""
    given = prompts()
    image, two = given["image"], given["two images"]
    end = int(np.flatnonzero(image.ids == ref.IMAGE_ID)[-1]) + 1
    head = image.ids[:end]

    def about(head: np.ndarray, rest: list[int], number: int = 0) -> Prompt:
        ids = np.concatenate([head, np.array(rest, np.int32)])
        return Prompt(ids, [two.patches[1 - number]], [two.grids[1 - number]])

    every = {
        "text": given["text"],
        "a1": about(head, [20, 21, 22]),
        "a2": about(head, [31, 7, 9, 11, 40]),
        "a3": about(head, [20, 21, 23]),
        "b1": about(head, [20, 21, 22], 1),
        "two": two,
        "last": about(np.concatenate([[5, 6], head]).astype(np.int32), []),
    }
    return {key: Ask(key, prompt, LIMITS[key]) for key, prompt in every.items()}
