"""A stage whose shards grow: what was made of a record stays, and only records that lack it are looked at."""

from dataclasses import dataclass

import numpy as np

from eve_jax.curate.rows import Wanted, by_shard
from eve_jax.curate.stage import Stage
from eve_jax.curate.stages.measure import Source


@dataclass(frozen=True, eq=False)
class Adding:
    """What makes something of the records in `wanted`, in shards of `size` records of the source each.

    Its key does not depend on the filter: after a threshold changed, only records that never had it get it. A subclass
    says by `made` for which records of a shard it is there, int64 [n].
    """

    stage: Stage
    source: Source
    size: int
    max_pixels: int
    wanted: Wanted

    @property
    def index(self) -> np.ndarray:
        """Return the records, int64 [n] ascending."""
        return self.wanted.index

    def missing(self) -> list[int]:
        """Return the numbers of the shards that lack some of the records, and make the folder."""
        self.stage.folder.mkdir(parents=True, exist_ok=True)
        return [number for number, span in by_shard(self.index, self.size) if len(self._left(number, span))]

    def left(self, number: int) -> np.ndarray:
        """Return the records that shard `number` lacks, int64 [n] ascending."""
        return self._left(number, next(span for shard, span in by_shard(self.index, self.size) if shard == number))

    def made(self, number: int) -> np.ndarray:
        """Return the records that shard `number` has, int64 [n]."""
        raise NotImplementedError

    def _left(self, number: int, span: slice) -> np.ndarray:
        return np.setdiff1d(self.index[span], self.made(number))
