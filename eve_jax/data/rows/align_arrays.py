"""What EVEv1's patch aligning layer needs of a row beside its tokens: the teacher's pictures, which window is where.

| array | shape, dtype | meaning |
|---|---|---|
| teacher_images | [R, I, s, s, 3] uint8 | each image on the teacher's square canvas, in the order of the row |
| teacher_idx | [R, A] int32 | patch of the teacher, among all I * n * n of the row, that pooled place a learns from |
| align_weight | [R, A] float32 | 1 / places of the image, so that each image counts as one; 0 on pads, broken records |
| pool, pool_inv | [R, P] int32 | windows in the order of their places and back; absent when every place is one window |

A = P // pool^2 places for P windows; a place is `pool` windows a side.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from eve_jax.data.image.patches import bicubic
from eve_jax.data.image.rule import ImageRule, teacher_grid
from eve_jax.data.image.square import on_canvas
from eve_jax.data.plan.lengths import Lengths
from eve_jax.data.plan.row_shapes import RowShape

if TYPE_CHECKING:
    from eve_jax.data.plan.plan import Plan


def teacher_picture(image: Image.Image, rule: ImageRule) -> np.ndarray:
    """The RGB `image` as the teacher sees it, uint8 [s, s, 3]."""
    side, patch = rule.teacher
    h, w = teacher_grid(*image.size, side, patch)
    return on_canvas(bicubic(image, w * patch, h * patch), side, patch)[0]


def place_images(images: Iterable[tuple[int, int, float]], shape: RowShape, rule: ImageRule) -> dict[str, np.ndarray]:
    """teacher_idx, align_weight and, where they matter, pool and pool_inv of a row with `images`: (h, w, weight) each.

    h and w count windows, and are multiples of the rule's `pool`.
    """
    pool, cells = rule.pool, rule.teacher_cells
    n_places = shape.patches // pool**2
    index, weight = np.zeros(n_places, np.int32), np.zeros(n_places, np.float32)
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
    out = {"teacher_idx": index, "align_weight": weight}
    return out if pool == 1 else out | {"pool": order, "pool_inv": np.argsort(order).astype(np.int32)}


def most_images(plan: "Plan", lengths: Lengths) -> dict[RowShape, int]:
    """The largest number of images in a row of each shape of the plan."""
    per_entry = np.diff(lengths.first_grid)
    images = np.concatenate([[0], np.cumsum(per_entry[plan.entries])])
    per_row = np.diff(images[np.asarray(plan.first)]).reshape(len(plan.batch_shape), -1)
    most = per_row.max(axis=1, initial=0)
    return {s: int(most[plan.batch_shape == i].max(initial=0)) for i, s in enumerate(plan.shapes)}
