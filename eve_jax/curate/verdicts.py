"""What a stage over all records says of each: kept, or the rule that it fails and the value that the rule looked at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eve_jax.curate.rows import Rows, texts
from eve_jax.curate.stage import Stage, write_parquet

SCHEMA = pa.schema({"index": pa.int64(), "rule": pa.string(), "value": pa.string()})


@dataclass(frozen=True, eq=False)
class Verdicts:
    """kept: bool [n]. rules, values: of those that are left out, in order."""

    kept: np.ndarray
    rules: Sequence[str]
    values: Sequence[str]

    @classmethod
    def all_kept(cls, rows: int) -> "Verdicts":
        """Return those of a stage that is off."""
        return cls(np.ones(rows, bool), [], [])

    @classmethod
    def of_spare(cls, rows: Rows, spare: np.ndarray, rule: str) -> "Verdicts":
        """Return those of rows that are spare for others (int64 [n], -1: kept); the value is the id of the other."""
        others = spare[spare >= 0]
        return cls(spare < 0, [rule] * len(others), texts(rows.id, others))

    def then(self, later: "Verdicts") -> "Verdicts":
        """Return these, with those that a second rule gives of the rows that are kept."""
        kept = self.kept.copy()
        kept[self.kept] = later.kept
        said = np.empty((2, len(kept)), object)
        said[:, ~self.kept] = self.rules, self.values
        said[:, np.flatnonzero(self.kept)[~later.kept]] = later.rules, later.values
        rules, values = (one[~kept].tolist() for one in said)
        return Verdicts(kept, rules, values)

    def save(self, stage: Stage, rows: Rows) -> None:
        """Write the verdicts over `rows`: their indices, and rule ("" of what is kept) and value."""
        place = np.where(self.kept, 0, np.cumsum(~self.kept, dtype=np.int32))
        said = {"rule": self.rules, "value": self.values}
        columns = {name: pa.array(["", *given], pa.string()).take(pa.array(place)) for name, given in said.items()}
        stage.folder.mkdir(parents=True, exist_ok=True)
        write_parquet(stage.shard(0), pa.table({"index": rows.index, **columns}, SCHEMA))

    @classmethod
    def load(cls, stage: Stage) -> "Verdicts":
        """Return what `save` wrote."""
        table = stage.read(0)
        kept = pc.equal(table["rule"], "")
        left_out = table.filter(pc.invert(kept))
        return cls(kept.to_numpy(), left_out["rule"].to_pylist(), left_out["value"].to_pylist())
