"""Compiled programs are kept on every host, in whole files; a second start of several processes compiles nothing."""

import re
from pathlib import Path

import pytest

from eve_jax.process import kept_programs
from eve_jax.train.goodput import read_goodput
from tests.process.processes import Processes, small_stage

MISS = "PERSISTENT COMPILATION CACHE MISS"
TELL = {"JAX_EXPLAIN_CACHE_MISSES": "1", "JAX_COMPILATION_CACHE_DIR": None, "PYTHONUNBUFFERED": "1"}


def misses(run: Processes) -> list[int]:
    """Return how many programs each process compiled."""
    assert run.wait() == [0] * len(run.running), run.outputs()
    logs = [run.workdir / "logs" / f"process-{i}.log" for i in range(len(run.running))]
    return [len(re.findall(MISS, log.read_text())) for log in logs]


def programs(folder: Path) -> set[str]:
    """Return the names of the programs in a folder of caches."""
    return {path.name for path in (folder / "xla").glob("*-cache")}


def test_a_program_is_replaced_whole(tmp_path):
    cache = kept_programs._WholeFiles(str(tmp_path), max_size=-1)
    (tmp_path / "key-cache").write_bytes(b"half of a fi")  # left by a kill
    cache.put("key", b"a program")
    assert cache.get("key") == b"a program"
    assert [path.name for path in tmp_path.iterdir()] == ["key-cache"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return small_stage(tmp_path_factory.mktemp("data"), 3)


@pytest.mark.slow
def test_with_a_cache_of_its_own_each_process_compiles_once(stage, tmp_path):
    own = [TELL | {"EVE_CACHE": str(tmp_path / f"host{i}")} for i in range(2)]
    first = misses(Processes(2, tmp_path / "first", stage, own))
    assert min(first) > 3, first
    assert len(programs(tmp_path / "host0")) > 3
    assert len(programs(tmp_path / "host1")) > 3
    assert misses(Processes(2, tmp_path / "second", stage, own)) == [0, 0]


@pytest.mark.slow
def test_without_one_all_processes_keep_programs_in_the_work_folder(stage, tmp_path):
    own = [TELL | {"EVE_CACHE": None, "HOME": str(tmp_path / f"home{i}")} for i in range(2)]
    workdir = tmp_path / "work"
    assert min(misses(Processes(2, workdir, stage, own))) > 3
    kept = programs(workdir / "cache")
    assert kept and not programs(tmp_path / "home1" / ".cache" / "eve_jax")
    again = [*stage, "--config.name=again"]
    assert misses(Processes(2, workdir, again, own)) == [0, 0]
    assert programs(workdir / "cache") == kept


@pytest.mark.slow
def test_waiting_for_a_peer_that_compiles_is_compiling(stage, tmp_path):
    own = [TELL | {"EVE_CACHE": str(tmp_path / f"host{i}")} for i in range(2)]
    misses(Processes(2, tmp_path / "first", stage, own))
    for path in (tmp_path / "host1" / "xla").iterdir():
        path.unlink()
    compiled = misses(Processes(2, tmp_path / "second", stage, own))
    assert compiled[0] == 0 and compiled[1] > 3, compiled
    seconds = read_goodput(tmp_path / "second" / "stage1")[0]["seconds"]
    assert seconds["compile"] > seconds["step"], seconds
