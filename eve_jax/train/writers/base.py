"""The interface of what takes the metrics of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

Line = Mapping[str, int | float | None]  # a step's metrics by name; None for a value that is not finite or not known


class RunInfo(NamedTuple):
    """What a writer is opened for: the stage's folder and name, steps done and in all, its config as plain values.

    quiet: show nothing on the terminal.
    """

    folder: Path
    name: str
    start: int
    steps: int
    config: Mapping[str, Any]
    quiet: bool = False


class Writer(Protocol):
    """Takes a line of metrics for each step, in order; made in the process that leads, with a `RunInfo`.

    A run that is resumed begins after step `start`; lines of later steps that an earlier session wrote are to go,
    are written again, or stay where they come again as they were. Raises UserError for what cannot be written.
    """

    def write(self, line: Line) -> None:
        """Take the metrics of one step."""

    def flush(self) -> None:
        """Put what was taken where it stays: called after each block of steps and before each checkpoint."""

    def close(self) -> None:
        """End; nothing is written later."""


@runtime_checkable
class EvaluationWriter(Writer, Protocol):
    """A writer that takes evaluations, too; one without `write_evaluation` is not told of them."""

    def write_evaluation(self, line: Line) -> None:
        """Take what was evaluated after a step that was written: the step, and names that begin with `eval/`."""
