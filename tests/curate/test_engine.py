"""Daft at work: the command, several threads, kills, Ray; without Daft one clear line."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks import curate_engines
from benchmarks.curate_images import write_photos
from eve_jax.curate import engine
from eve_jax.curate.config import EngineConfig
from eve_jax.errors import UserError
from eve_jax.process.cores import own_cores
from tests.curate.web import files_of, plain, scenes

ROOT = Path(__file__).parents[2]
NATIVE = EngineConfig(runner="native", address="", workers=0)


def command(source, out, *more):
    where = [f"--from={source[0]}", f"--images={source[1]}", f"--to={out}"]
    return [sys.executable, "-m", "launch.curate", "--config=curate:tiny", *where, *more]


def run(*arguments):
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True)


def test_without_daft_one_line_names_the_extra(monkeypatch):
    engine._imported.cache_clear()
    monkeypatch.setitem(sys.modules, "daft", None)
    with pytest.raises(UserError, match=r"requires Daft .*: pip install -c constraints.txt -e '\.\[curate\]'"):
        engine.start(NATIVE)
    engine._imported.cache_clear()


def test_only_the_engine_imports_daft_and_nothing_is_sent():
    files = [path for room in ("eve_jax", "launch", "configs") for path in (ROOT / room).rglob("*.py")]
    imports = [path.name for path in files if "import daft" in path.read_text() or "from daft" in path.read_text()]
    assert imports == ["engine.py"]
    assert engine.QUIET["DO_NOT_TRACK"] == "1"


def test_what_users_can_change_ends_a_run_with_its_own_words():
    pytest.importorskip("daft")
    made = []

    def make(number):
        if number == 3:
            raise UserError("number 3 is not there; make it")
        made.append(number)

    with pytest.raises(UserError, match=r"^number 3 is not there; make it$"):
        engine.run(make, range(6), NATIVE, "working")
    engine.run(made.append, [10, 11, 12], NATIVE, "working")
    assert sorted(made)[-3:] == [10, 11, 12]


def test_shards_are_made_in_threads_that_last():
    pytest.importorskip("daft")
    seen = []

    def make(number):
        time.sleep(0.001)
        seen.append((threading.get_ident(), type(threading.current_thread()).__name__))

    for start in (0, 50):
        engine.run(make, range(start, start + 50), NATIVE, "working")
    # For Python a thread of Daft's is a dummy, whose state ends with the call.
    assert len(seen) == 100 and {kind for _, kind in seen} == {"DummyProcess"}
    assert len({thread for thread, _ in seen}) <= own_cores()


def test_a_second_engine_is_refused():
    pytest.importorskip("daft")
    engine.start(NATIVE)
    with pytest.raises(UserError, match="already works with"):
        engine.start(EngineConfig(runner="native", address="", workers=3))


def test_the_command_leaves_what_one_thread_leaves(tmp_path, monkeypatch):
    pytest.importorskip("daft")
    source = scenes(tmp_path, 60)
    done = run(source, tmp_path / "daft", "--config.engine.workers=4")
    assert done.returncode == 0, done.stderr
    assert "60 records" in done.stdout and "done:" in done.stdout
    assert "Traceback" not in done.stderr
    plain(monkeypatch)
    from eve_jax.curate.run import curate
    from tests.curate.web import tiny

    curate(tiny(), *source, tmp_path / "plain")
    ours, theirs = files_of(tmp_path / "daft"), files_of(tmp_path / "plain")
    for name in theirs:
        assert ours[name] == theirs[name] or name == "curated.json", name


@pytest.mark.slow
def test_kills(tmp_path):
    pytest.importorskip("daft")
    found = curate_engines.kills(tmp_path, images=400, count=8)
    assert found["holds"], found


@pytest.mark.slow
def test_ray(tmp_path):
    if "EVE_RAY_PYTHON" not in os.environ:
        pytest.importorskip("ray")
    found = curate_engines.ray(tmp_path, images=300)
    assert found["holds"], json.dumps(found)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_what_a_rerun_completes(tmp_path, number):
    pytest.importorskip("daft")
    source = write_photos(tmp_path / "web", 600, 200)
    more = ["--config.shard_records=40", "--config.select.rule=nearest:60", "--nodraw"]
    assert run(source, tmp_path / "whole", *more).returncode == 0
    begun = command(source, tmp_path / "cut", *more)
    with subprocess.Popen(begun, cwd=ROOT, stderr=subprocess.PIPE, text=True) as stopped:
        while not list((tmp_path / "cut").glob("stages/measure*/*2.parquet")):
            time.sleep(0.01)
        stopped.send_signal(number)
        _, said = stopped.communicate()
    assert stopped.returncode == 130, said
    assert "interrupted; rerun the command to resume" in said
    assert "Traceback" not in said and "Fatal" not in said
    assert run(source, tmp_path / "cut", *more).returncode == 0
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")
