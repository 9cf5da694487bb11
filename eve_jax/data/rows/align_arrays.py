"""Arrays of EVEv1's patch aligning layer: the teacher's images, and which patch of theirs each place of a row is
compared with (docs/design.md#arrays-of-the-aligning-loss).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from eve_jax.batch import RowShape, TeacherShape, place_arrays, zeros
from eve_jax.data.image.patches import Pixels, bicubic
from eve_jax.data.image.rule import ImageRule, teacher_grid
from eve_jax.data.image.square import on_canvas
from eve_jax.data.plan.lengths import Lengths

if TYPE_CHECKING:
    from eve_jax.data.plan.plan import Plan


def teacher_image(image: Image.Image | Pixels, rule: ImageRule) -> np.ndarray:
    """The `image` as the teacher sees it, uint8 [s, s, 3]."""
    image = Pixels.of(image)
    side, patch = rule.teacher
    h, w = teacher_grid(*image.size, side, patch)
    return on_canvas(bicubic(image.rgb, w * patch, h * patch), side, patch)[0]


def teacher_shape(rule: ImageRule, images: int) -> TeacherShape:
    """What rows of at most `images` images hold for the teacher of `rule`."""
    return TeacherShape(images, rule.teacher[0], rule.pool)


def place_images(images: Iterable[tuple[int, int, float]], shape: RowShape, rule: ImageRule) -> dict[str, np.ndarray]:
    """teacher_idx, align_weight and, where they matter, pool and pool_inv of a row with `images`: (h, w, weight) each.

    h and w count windows, and are multiples of the rule's `pool`.
    """
    pool, cells = rule.pool, rule.teacher_cells
    row = zeros(place_arrays(shape, pool))
    index, weight = row["teacher_idx"], row["align_weight"]
    order = np.arange(shape.patches, dtype=np.int32)
    place = 0
    for number, (h, w, importance) in enumerate(images):
        rows, columns = h // pool, w // pool
        top, left = (cells - rows) // 2, (cells - columns) // 2
        own = slice(place, place + rows * columns)
        grid = number * cells**2 + (top + np.arange(rows))[:, None] * cells + left + np.arange(columns)
        index[own], weight[own] = grid.reshape(-1), importance / (rows * columns)
        windows = order[own.start * pool**2 : own.stop * pool**2]
        windows[:] = windows.reshape(rows, pool, columns, pool).swapaxes(1, 2).reshape(-1)
        place = own.stop
    if pool > 1:
        row["pool"][:], row["pool_inv"][:] = order, np.argsort(order)
    return row


def most_images(plan: "Plan", lengths: Lengths) -> dict[RowShape, int]:
    """The largest number of images in a row of each shape of the plan."""
    per_entry = np.diff(lengths.first_grid)
    images = np.concatenate([[0], np.cumsum(per_entry[plan.entries])])
    per_row = np.diff(images[np.asarray(plan.first)]).reshape(len(plan.batch_shape), -1)
    most = per_row.max(axis=1, initial=0)
    return {s: int(most[plan.batch_shape == i].max(initial=0)) for i, s in enumerate(plan.shapes)}
