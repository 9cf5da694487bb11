"""Metrics of a run on their way from the device to the writers."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import jax
import numpy as np

from eve_jax.model.config import ModelConfig
from eve_jax.process.connect import print_once
from eve_jax.train.flops import Tokens, peak_flops, step_flops
from eve_jax.train.masked import describe_broken
from eve_jax.train.metrics import FIELDS, HIDDEN
from eve_jax.train.writers.base import EvaluationWriter, Writer


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
    """Gives the writers a line for each step, by blocks of `log_every`, one step late: the device has moved on by then.

    A line has FIELDS, and what else the step's dict has but HIDDEN; seconds is the wall time of the block it belongs
    to, divided by the block's steps; a run's first one includes compilation. loss is that of the targets alone. A value
    that is not finite is None in the line; a step whose loss or gradient norm is not finite is one of `pop_non_finite`;
    those of a step without a target are None, too, and no fault of the numbers. `broken` of a line counts the step's
    samples whose record broke, which is said for every block that has any. Of several processes one has writers; all
    else is the same in the others.
    """

    def __init__(self, writers: Sequence[Writer], log_every: int, meter: Meter):
        self.writers = tuple(writers)
        self.meter = meter
        self.log_every = log_every
        self.broken: list[int] = []
        self._losses: list[float] = []
        self.pending: list[dict[str, Any]] = []
        self.clock = time.perf_counter()

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
        for writer in self.writers:
            writer.flush()
        if text := describe_broken(records):
            print_once(text)

    def write_evaluation(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write what was evaluated after `step`, whose line is written; the time since then is of no later step."""
        line = {"step": step, **{k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}}
        for writer in self.writers:
            if isinstance(writer, EvaluationWriter):
                writer.write_evaluation(line)
                writer.flush()
        self.clock = time.perf_counter()

    def pop_non_finite(self) -> list[int]:
        """Steps written since the last call whose loss or gradient norm was not finite."""
        broken, self.broken = self.broken, []
        return broken

    def mean_loss(self) -> float | None:
        """Mean of the finite losses written since the last call; None when there were none."""
        losses, self._losses = self._losses, []
        return sum(losses) / len(losses) if losses else None

    def _write(self, values: dict[str, Any]) -> None:
        finite = {k: v for k, v in values.items() if v is not None and math.isfinite(v)}
        line = {k: finite.get(k) for k in (*FIELDS, *(k for k in values if k not in (*FIELDS, *HIDDEN)))}
        for writer in self.writers:
            writer.write(line)
        if "loss" in finite and "grad_norm" in finite:
            self._losses.append(values["loss"])
        elif values["targets"]:
            self.broken.append(values["step"])

    def close(self) -> None:
        """Write what is pending and close the writers."""
        with ExitStack() as closing:
            for writer in self.writers:
                closing.callback(writer.close)
            self.flush()
