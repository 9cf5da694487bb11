"""Which checkpoints are kept for being the best by a metric."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Best:
    """Keeps the checkpoints with the `n` best values of a metric, the newer of equal ones; a policy of Orbax.

    Attributes:
        n: how many are kept.
        name: of the metric.
        largest: whether the largest values are the best.
        known: values by step that are not stored with the checkpoint: of what was measured after it was saved.
    """

    n: int
    name: str = "loss"
    largest: bool = False
    known: dict[int, float] = field(default_factory=dict)

    def value(self, metrics: Mapping[str, float] | None) -> float:
        """Return the value among the metrics of a checkpoint, NaN where it is missing."""
        return float((metrics or {}).get(self.name, math.nan))

    def note(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Take the value of checkpoint `step` from `metrics`, if it is there."""
        if (value := metrics.get(self.name)) is not None:
            self.known[step] = value

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any = None) -> list[bool]:
        """Return of each checkpoint, the oldest first, whether it is kept; one without a finite value is not."""
        values = [self.known.get(info.step, self.value(info.metrics)) for info in checkpoints]
        sign = -1 if self.largest else 1
        ranked = sorted((sign * value, -index) for index, value in enumerate(values) if math.isfinite(value))
        kept = {-index for _, index in ranked[: self.n]}
        return [index in kept for index in range(len(checkpoints))]
