"""Experts look at the images that are left: their findings are a column, in a file a shard; what is there stays."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from eve_jax.curate.experts.config import ExpertsConfig
from eve_jax.curate.experts.endpoint import ImageRefused
from eve_jax.curate.experts.form import write_findings
from eve_jax.curate.experts.open import opened_experts
from eve_jax.curate.rows import Rows, Wanted, by_shard
from eve_jax.curate.stage import Stage, key_of
from eve_jax.curate.stages.adding import Adding
from eve_jax.curate.stages.measure import Measure
from eve_jax.curate.verdicts import Verdicts
from eve_jax.data.image.patches import open_image

NAME, VERSION, RULE = "experts", 1, "refused"
SCHEMA = pa.schema({"index": pa.int64(), "experts": pa.string(), "refused": pa.string()})


@dataclass(frozen=True, eq=False)
class Look(Adding):
    """Makes the findings about the records of a shard that are in `wanted` and not there yet."""

    config: ExpertsConfig

    def made(self, number: int) -> np.ndarray:
        """Return the records of shard `number` that have findings, int64 [n]."""
        if not self.stage.shard(number).is_file():
            return np.zeros(0, np.int64)
        return self.stage.read(number, ["index"])["index"].to_numpy()

    def __call__(self, number: int) -> None:
        """Write the findings of shard `number`."""
        rows = [self._row(int(one)) for one in self.left(number)]
        if self.stage.shard(number).is_file():
            rows += self.stage.read(number).to_pylist()
        rows.sort(key=lambda row: row["index"])
        self.stage.write(number, {name: [row[name] for row in rows] for name in SCHEMA.names}, SCHEMA)

    def _row(self, index: int) -> dict[str, Any]:
        look = opened_experts(self.config)
        image = open_image(self.source.open()[index].images[0], self.max_pixels)
        try:
            return {"index": index, "experts": write_findings(look(np.asarray(image))), "refused": ""}
        except ImageRefused as error:
            return {"index": index, "experts": "", "refused": str(error)}


def look_stage(measure: Measure, config: ExpertsConfig, index: np.ndarray) -> Look:
    """Return what has experts look at the records `index`, int64 [n] ascending, of those that `measure` measured."""
    settings = {name: asdict(getattr(config, name)) for name in sorted(config.names)}
    key = key_of(NAME, VERSION, settings, measure.stage.key)
    return Look(
        Stage(measure.stage.out, NAME, key),
        measure.source,
        measure.size,
        measure.max_pixels,
        Wanted.of(measure.stage.out, index),
        config,
    )


def refused(look: Look, rows: Rows) -> Verdicts:
    """Return what is left of `rows`, those that `look` saw, without the images that an endpoint did not take."""
    said = []
    for number, span in by_shard(rows.index, look.size):
        table = look.stage.read(number, ["index", "refused"])
        at = np.searchsorted(table["index"].to_numpy(), rows.index[span])
        said += table["refused"].take(pa.array(at)).to_pylist()
    kept = np.array([not one for one in said], bool)
    return Verdicts(kept, [RULE] * int((~kept).sum()), [one for one in said if one])


def findings(stage: Stage, index: np.ndarray, size: int) -> list[str]:
    """Return what the experts found in the records `index`, int64 [n] ascending, as JSON."""
    found = []
    for number, span in by_shard(index, size):
        table = stage.read(number, ["index", "experts"])
        at = np.searchsorted(table["index"].to_numpy(), index[span])
        found += table["experts"].take(pa.array(at)).to_pylist()
    return found
