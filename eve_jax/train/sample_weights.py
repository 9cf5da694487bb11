"""How much each target counts in the loss: alike, or so that samples do (docs/train.md#optimizer)."""

import numpy as np

from eve_jax.config.optim import SAMPLE, TOKEN
from eve_jax.data.rows.build import Batch
from eve_jax.model.loss import TARGET_WEIGHT


def weighed(batch: Batch, kind: str) -> Batch:
    """Return a micro-batch with the weight of each target as TARGET_WEIGHT, float32 [R, T]; as it is for `token`.

    Of a sample with n targets whose loss counts they weigh 1 / n each for `sample`, so that samples count alike, and
    1 / sqrt(n) for `sqrt`. A sample is in one row, so rows may be of any part of a batch.
    """
    if kind == TOKEN:
        return batch
    counts = batch["loss_weight"] > 0
    sample = np.take_along_axis(batch["segment"], batch["loss_idx"], axis=1)
    sample = sample + (np.arange(len(sample)) * (sample.max(initial=0) + 1))[:, None]  # of another number in each row
    targets = np.bincount(sample[counts], minlength=sample.max(initial=0) + 1)[sample]
    weight = counts / np.maximum(targets, 1) ** (1.0 if kind == SAMPLE else 0.5)
    return batch | {TARGET_WEIGHT: weight.astype(np.float32)}
