"""Where a run's time went: starting, compiling, waiting for data, saving, and the steps themselves."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import jax

from eve_jax.errors import amount
from eve_jax.process.beats import beat
from eve_jax.process.connect import is_leader, peers
from eve_jax.process.files import refuse_pipe, write_json

GOODPUT = "goodput.json"
KINDS = ("start", "compile", "data", "save", "eval", "step")
T = TypeVar("T")
_COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")


class Goodput:
    """Seconds of one session of a stage by kind; what no other kind claims is `step`.

    start: until the first batch is asked for. compile: lowering and compiling, wherever it happens, in the main thread;
    of several processes also what steps wait for the one that compiles longest (each tells the others its seconds).
    data: waiting for a batch. save: while a save holds up training, at the end until it is written. eval: while the
    model is evaluated (`config.eval`).
    """

    def __init__(self, folder: Path):
        self.path = folder / GOODPUT
        refuse_pipe(self.path)
        self.began = datetime.now(UTC).isoformat(timespec="seconds")
        self.clock = time.perf_counter()
        self.seconds = dict.fromkeys(KINDS, 0.0)
        self.first_step = self.last_step = 0
        self._now = "step"
        self._compiled = self._told = 0.0  # seconds that steps of this process compiled, and what the others know of it
        self._behind = 0.0  # seconds more that those of another process did
        self._earlier: list[dict[str, Any]] | None = None  # read late: another run may still write it

    def __enter__(self) -> "Goodput":
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        return self

    def __exit__(self, *exc: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event in _COMPILING:
            self.seconds["compile"] += duration_secs
            if self._now == "step":
                self._compiled += duration_secs
            else:
                self.seconds[self._now] -= duration_secs

    @contextmanager
    def on(self, kind: str) -> Iterator[None]:
        """Time in here is of `kind`."""
        beat()
        began, self._now = time.perf_counter(), kind
        try:
            yield
        finally:
            self.seconds[kind] += time.perf_counter() - began
            self._now = "step"
            beat()

    def waiting(self, items: Iterator[T]) -> Iterator[T]:
        """The same items; the time until each comes is of kind data."""
        while True:
            self._exchange()
            with self.on("data"):
                item = next(items, None)
            if item is None:
                return
            yield item

    def _exchange(self) -> None:
        """Tell the other processes how long steps compiled here, and learn it of them; nobody waits."""
        others = peers()
        if others is None:
            return
        where = f"compiled/{self.path.parent.name}/"
        if self._compiled != self._told:
            self._told = self._compiled
            others.put(f"{where}{others.index}", str(self._told))
        if is_leader():
            self._behind = max(0.0, *map(float, others.found(where).values()), self._compiled) - self._compiled

    def totals(self) -> dict[str, float]:
        """Seconds by kind until now; they add up to the time since the session began."""
        others = {kind: max(0.0, self.seconds[kind]) for kind in KINDS if kind != "step"}
        steps = max(0.0, time.perf_counter() - self.clock - sum(others.values()))
        waited = min(self._behind, steps)
        return others | {"compile": others["compile"] + waited, "step": steps - waited}

    def write(self, step: int) -> None:
        """Put this session, which has come to `step`, at the end of the folder's list of sessions; atomic.

        A disk that is full is for those to report who write what matters.
        """
        self.last_step = step
        self._exchange()
        if not is_leader():
            return
        if self._earlier is None:
            self._earlier = read_goodput(self.path.parent)
        seconds = {kind: round(s, 3) for kind, s in self.totals().items()}
        mine = {"began": self.began, "first_step": self.first_step, "last_step": step, "seconds": seconds}
        with suppress(OSError):
            write_json(self.path, [*self._earlier, mine], indent=1, sort_keys=False)

    def summary(self) -> str:
        """One line for the end of a run."""
        return describe(self.totals(), self.last_step - self.first_step)


def describe(seconds: dict[str, float], steps: int) -> str:
    """`120 steps in 63.0 s: 56.0% steps, 30.1% compile, ...` of seconds by kind."""
    total = max(sum(seconds.values()), 1e-9)
    names = {"step": "steps", "data": "data wait", "save": "saving", "eval": "evaluation"}
    shown = ("step", "start", "compile", "data", "save") + ("eval",) * bool(seconds.get("eval"))
    parts = [f"{seconds[k] / total:.1%} {names.get(k, k)}" for k in shown]
    return f"{amount(steps, 'step')} in {total:,.1f} s: {', '.join(parts)}"


def read_goodput(folder: Path) -> list[dict[str, Any]]:
    """Sessions of a stage folder, each {began, first_step, last_step, seconds by kind}; killed ones as last saved."""
    refuse_pipe(folder / GOODPUT)
    try:
        sessions = json.loads((folder / GOODPUT).read_text())
    except (OSError, ValueError):
        return []
    return sessions if isinstance(sessions, list) else []
