"""Charts in MLflow, of the extra `mlflow`."""

import importlib.util
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from eve_jax.errors import UserError, install, warn
from eve_jax.process.files import read_json, write_json
from eve_jax.process.named import describe_error
from eve_jax.process.unreached import unreached
from eve_jax.train.metrics import TIMED, charted
from eve_jax.train.writers.base import Line, RunInfo

KEPT = "mlflow.json"  # in the stage folder: the id of its run, which a resumed one continues
DATABASE = "mlflow.db"  # there, where the environment names no server
MOST_METRICS, MOST_PARAMS, MOST_TEXT = 1000, 100, 500  # of a request; characters of a parameter

SERVER = "MLFLOW_TRACKING_URI"
BRIEFLY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}  # seconds; of the first request


def check_mlflow() -> None:
    """Raise UserError when the package is not installed."""
    if importlib.util.find_spec("mlflow") is None:
        raise UserError(f"config.track: mlflow requires the package mlflow: {install('mlflow')}")


class MlflowWriter:
    """Logs the charted metrics of a stage, and its config as parameters, as one run.

    Server and experiment are those of MLflow's environment (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME), else
    mlflow.db in the stage folder and eve_jax. What cannot be sent is sent with the next lines, and a warning printed.
    A run that continues is not sent again what it has. Raises UserError when MLflow is not installed, its server does
    not answer, or it refuses to start.
    """

    _sent: "_Sent | None" = None

    def __init__(self, run: RunInfo):
        check_mlflow()
        from mlflow.tracking import MlflowClient

        self._pending: list[tuple[str, float, int, int]] = []  # name, value, time in ms, step
        place = os.environ.get(SERVER) or f"sqlite:///{(run.folder / DATABASE).resolve()}"
        try:
            self._client = MlflowClient(tracking_uri=place)
            self._id = self._begun(run)
        except Exception as error:  # of many kinds: no server, no account, another database
            raise UserError(f"config.track: mlflow cannot start at {_why(place, error)}") from error

    def _begun(self, run: RunInfo) -> str:
        """Return the id of the stage's run: the kept one, which continues, or a new one."""
        kept = run.folder / KEPT
        if kept.is_file():
            found = str(read_json(kept).get("id"))
            with _briefly():
                self._client.update_run(found, status="RUNNING")
            self._sent = _Sent(partial(self._client.get_metric_history, found), run.start)
            return found
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "eve_jax")
        with _briefly():
            experiment = self._client.get_experiment_by_name(name)
        where = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        found = str(self._client.create_run(where, run_name=run.name).info.run_id)
        params = [Param(key, str(value)[:MOST_TEXT]) for key, value in _flat(run.config)]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(found, params=params[first : first + MOST_PARAMS])
        write_json(kept, {"id": found})
        return found

    def write(self, line: Line) -> None:
        """Take the step."""
        now, step = int(time.time() * 1000), int(line["step"] or 0)
        for name, value in line.items():
            if value is not None and charted(name):
                self._pending.append((re.sub(r"[^\w./ -]", "_", name), float(value), now, step))

    write_evaluation = write

    def flush(self) -> None:
        """Send what was taken."""
        from mlflow.entities import Metric

        while self._pending:
            some = self._pending[:MOST_METRICS]
            try:
                if new := [Metric(*one) for one in some if not (self._sent and self._sent.has(*one))]:
                    self._client.log_batch(self._id, metrics=new)
            except Exception as error:  # of many kinds; the run's own metrics.jsonl has the lines
                warn(f"mlflow does not take the metrics, which are kept and sent later: {describe_error(error)}")
                return
            del self._pending[:MOST_METRICS]

    def close(self) -> None:
        """Send what is left and end the run."""
        self.flush()
        try:
            self._client.set_terminated(self._id)
        except Exception as error:  # as above
            warn(f"mlflow was not told that the run has ended: {describe_error(error)}")
        if self._pending:
            warn(f"mlflow lacks the last {len(self._pending):,} values; metrics.jsonl has them")


class _Sent:
    """What a run that continues after step `start` has of later steps; asked for when such a step comes again.

    history: gives all values of a metric, with their steps.
    """

    def __init__(self, history: Callable[[str], list[Any]], start: int):
        self._history, self._start, self._last = history, start, -1
        self._values: dict[str, dict[int, float]] = {}

    def has(self, name: str, value: float, _: int, step: int) -> bool:
        """Whether the run has the value, or, of what follows the clock, any of that step."""
        if not self._values:
            self._last = max((step for name in ("loss", "lr") for step in self._of(name)), default=-1)
        had = self._of(name).get(step) if step <= self._last else None
        return had is not None and (name in TIMED or had == value)

    def _of(self, name: str) -> dict[int, float]:
        if name not in self._values:
            found = self._history(name)
            self._values[name] = {one.step: one.value for one in found if one.step >= self._start}
        return self._values[name]


@contextmanager
def _briefly() -> Iterator[None]:
    """Do not wait for a server that does not answer longer than BRIEFLY says, or the environment."""
    ours = {name: value for name, value in BRIEFLY.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def _why(place: str, error: Exception) -> str:
    """Return where and why MLflow does not start, without a password that the address may hold."""
    place, given = re.sub(r"//[^/@]*@", "//", place), f" ({SERVER})" if os.environ.get(SERVER) else ""
    if place.startswith("http") and (why := unreached(error)):
        return f"{place}{given}: no server answers there ({why}); start it, or set {SERVER} to one that runs"
    return f"{place}{given}: {describe_error(error)}"


def _flat(tree: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{at}{key}.")
        elif value is not None:
            yield f"{at}{key}", value
