"""Synthetic tables of lengths on which plans are measured, and how full rows are without one."""

import numpy as np

from eve_jax.data.image.rule import PATCH, ImageRule
from eve_jax.data.plan.lengths import Lengths

# name -> side of the largest image area, share of the images that have it
CASES = {
    "cap800": (800, 0.0),
    "cap800_60%_at_cap": (800, 0.6),
    "cap1600": (1600, 0.0),
    "cap1600_60%_at_cap": (1600, 0.6),
}


def synthetic_counts(n: int, cap: int, at_cap: float, seed: int = 0) -> np.ndarray:
    """Patches, specials and text tokens int32 [n, 3] of `n` records.

    Texts are lognormal (mu 4.6, sigma 0.8), clipped to 20-600 tokens; 15% are text alone, 5% have two images; aspect
    ratios are log-uniform in 1/3 to 3, areas log-uniform from 128^2 to cap^2, but for the share `at_cap` of images
    that have the cap's area.
    """
    rng = np.random.default_rng(seed)
    text = np.clip(np.rint(rng.lognormal(4.6, 0.8, n)), 20, 600)
    kind = rng.random(n)
    images = np.where(kind < 0.15, 0, np.where(kind < 0.2, 2, 1))
    patches, specials = np.zeros(n), np.zeros(n)
    for k in range(2):
        ratio = np.exp(rng.uniform(np.log(1 / 3), np.log(3), n))
        area = np.exp(rng.uniform(np.log(128**2), np.log(cap**2), n))
        area = np.where(rng.random(n) < at_cap, cap**2, area)
        h, w = _grids(np.sqrt(area * ratio), np.sqrt(area / ratio), cap)
        patches += np.where(images > k, h * w, 0)
        specials += np.where(images > k, 1 + h, 0)
    return np.stack([patches, specials, text], 1).astype(np.int32)


def _grids(height: np.ndarray, width: np.ndarray, cap: int) -> tuple[np.ndarray, np.ndarray]:
    """Grids of images of whole pixels under the training rule `shrink`, checked against `ImageRule` on some."""
    height, width = np.rint(height), np.rint(width)
    scale = np.maximum(np.sqrt(height * width) / cap, 1)
    h, w = (np.maximum(np.rint(side / scale / PATCH), 1) for side in (height, width))
    rule = ImageRule("anyratio_hd", max_size=cap)
    for i in range(min(len(h), 200)):
        assert rule.grid(int(width[i]), int(height[i])) == (h[i], w[i])
    return h, w


def lengths_of(counts: np.ndarray) -> Lengths:
    """A table of `counts` [n, 3], without grids."""
    n = len(counts)
    patches, specials, text = (np.ascontiguousarray(column) for column in counts.T)
    grids, first_grid = np.zeros((0, 2), np.int32), np.zeros(n + 1, np.int64)
    return Lengths(np.arange(n, dtype=np.int32), text, patches, specials, grids, first_grid, dropped=[])


def padded_fill(counts: np.ndarray, batch: int = 8, grouped: bool = False, seed: int = 0) -> float:
    """Fill of batches that are padded to their longest sample, in random order or `grouped` by length.

    Grouped is the usual way: 50 batches' worth of random records at a time are sorted by length.
    """
    totals = np.random.default_rng(seed).permutation(counts.sum(1))
    totals = totals[: len(totals) // (50 * batch) * (50 * batch)]
    if grouped:
        totals = np.sort(totals.reshape(-1, 50 * batch), axis=1)
    batches = totals.reshape(-1, batch)
    return float(batches.sum() / (batches.max(1).sum() * batch))
