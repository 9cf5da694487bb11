"""Samples whose record broke while training, so that their loss is masked: said as they come, summed up at the end."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from eve_jax.data.rows.bad_records import BAD_RECORDS_FILE, most_broke
from eve_jax.errors import UserError, amount
from eve_jax.process.connect import is_leader, print_once
from eve_jax.train.metrics import read_metrics


class Masked(NamedTuple):
    """Of the steps of a stage so far, all sessions together: samples, those of them that broke, and targets."""

    samples: int
    broken: int
    targets: int

    @classmethod
    def of(cls, metrics: Iterable[Mapping[str, Any]]) -> Self:
        """Return the sums over lines of metrics.jsonl; lines without a count of samples are left out."""
        counted = [m for m in metrics if m.get("samples")]
        return cls(*(sum(m.get(field) or 0 for m in counted) for field in cls._fields))

    def summary(self, folder: Path) -> str:
        """Return one line for the end of a run in the stage folder `folder`, "" when nothing broke."""
        if not self.broken:
            return ""
        return (
            f"{self.broken:,} of {amount(self.samples, 'sample')} broke while training: see {folder / BAD_RECORDS_FILE}"
        )

    def check(self, folder: Path) -> None:
        """Raise UserError when more than half of the samples broke, or no target was left."""
        if not self.samples or (self.targets and not most_broke(self.broken, self.samples)):
            return
        left = "" if self.targets else "; no target was left, so the weights are those that it began with"
        raise UserError(
            f"{self.summary(folder) or folder}{left}. Fix the records and train again in another --workdir; the "
            "checkpoints are kept"
        )


def describe_broken(steps: Sequence[Mapping[str, Any]]) -> str:
    """Return one line about the steps of a logged block in which a sample broke, "" when there are none."""
    broken, samples, targets = (sum(s.get(name) or 0 for s in steps) for name in ("broken", "samples", "targets"))
    if not broken:
        return ""
    first, last = steps[0]["step"], steps[-1]["step"]
    where = f"step {last}" if first == last else f"steps {first} to {last}"
    empty = sum(not s["targets"] for s in steps) if first < last else 0
    without = f", {empty:,} of {amount(len(steps), 'step')} without a target" if empty else ""
    return f"{where}: {broken:,} of {amount(samples, 'sample')} broke, {amount(targets, 'target')}{without}"


def say_masked(folder: Path) -> None:
    """Say how many samples of the stage so far broke, if any did."""
    if is_leader() and (text := Masked.of(read_metrics(folder)).summary(folder)):
        print_once(text)


def check_masked(folder: Path) -> None:
    """Raise UserError, in the process that leads, when most samples of the finished stage broke."""
    if is_leader():
        Masked.of(read_metrics(folder)).check(folder)
