"""`config.track`: Weights & Biases and MLflow themselves, without network; skipped where an extra is not installed."""

import json
import os
import re
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from configs import base
from eve_jax.config.stage import Config
from eve_jax.errors import UserError
from eve_jax.train.lineage import FREE_FIELDS
from eve_jax.train.writers.base import EvaluationWriter, RunInfo
from eve_jax.train.writers.mlflow_run import KEPT, MlflowWriter, _Sent
from eve_jax.train.writers.open import open_writers, split_writers, with_trackers

ROOT = Path(__file__).parents[2]
CONFIG = {"seed": 1, "optim": {"lr": 0.5, "groups": {"text": None}}, "long": "x" * 9000}


def test_the_field() -> None:
    assert Config.of(base.get_config("tiny")).track == "" and "track" in FREE_FIELDS
    assert with_trackers("tensorboard,progress", "") == "tensorboard,progress"
    assert with_trackers("none", "wandb, mlflow") == with_trackers("wandb,mlflow", "mlflow") == "wandb,mlflow"
    with pytest.raises(
        UserError, match=r"config\.track=tensorboard: unknown tracker 'tensorboard'; known: wandb, mlflow"
    ):
        with_trackers("none", "tensorboard")


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_without_the_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        UserError, match=rf"config\.track: {name} requires .* pip install -c constraints.txt -e '\.\[{name}\]'"
    ):
        split_writers(name)


def log(name: str, folder: Path, start: int, steps: list[int]) -> None:
    """Write what a session of a run does: steps, a metric that is not finite, an evaluation."""
    _, writer = open_writers(name, RunInfo(folder, "stage3", start, 4, CONFIG))
    for step in steps:
        writer.write({"step": step, "loss": 2.0 / step, "tokens": 5, "grad_norm": None, "own:a": 1.5})
        writer.flush()
    assert isinstance(writer, EvaluationWriter)
    writer.write_evaluation({"step": steps[-1], "eval/loss/a.jsonl": 1.25})
    writer.close()


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    for variable, value in {"MODE": "offline", "SILENT": "true", "DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"WANDB_{variable}", value)
    log("wandb", tmp_path, 0, [1, 2])
    log("wandb", tmp_path, 2, [3])
    id = json.loads((tmp_path / "wandb.json").read_text())["id"]
    files = list((tmp_path / "wandb").glob(f"offline-run-*-{id}/run-{id}.wandb"))
    assert files
    stored = b"".join(file.read_bytes() for file in files)
    for said in (b"loss", b"own:a", b"eval/loss/a.jsonl", b"stage3", b"eve_jax"):
        assert said in stored
    assert b"grad_norm" not in stored


def test_wandb_goes_on_where_the_service_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that a killed session sent are not sent again, nor an evaluation that came with the last of them."""
    logged: list[dict[str, Any]] = []

    class Run(SimpleNamespace):
        def log(self, values: dict[str, Any]) -> None:
            logged.append(values)
            self.summary.update(values)

        def define_metric(self, name: str, step_metric: str) -> None:
            assert (name, step_metric) == ("*", "step")

        def finish(self) -> None:
            pass

    wandb = ModuleType("wandb")
    wandb.__spec__ = ModuleSpec("wandb", None)
    summary: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for resumed, start, steps in ((False, 0, [1, 2, 3]), (True, 1, [2, 3]), (True, 1, [2, 3, 4])):
        wandb.__dict__["init"] = lambda resumed=resumed, **_: Run(resumed=resumed, summary=summary)
        log("wandb", tmp_path, start, steps)
    assert [(values["step"], values.get("loss")) for values in logged] == [
        *((1, 2.0), (2, 1.0), (3, 2.0 / 3), (3, None)),
        *((4, 0.5), (4, None)),
    ]


def test_a_wrong_setting_of_wandb_is_named(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    code = (
        "from pathlib import Path\n"
        "from eve_jax.train.writers.wandb_run import WandbWriter\n"
        "from eve_jax.train.writers.base import RunInfo\n"
        "try: WandbWriter(RunInfo(Path(), 'stage3', 0, 4, {}))\n"
        "except Exception as error: print(error)\n"
    )
    for name, value, said in (
        ("WANDB_MODE", "banana", "expected 'online', 'offline', .*'"),
        ("WANDB_SILENT", "perhaps", "Input should be .*"),
    ):
        env = os.environ | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", name: value}
        command = [sys.executable, "-c", code]  # wandb reads its environment once in a process
        said_now = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
        assert re.fullmatch(rf"config\.track: wandb cannot start: {name}={value}: {said}\n", said_now)
        assert len(said_now) < 200


def test_what_mlflow_has_is_known_by_step_and_value() -> None:
    asked: list[str] = []
    stored = {"loss": {1: 3.0, 2: 2.0, 3: 1.0}, "seconds": {2: 0.5}}

    def history(name: str) -> list[Any]:
        asked.append(name)
        return [SimpleNamespace(step=step, value=value) for step, value in stored.get(name, {}).items()]

    sent = _Sent(history, 1)
    assert [sent.has("loss", value, 0, step) for step, value in ((2, 2.0), (3, 1.5), (4, 1.0))] == [True, False, False]
    assert sent.has("seconds", 0.75, 0, 2) and not sent.has("mfu", 0.5, 0, 2)  # what follows the clock is never equal
    assert not sent.has("own:a", 0.5, 0, 4)
    assert asked == ["loss", "lr", "seconds", "mfu"]  # each once, and none for a step after the last


def test_an_mlflow_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the variable, without the password, and without the client's retries of minutes."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        open_writers("mlflow", RunInfo(tmp_path, "stage3", 0, 4, {}))
    assert time.monotonic() - began < 15 and "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    where = "http://127.0.0.1:9 (MLFLOW_TRACKING_URI)"
    assert str(caught.value).startswith(f"config.track: mlflow cannot start at {where}: no server answers there (Conn")


@pytest.mark.slow
def test_mlflow_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that were sent after the last checkpoint are trained again and there once."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log("mlflow", tmp_path, 0, [1, 2, 3, 4])
    log("mlflow", tmp_path, 2, [3, 4])
    log("mlflow", tmp_path, 2, [3, 4, 5, 6])
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    id = json.loads((tmp_path / KEPT).read_text())["id"]
    for name, steps in (("loss", [1, 2, 3, 4, 5, 6]), ("own_a", [1, 2, 3, 4, 5, 6]), ("eval/loss/a.jsonl", [4, 6])):
        assert [metric.step for metric in client.get_metric_history(id, name)] == steps


@pytest.mark.slow
def test_mlflow_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log("mlflow", tmp_path, 0, [1, 2])
    log("mlflow", tmp_path, 2, [3])
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    id = json.loads((tmp_path / KEPT).read_text())["id"]
    run = client.get_run(id)
    assert run.info.run_name == "stage3" and run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == "eve_jax"
    losses = client.get_metric_history(id, "loss")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 2.0), (2, 1.0), (3, 2.0 / 3)]
    assert run.data.metrics.keys() == {"loss", "own_a", "eval/loss/a.jsonl"}
    assert (run.data.params["optim.lr"], run.data.params["seed"]) == ("0.5", "1")
    assert "optim.groups.text" not in run.data.params and set(run.data.params["long"]) == {"x"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nothing://here")
    with pytest.raises(UserError, match=r"config\.track: mlflow cannot start at nothing://here"):
        open_writers("mlflow", RunInfo(tmp_path, "stage3", 0, 4, {}))


def test_what_mlflow_does_not_take_is_sent_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    sent: list[Any] = []

    class Client:
        down = True

        def log_batch(self, id: str, metrics: list[Any]) -> None:
            if self.down:
                raise ConnectionError("no route")
            sent.extend((id, one.key, one.step) for one in metrics)

        def set_terminated(self, id: str) -> None:
            sent.append(id)

    writer = MlflowWriter.__new__(MlflowWriter)
    writer._pending, writer._id, client = [], "r", Client()
    writer._client = client
    writer.write({"step": 1, "loss": 2.0})
    writer.flush()
    assert "mlflow does not take the metrics, which are kept and sent later" in capsys.readouterr().err and not sent
    client.down = False
    writer.write({"step": 2, "loss": 1.0})
    writer.close()
    assert sent == [("r", "loss", 1), ("r", "loss", 2), "r"]
