"""metrics.jsonl: one JSON object a step, which reports and a resumed run read back."""

import json
from collections.abc import Callable
from typing import Any

from eve_jax.errors import UserError
from eve_jax.train.metrics import METRICS
from eve_jax.train.writers.base import Line, RunInfo


class JsonlWriter:
    """Appends to the folder's metrics.jsonl; lines that a resumed run writes again are dropped before."""

    def __init__(self, run: RunInfo):
        self.path = run.folder / METRICS
        self._file = self._on_disk(lambda: self.path.open("a"))

    def write(self, line: Line) -> None:
        """Append `line`."""
        self._on_disk(lambda: self._file.write(json.dumps(line) + "\n"))

    write_evaluation = write

    def flush(self) -> None:
        """Hand all lines to the system, so that they survive this process."""
        self._on_disk(self._file.flush)

    def close(self) -> None:
        """Close the file."""
        self._on_disk(self._file.close)

    def _on_disk(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}") from error
