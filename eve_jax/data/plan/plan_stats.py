"""What a plan comes to: the figures that the log, plan.json and the README show."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eve_jax.batch import RowShape
from eve_jax.data.plan.mixture import Mixture
from eve_jax.data.plan.packing import Packed
from eve_jax.data.plan.step_order import samples_by_source


def plan_stats(
    table: Packed,
    row_ids: np.ndarray,
    shapes: Sequence[RowShape],
    batch_shape: np.ndarray,
    micro_batches: int,
    mixture: Mixture,
    usable: Sequence[int],
) -> dict[str, Any]:
    """Figures of the micro-batches `row_ids` int64 [B, rows] (rows of `table`, -1: padding) of `batch_shape` [B].

    fill: real tokens over all slots; row_fill leaves padding rows out of account. usable: entries of each source.
    Ranges are those of the steps, from the smallest to the largest.
    """

    def per_batch(values: np.ndarray) -> np.ndarray:
        """Sums of a column of the rows, [B, ...]."""
        real = (row_ids >= 0).reshape(*row_ids.shape, *[1] * (values.ndim - 1))
        return np.where(real, values[row_ids], 0).sum(1, dtype=np.int64)

    steps = len(batch_shape) // micro_batches
    tokens, vision = per_batch(table.tokens), per_batch(table.vision)
    samples = per_batch(samples_by_source(table.entries, table.first, mixture.starts))
    slots = np.array([shape.length for shape in shapes])[batch_shape]
    real_rows = (row_ids >= 0).sum(1)
    return {
        "steps": steps,
        "samples": int(samples.sum()),
        "samples_per_step": float(samples.sum() / steps),
        "rows": int(real_rows.sum()),
        "empty_rows": int((row_ids < 0).sum()),
        "tokens": int(tokens.sum()),
        "tokens_per_step": float(tokens.sum() / steps),
        "vision_share": float(vision.sum() / tokens.sum()),
        "vision_share_of_steps": _range(vision, tokens, micro_batches),
        "fill": float(tokens.sum() / (slots.sum() * row_ids.shape[1])),
        "row_fill": float(tokens.sum() / (slots * real_rows).sum()),
        "shapes": [_shape_stats(shape, batch_shape == k, tokens, row_ids) for k, shape in enumerate(shapes)],
        "sources": _source_stats(samples, micro_batches, mixture, usable),
    }


def _range(part: np.ndarray, whole: np.ndarray, micro_batches: int) -> list[float]:
    """The smallest and the largest share that `part` [B] is of `whole` [B] in a step."""
    share = part.reshape(-1, micro_batches).sum(1) / np.maximum(whole.reshape(-1, micro_batches).sum(1), 1)
    return [round(float(share.min()), 4), round(float(share.max()), 4)]


def _shape_stats(shape: RowShape, mine: np.ndarray, tokens: np.ndarray, row_ids: np.ndarray) -> dict[str, Any]:
    slots = mine.sum() * row_ids.shape[1] * shape.length
    return {**shape._asdict(), "micro_batches": int(mine.sum()), "fill": float(tokens[mine].sum() / slots)}


def _source_stats(
    samples: np.ndarray, micro_batches: int, mixture: Mixture, usable: Sequence[int]
) -> list[dict[str, Any]]:
    """Of each source, its records, how often they come, and its share of the samples: planned, got, and of steps."""
    planned = np.array(mixture.repeats) * usable
    all_samples = samples.sum(1)
    return [
        {
            "name": name,
            "records": int(usable[k]),
            "repeats": mixture.repeats[k],
            "samples": int(samples[:, k].sum()),
            "share_planned": float(planned[k] / planned.sum()),
            "share": float(samples[:, k].sum() / all_samples.sum()),
            "share_of_steps": _range(samples[:, k], all_samples, micro_batches),
        }
        for k, name in enumerate(mixture.names)
    ]
