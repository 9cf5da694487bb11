"""Charts in MLflow, of the extra `mlflow`."""

import importlib.util
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from eve_jax.errors import UserError, install, warn
from eve_jax.process.files import read_json, write_json
from eve_jax.process.named import describe_error
from eve_jax.train.metrics import charted
from eve_jax.train.writers.base import Line, RunInfo

KEPT = "mlflow.json"  # in the stage folder: the id of its run, which a resumed one continues
DATABASE = "mlflow.db"  # there, where the environment names no server
MOST_METRICS, MOST_PARAMS, MOST_TEXT = 1000, 100, 500  # of a request; characters of a parameter


def check_mlflow() -> None:
    """Raise UserError when the package is not installed."""
    if importlib.util.find_spec("mlflow") is None:
        raise UserError(f"config.track: mlflow requires the package mlflow: {install('mlflow')}")


class MlflowWriter:
    """Logs the charted metrics of a stage, and its config as parameters, as one run.

    Server and experiment are those of MLflow's environment (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME), else
    mlflow.db in the stage folder and eve_jax. What cannot be sent is sent with the next lines, and a warning printed.
    Raises UserError when MLflow is not installed or refuses to start.
    """

    def __init__(self, run: RunInfo):
        check_mlflow()
        from mlflow.tracking import MlflowClient

        self._pending: list[tuple[str, float, int, int]] = []  # name, value, time in ms, step
        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(run.folder / DATABASE).resolve()}"
        try:
            self._client = MlflowClient(tracking_uri=place)
            self._id = self._begun(run)
        except Exception as error:  # of many kinds: no server, no account, another database
            raise UserError(f"config.track: mlflow cannot start at {place}: {describe_error(error)}") from error

    def _begun(self, run: RunInfo) -> str:
        """Return the id of the stage's run: the kept one, which continues, or a new one."""
        kept = run.folder / KEPT
        if kept.is_file():
            found = str(read_json(kept).get("id"))
            self._client.update_run(found, status="RUNNING")
            return found
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "eve_jax")
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
                self._client.log_batch(self._id, metrics=[Metric(*one) for one in some])
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


def _flat(tree: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{at}{key}.")
        elif value is not None:
            yield f"{at}{key}", value
