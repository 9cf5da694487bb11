"""Runs whose records, images, tokenizer and work folder are in a bucket have the losses of local ones, bit for bit.

By default with the server of `tests.buckets`; the slow tests also with moto's server and gcp-storage-emulator where
$EVE_EMULATORS names the folder of their commands (docs/remote.md#tests), whatever environment they are installed in.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from eve_jax.demo.dataset import write_dataset
from eve_jax.process import buckets, fetched, places
from eve_jax.train.metrics import TIMED, read_metrics
from eve_jax.train.trainer import train
from launch._configs import load_config
from tests.buckets import SAID, serving
from tests.train.test_kills import fields as local_fields

ROOT = Path(__file__).parents[2]
STEPS = 24
KILLS = 10


def fields(data: str, steps: int = STEPS) -> dict[str, object]:
    # An events file begins empty, which gcp-storage-emulator cannot store.
    return local_fields(data, steps) | {"train.writers": "none"}


def config(data: str, steps: int) -> ConfigDict:
    c = load_config("stage1:llm=tiny")
    c.update_from_flattened_dict(fields(data, steps))
    return c


def lines(stage: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in TIMED} for line in read_metrics(stage)]


def send(folder: Path, url: str) -> None:
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    buckets.together(lambda path: buckets.upload(path, f"{url}/{path.relative_to(folder)}"), files)


@pytest.mark.slow
def test_a_run_goes_on_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun on one machine, copied to a bucket as a kill left it, and resumed there by another machine."""
    data = tmp_path / "data"
    write_dataset(data, "tiny")
    local = train(config(str(data), 4), tmp_path / "local", quiet=True)
    monkeypatch.setenv("EVE_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(fetched, "_done", {})
    with serving() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        send(data, "s3://bkt/data")
        send(local, "s3://bkt/runs/stage1")
        server.remove("runs/stage1/checkpoints/4/manifest.json")  # its last save was not finished
        stage = train(config("s3://bkt/data", 4), "s3://bkt/runs", quiet=True)
        assert places.url_of(stage) == "s3://bkt/runs/stage1"
    assert lines(stage) == lines(local)
    assert json.loads(server.objects["runs/stage1/goodput.json"][0])[-1]["first_step"] == 2
    kept = {key.split("/")[3] for key in server.objects if key.startswith("runs/") and key.endswith("/manifest.json")}
    assert kept == {"2", "4"}
    assert "runs/stage1/run.lock" not in server.objects


@contextmanager
def emulator(name: str, folder: Path) -> Iterator[dict[str, str]]:
    """The variables that lead to a server that has an empty bucket `bkt`."""
    if name == "own":
        with serving() as server:
            yield server.env
        return
    commands = {"moto": "moto_server", "gcp": "gcp-storage-emulator"}
    command = Path(os.environ.get("EVE_EMULATORS", "")) / commands[name]
    if not os.environ.get("EVE_EMULATORS") or not command.exists():
        pytest.skip(f"EVE_EMULATORS names no folder with {commands[name]}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = ["-p", str(port)] if name == "moto" else ["start", f"--port={port}", "--in-memory", "--default-bucket=bkt"]
    url = f"http://127.0.0.1:{port}"
    with (folder / "emulator.txt").open("w") as printed:
        process = subprocess.Popen([command, *given], stdout=printed, stderr=printed)
    try:
        limit = time.monotonic() + 60
        while True:
            try:
                request = urllib.request.Request(f"{url}/bkt", method="PUT" if name == "moto" else "GET")
                urllib.request.urlopen(request, timeout=5).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                assert time.monotonic() < limit, (folder / "emulator.txt").read_text()
                time.sleep(0.2)
        env = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": url}
        yield env if name == "moto" else {"TENSORSTORE_GCS_HTTP_URL": url, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token"}
    finally:
        process.terminate()
        process.wait(timeout=30)


def start(work: str, data: str, env: dict[str, str], printed: Path) -> subprocess.Popen:
    given = [f"--config.{k}={v}" for k, v in fields(data).items()]
    command = [sys.executable, "-m", "launch.train", "--config=stage1:llm=tiny", f"--workdir={work}", *given]
    with printed.open("a") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=os.environ | env)


def wait_for(machine: Path, steps: int, process: subprocess.Popen) -> None:
    """Wait until so many steps are logged on a machine, the process ends, or, for less than 1, for some seconds."""
    limit = time.monotonic() + (600 if steps > 0 else random.uniform(0, 15))
    while process.poll() is None and time.monotonic() < limit:
        found = list(machine.glob("buckets/work/*/bkt/runs/stage1"))
        if steps > 0 and found and len(read_metrics(found[0])) >= steps:
            return
        time.sleep(0.01)


def run(module: str, *args: str, env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-m", module, *args], cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(autouse=True)
def no_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other tests' buckets, which are called the same."""
    monkeypatch.setenv("EVE_CACHE", str(tmp_path / "none"))
    monkeypatch.setattr(fetched, "_done", {})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scheme"), [("own", "s3"), ("own", "gs"), ("moto", "s3"), ("gcp", "gs")])
def test_killed_ten_times(name: str, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL at random moments, each time resumed on a machine that has nothing but the bucket; chat and export."""
    data = tmp_path / "data"
    write_dataset(data, "tiny")
    printed, programs = tmp_path / "printed.txt", {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    assert start(str(tmp_path / "local"), str(data), programs, printed).wait() == 0, printed.read_text()
    whole = lines(tmp_path / "local" / "stage1")
    draw = random.Random(name)
    with emulator(name, tmp_path) as env:
        for variable, value in env.items():
            monkeypatch.setenv(variable, value)
        send(data, f"{scheme}://bkt/data")
        resumed = []
        for kill in range(KILLS + 1):
            machine = programs | {"EVE_CACHE": str(tmp_path / f"machine{kill}")}
            process = start(f"{scheme}://bkt/runs", f"{scheme}://bkt/data", machine, printed)
            if kill == KILLS:
                assert process.wait() == 0, printed.read_text()[-3000:]
                break
            wait_for(tmp_path / f"machine{kill}", 2 * kill - 1 + draw.randrange(3), process)
            time.sleep(draw.uniform(0, 0.5))
            process.kill()
            assert process.wait() in (0, -signal.SIGKILL), printed.read_text()[-3000:]
            resumed.append(
                sorted(n for n in buckets.names_below(f"{scheme}://bkt/runs") if n.endswith("manifest.json"))
            )
        print(resumed)
        found = Path(fetched.fetch(f"{scheme}://bkt/runs/stage1"))
        assert lines(found) == whole
        assert not (found / "run.lock").exists()
        there = os.environ | machine
        url = f"{scheme}://bkt/runs/stage1"
        ask = ("--prompt=what is this?", "--max_new_tokens=4")
        answer = run("launch.chat", f"--checkpoint={url}", *ask, env=there)
        assert answer == run("launch.chat", f"--checkpoint={tmp_path}/local/stage1", *ask, env=there)
        run("launch.convert", "export", f"--from={url}", f"--to={scheme}://bkt/exported", env=there)
        run("launch.convert", "export", f"--from={tmp_path}/local/stage1", f"--to={tmp_path}/exported", env=there)
        sent = Path(fetched.fetch(f"{scheme}://bkt/exported"))
        for path in (tmp_path / "exported").iterdir():
            if path.suffix == ".safetensors":
                assert (sent / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*SAID, "slow300"])  # the last: no answer comes
def test_a_bucket_that_refuses_while_a_run_saves(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    write_dataset(data, "tiny")
    programs = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs"), "EVE_CACHE": str(tmp_path / "cache")}
    printed = tmp_path / "printed.txt"
    with serving() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        send(data, "s3://bkt/data")
        saved = "runs/stage1/checkpoints/6/manifest.json"
        server.fault = lambda method, key: fault if saved in server.objects and "runs/" in key else ""
        process = start("s3://bkt/runs", "s3://bkt/data", programs, printed)
        assert process.wait() == 1
        said = [line for line in printed.read_text().splitlines() if line.startswith("error: ")]
        assert len(said) == 1 and "s3://bkt/runs/stage1" in said[0] and "Traceback" not in printed.read_text()
        assert saved in server.objects
        server.fault = lambda method, key: ""
        machine = programs | {"EVE_CACHE": str(tmp_path / "other")}
        assert start("s3://bkt/runs", "s3://bkt/data", machine, printed).wait() == 0, printed.read_text()[-3000:]
        found = Path(fetched.fetch("s3://bkt/runs/stage1"))
    assert start(str(tmp_path / "local"), str(data), programs, printed).wait() == 0
    assert lines(found) == lines(tmp_path / "local" / "stage1")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_bucket_whose_answers_come_late(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any of them, by up to two seconds: the run takes longer, and all is there."""
    data, printed, draw = tmp_path / "data", tmp_path / "printed.txt", random.Random(scheme)
    write_dataset(data, "tiny")
    programs = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    assert start(str(tmp_path / "local"), str(data), programs, printed).wait() == 0, printed.read_text()
    with serving() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        send(data, f"{scheme}://bkt/data")
        server.fault = lambda method, key: f"slow{draw.choice((0, 0.05, 0.3, 2))}"
        process = start(
            f"{scheme}://bkt/runs", f"{scheme}://bkt/data", programs | {"EVE_CACHE": str(tmp_path / "1")}, printed
        )
        assert process.wait(timeout=900) == 0, printed.read_text()[-3000:]
        server.fault = lambda method, key: ""
        found = Path(fetched.fetch(f"{scheme}://bkt/runs/stage1"))
    assert lines(found) == lines(tmp_path / "local" / "stage1")
    assert "warning" not in printed.read_text()
