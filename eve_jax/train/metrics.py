"""metrics.jsonl, TensorBoard and the progress line of a training run."""

import json
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

METRICS = "metrics.jsonl"
FIELDS = ("step", "loss", "lr", "grad_norm", "tokens", "vision_tokens", "targets", "rows", "seconds")
OPTIONAL = ("align_loss",)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Every complete line of a stage folder's metrics.jsonl; a line cut off by a kill is left out."""
    path = folder / METRICS
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def cut_back(folder: Path, step: int) -> None:
    """Drop the lines after `step`, which a resumed run writes again; atomic."""
    kept = [m for m in read_metrics(folder) if m["step"] <= step]
    temporary = folder / (METRICS + ".tmp")
    temporary.write_text("".join(json.dumps(m) + "\n" for m in kept))
    temporary.replace(folder / METRICS)


class MetricsLog:
    """Writes one line a step, in blocks of `log_every` steps and one step late, when the device has moved on.

    A step's record is {step, loss, lr, grad_norm, tokens, vision_tokens, targets, rows, seconds}, and align_loss where
    the model aligns; loss is the targets' alone. seconds is the wall time of the block it belongs to, divided by the
    block's steps; a run's first one includes compilation.
    """

    def __init__(self, folder: Path, name: str, start: int, steps: int, log_every: int, quiet: bool = False):
        from tensorboardX import SummaryWriter  # slow to import, and only training needs it

        self.log_every = log_every
        self.file = (folder / METRICS).open("a")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        self.pending: list[dict[str, Any]] = []
        self.clock = time.perf_counter()
        self.rates: deque[tuple[int, float]] = deque(maxlen=20)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, disable=quiet, refresh_per_second=2)
        self.task = self.progress.add_task(name, total=steps, completed=start, status="compiling ...")
        self.progress.start()

    def add(self, step: int, device_values: dict[str, Any], counts: dict[str, int]) -> None:
        """Take over step `step` (counted from 1)."""
        if self.pending and self.pending[-1]["step"] % self.log_every == 0:
            self.flush()
        self.pending.append({"step": step, **device_values, **counts})

    def flush(self) -> None:
        """Write what is pending; waits for the device."""
        if not self.pending:
            return
        records = [
            {k: v if isinstance(v, int) else np.asarray(v).item() for k, v in record.items()} for record in self.pending
        ]
        now = time.perf_counter()
        for record in records:
            seconds = (now - self.clock) / len(records)
            self._write(record | {"targets": int(record["targets"]), "seconds": seconds})
        self.clock = now
        self.pending = []
        self.file.flush()

    def _write(self, values: dict[str, Any]) -> None:
        self.file.write(json.dumps({k: values[k] for k in (*FIELDS, *OPTIONAL) if k in values}) + "\n")
        for key in (k for k in ("loss", "lr", "grad_norm", "seconds", *OPTIONAL) if k in values):
            self.board.add_scalar(key, values[key], values["step"])
        self.rates.append((values["tokens"], values["seconds"]))
        rate = sum(t for t, _ in self.rates) / max(sum(s for _, s in self.rates), 1e-9)
        status = f"loss {values['loss']:.4f}  {rate:,.0f} tokens/s"
        self.progress.update(self.task, completed=values["step"], status=status)

    def close(self) -> None:
        """Write what is pending and close the files."""
        self.flush()
        self.progress.stop()
        self.board.close()
        self.file.close()
