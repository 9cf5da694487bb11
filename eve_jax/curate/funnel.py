"""How many records each stage was given, which rules left some out, and a line about every record that is left out."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, TextIO

import pyarrow.compute as pc

from eve_jax.curate.rows import Rows, texts
from eve_jax.curate.stage import Stage
from eve_jax.curate.stages.filter import UNUSABLE
from eve_jax.curate.verdicts import Verdicts

FUNNEL, REJECTED = "funnel.json", "rejected.jsonl"
MEASURED = ("ingest", "measure", "filter")  # stages of the rules that look at one record alone


@dataclass
class Funnel:
    """Counts by stage and rule, and where the lines of rejected.jsonl go."""

    records: int
    file: TextIO
    stages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """Return how many records are left."""
        return self.stages[-1]["kept"] if self.stages else self.records

    def add_shards(self, measured: Stage, filtered: Stage, shards: int) -> None:
        """Count and write what the rules of ingest, measure and filter leave out."""
        counts: dict[str, Counter[str]] = {stage: Counter() for stage in MEASURED}
        for number in range(shards):
            verdict = filtered.read(number, ["rule", "value"])
            left_out = pc.not_equal(verdict["rule"], "")
            said = measured.read(number, ["index", "id", "where"]).filter(left_out)
            columns = [*said.columns, *verdict.filter(left_out).columns]
            for index, id, where, rule, value in zip(*(column.to_pylist() for column in columns), strict=True):
                stage = UNUSABLE.get(rule, "filter")
                counts[stage][rule] += 1
                self._write(index=index, id=id, where=where, stage=stage, rule=rule, value=value)
        for stage in MEASURED:
            self._count(stage, counts[stage])

    def add(self, stage: str, rows: Rows, verdicts: Verdicts) -> Rows:
        """Count and write what a stage leaves out of `rows`; return those that are left."""
        left = (~verdicts.kept).nonzero()[0]
        lines = zip(rows.index[left].tolist(), texts(rows.id, left), verdicts.rules, verdicts.values, strict=True)
        for index, id, rule, value in lines:
            self._write(index=index, id=id, stage=stage, rule=rule, value=value)
        self._count(stage, Counter(verdicts.rules))
        return rows.take(verdicts.kept)

    def _write(self, **line: Any) -> None:
        self.file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _count(self, stage: str, rejected: Counter[str]) -> None:
        entered = self.kept
        left, rules = entered - rejected.total(), dict(sorted(rejected.items()))
        self.stages.append({"stage": stage, "in": entered, "kept": left, "rejected": rules})

    def summary(self) -> dict[str, Any]:
        """Return what funnel.json holds."""
        return {"in": self.records, "kept": self.kept, "stages": self.stages}


def lines(funnel: dict[str, Any]) -> list[str]:
    """Return the funnel as lines of text."""
    said = [f"{funnel['in']:,} records"]
    for stage in funnel["stages"]:
        rules = ", ".join(f"{rule} {count:,}" for rule, count in stage["rejected"].items())
        if rules:
            said.append(f"  {stage['stage']:<9} {stage['kept']:>12,} left   {rules}")
    return [*said, f"{funnel['kept']:,} kept"]
