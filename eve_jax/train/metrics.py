"""metrics.jsonl, TensorBoard and the progress line of a training run."""

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.process.connect import say
from eve_jax.process.files import write_atomically
from eve_jax.train.flops import Tokens, peak_flops, step_flops
from eve_jax.train.masked import describe_broken

METRICS = "metrics.jsonl"
LOST = "metrics.damaged.jsonl"  # lines of steps that a damaged checkpoint has lost
TIMED = ("seconds", "tokens_per_s", "mfu")  # fields of a line that follow the clock
FIELDS = (
    "step",
    "loss",
    "lr",
    "grad_norm",
    "tokens",
    "vision_tokens",
    "targets",
    "samples",
    "broken",
    "rows",
    "seconds",
    "tokens_per_s",
    "flops",
    "mfu",
)
SCALARS = ("loss", "lr", "grad_norm", "seconds", "tokens_per_s", "mfu")  # of TensorBoard
OPTIONAL = ("align_loss",)  # of a model that aligns


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


def cut_back(folder: Path, step: int, keep_lost: bool = False) -> None:
    """Drop the lines after `step`, which a resumed run writes again; atomic.

    With `keep_lost` they are put at the end of LOST first: what damage has lost is more than a moment's work. Raises
    UserError where that cannot be written; the file is then as it was.
    """
    path = folder / METRICS
    lines = read_metrics(folder)
    kept, lost = ("".join(json.dumps(m) + "\n" for m in lines if (m["step"] > step) == late) for late in (False, True))
    if path.exists() and path.read_text() == kept:
        return
    try:
        if keep_lost and lost:
            with (folder / LOST).open("a") as file:
                file.write(lost)
        write_atomically(path, kept)
    except OSError as error:
        whole = f"; checkpoint {step} is whole" if step else ""
        raise UserError(f"{path} cannot be written: {error.strerror}{whole}") from error


class Meter:
    """Speed of steps that train the groups `trains` on `devices` (of all hosts): useful tokens a second, FLOPs, MFU.

    FLOPs are those of the routed model on real tokens, forward and backward, without recomputation (flops.py). MFU is
    their share of the chips' peak of dense bfloat16 products; None on processors whose peak is not known.
    """

    def __init__(self, cfg: ModelConfig, trains: frozenset[str], devices: Sequence[jax.Device]):
        self.cfg, self.trains = cfg, trains
        peak = peak_flops(devices[0].device_kind)
        self.peak = peak * len(devices) if peak else None

    def __call__(self, record: dict[str, Any]) -> dict[str, float | None]:
        """{tokens_per_s, flops, mfu} of a step's record with its counts, targets and seconds."""
        vision, patches, seconds = record["vision_tokens"], record["patches"], record["seconds"]
        text = record["tokens"] - vision
        tokens = Tokens(patches, vision - patches, text, record["targets"], record["pairs"])
        flops = step_flops(self.cfg, self.trains, tokens).useful
        mfu = flops / (seconds * self.peak) if self.peak else None
        return {"tokens_per_s": record["tokens"] / seconds, "flops": flops, "mfu": mfu}


class MetricsLog:
    """Writes one line a step, in blocks of `log_every` steps and one step late, when the device has moved on.

    A line has FIELDS, and OPTIONAL where the model has them; seconds is the wall time of the block it belongs to,
    divided by the block's steps; a run's first one includes compilation. loss is that of the targets alone. A loss or
    norm that is not finite is null in the file, and its step is one of `take_broken`; those of a step without a target
    are null, too, and no fault of the numbers. `broken` of a line counts the step's samples whose record broke, which
    is said for every block that has any. Without a `folder` nothing is written or shown, and all else is the same: of
    several processes, one writes.
    """

    def __init__(
        self, folder: Path | None, name: str, start: int, steps: int, log_every: int, meter: Meter, quiet: bool = False
    ):
        from tensorboardX import SummaryWriter  # slow to import, and only training needs it

        self.meter = meter
        self.log_every = log_every
        self.path = folder / METRICS if folder else Path(os.devnull)
        self.file = self.path.open("a")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1) if folder else None
        self.broken: list[int] = []
        self._losses: list[float] = []
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
        self.progress = Progress(*columns, disable=quiet or folder is None, refresh_per_second=2)
        self.task = self.progress.add_task(name, total=steps, completed=start, status="compiling ...")
        self.progress.start()

    def add(self, step: int, device_values: dict[str, Any], counts: dict[str, int]) -> None:
        """Take over step `step` (counted from 1); `counts` as `StageData.counts` gives them."""
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
        seconds = (now - self.clock) / len(records)
        self.clock = now
        self.pending = []
        for record in records:
            record |= {"targets": int(record["targets"]), "seconds": seconds}
            if "samples_with_targets" in record:
                record["broken"] = record["samples"] - int(record["samples_with_targets"])
            self._write(record | self.meter(record))
        self._on_disk(self.file.flush)
        if text := describe_broken(records):
            say(f"\n{text}")

    def take_broken(self) -> list[int]:
        """Steps written since the last call whose loss or gradient norm was not finite."""
        broken, self.broken = self.broken, []
        return broken

    def mean_loss(self) -> float | None:
        """Mean of the finite losses written since the last call; None when there were none."""
        losses, self._losses = self._losses, []
        return sum(losses) / len(losses) if losses else None

    def _write(self, values: dict[str, Any]) -> None:
        finite = {k: v for k, v in values.items() if v is not None and math.isfinite(v)}
        line = json.dumps({k: finite.get(k) for k in (*FIELDS, *OPTIONAL) if k in FIELDS or k in values}) + "\n"
        self._on_disk(lambda: self.file.write(line))
        if "loss" in finite and "grad_norm" in finite:
            self._losses.append(values["loss"])
        elif values["targets"]:
            self.broken.append(values["step"])
        for key in (*SCALARS, *OPTIONAL):
            if key in finite and self.board is not None and self._board_lives():
                self.board.add_scalar(key, values[key], values["step"])
        self.rates.append((values["tokens"], values["seconds"]))
        rate = sum(t for t, _ in self.rates) / max(sum(s for _, s in self.rates), 1e-9)
        mfu = "" if values["mfu"] is None else f"  MFU {values['mfu']:.0%}"
        loss = f"loss {values['loss']:.4f}" if values["targets"] else "no targets"
        status = f"{loss}  {rate:,.0f} tokens/s{mfu}"
        self.progress.update(self.task, completed=values["step"], status=status)

    def _on_disk(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}") from error

    def _board_lives(self) -> bool:
        """False when TensorBoard's thread has died of a full disk: then it would have us wait for ever."""
        return self.board is not None and self.board.file_writer.event_writer._worker.is_alive()

    def close(self) -> None:
        """Write what is pending and close the files."""
        try:
            self.flush()
        finally:
            self.progress.stop()
            if self.board is not None and self._board_lives():
                self.board.close()
            self._on_disk(self.file.close)
