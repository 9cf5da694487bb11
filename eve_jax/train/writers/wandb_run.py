"""Charts on Weights & Biases, of the extra `wandb`."""

import importlib.util
import os
import secrets
from typing import Any

from eve_jax.errors import UserError, install, shorten
from eve_jax.process.files import read_json, write_json
from eve_jax.process.named import describe_error
from eve_jax.train.metrics import charted
from eve_jax.train.writers.base import Line, RunInfo

KEPT = "wandb.json"  # in the stage folder: the id of its run, which a resumed one continues


def check_wandb() -> None:
    """Raise UserError when the package is not installed."""
    if importlib.util.find_spec("wandb") is None:
        raise UserError(f"config.track: wandb requires the package wandb: {install('wandb')}")


class WandbWriter:
    """Logs the charted metrics of a stage as one run; project, account and mode are those of wandb's environment.

    Without WANDB_PROJECT the project is eve_jax. A run that continues is not sent again what the service has; offline,
    nobody can say what that is. Raises UserError when wandb is not installed or refuses to start.
    """

    def __init__(self, run: RunInfo):
        check_wandb()
        import wandb

        kept = run.folder / KEPT
        if not kept.is_file():
            write_json(kept, {"id": secrets.token_hex(8)})
        own: dict[str, Any] = {"id": read_json(kept).get("id"), "name": run.name, "config": dict(run.config)}
        project = os.environ.get("WANDB_PROJECT", "eve_jax")
        try:
            self._run = wandb.init(project=project, dir=str(run.folder), resume="allow", **own)
            self._run.define_metric("*", step_metric="step")
        except Exception as error:  # of many kinds: no account, no network
            why = _setting(error) or f"{describe_error(error)}; WANDB_MODE=offline needs no account"
            raise UserError(f"config.track: wandb cannot start: {why}") from error
        self._last = int(self._run.summary.get("step") or 0) if self._run.resumed else 0  # the step that it has last

    def write(self, line: Line) -> None:
        """Log the step."""
        if int(line["step"] or 0) > self._last:
            self._log(line)

    def write_evaluation(self, line: Line) -> None:
        """Log what was evaluated after the step."""
        step = int(line["step"] or 0)
        if step > self._last or (step == self._last and not self._has(line)):
            self._log(line)

    def _log(self, line: Line) -> None:
        self._run.log({"step": line["step"], **_charted(line)})

    def _has(self, line: Line) -> bool:
        return all(self._run.summary.get(name) == value for name, value in _charted(line).items())

    def flush(self) -> None:
        """Leave it to wandb's own thread."""

    def close(self) -> None:
        """Upload what is left and end the run."""
        self._run.finish()


def _charted(line: Line) -> dict[str, float]:
    return {name: value for name, value in line.items() if value is not None and charted(name)}


def _setting(error: Exception) -> str:
    """Return which variable of wandb's environment has a value that its settings refuse; "" for another error."""
    found: list[dict[str, Any]] = error.errors() if hasattr(error, "errors") else []
    wrong = found[0] if found else {}
    name = f"WANDB_{wrong['loc'][0]}".upper() if wrong.get("loc") else ""
    if name not in os.environ:
        return ""
    expected = wrong.get("ctx", {}).get("expected")
    return f"{name}={shorten(os.environ[name], 80)}: {f'expected {expected}' if expected else wrong['msg']}"
