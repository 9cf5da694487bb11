"""Traces of some steps of a run for TensorBoard's profiler and Perfetto, taken on demand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax

from eve_jax.config.stage import profiled_steps

T = TypeVar("T")
PROFILE = "profile"  # folder of the traces in a stage's folder


class Profiler:
    """Calls a run's steps and traces those of `config.profile.steps` ("FIRST:LAST" counted from 1, or one number; "" =
    none) into `folder`/profile. Raises UserError for anything else."""

    def __init__(self, steps: str, folder: Path):
        self.first, self.last = profiled_steps(steps)
        self.folder = folder / PROFILE
        self._tracing = False
        self._traced: list[int] = []

    def __call__(self, step: int, function: Callable[..., T], *args: Any) -> T:
        """`function(*args)`, which is step `step` (from 1); of a traced step, the last waits for the device."""
        if not self.first <= step <= self.last:
            return function(*args)
        if not self._tracing:
            jax.block_until_ready(args)  # the steps before are not to be in the trace
            jax.profiler.start_trace(self.folder)
            self._tracing = True
        self._traced.append(step)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            result = function(*args)
        if step == self.last:
            jax.block_until_ready(result)
            self.close()
        return result

    def close(self) -> None:
        """End a trace that is being taken; to be called at the end of the run, which may come before its last step."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
            first, last = self._traced[0], self._traced[-1]
            print(f"trace of steps {first} to {last}: tensorboard --logdir={self.folder}", flush=True)
        elif self.last and not self._traced:
            print(f"no step of config.profile.steps={self.first}:{self.last} was run: there is no trace", flush=True)
