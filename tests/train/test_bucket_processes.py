"""Runs of several processes with nothing in common but a bucket: killed, resumed in any number, as a local run.

Each process has a cache of its own, as on a machine of its own, and each start new ones. Emulators are found as
tests/train/test_bucket_runs.py says.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from eve_jax.demo.dataset import write_dataset
from eve_jax.process import buckets, fetched
from eve_jax.train.metrics import read_metrics
from tests.buckets import serving
from tests.process.processes import free_port
from tests.train.test_bucket_runs import ROOT, emulator, fields, lines, no_copies, run, send

__all__ = ["no_copies"]
STEPS = 24
KILLS = ([0], [1], [0, 1], [1], [0], [0, 1], [1], [0], [0, 1], [1])  # which of two processes
SERVERS = [("own", "s3"), ("own", "gs"), ("moto", "s3"), ("gcp", "gs")]


def stage_on(data: str, name: str = "stage1:llm=tiny", steps: int = STEPS, init: str = "") -> list[str]:
    """The command of a stage on the data in a folder or bucket, without the work folder."""
    given = {**fields(data, steps), "data.rows": 2, "train.keep_every": 2, "init": init}
    return ["launch.train", f"--config={name}", *(f"--config.{k}={v}" for k, v in given.items())]


class Run:
    """`count` processes of a command in the folder or bucket `work`, each on a machine of its own below `machines`."""

    def __init__(self, count: int, work: str, arguments: list[str], env: dict[str, str], machines: Path):
        port = free_port()
        self.machines = [machines / str(number) for number in range(count)]
        self.running = []
        for number, machine in enumerate(self.machines):
            machine.mkdir(parents=True)
            command = [sys.executable, "-m", *arguments, f"--workdir={work}", "--peer_timeout=10"]
            if count > 1:
                command += [f"--coordinator=localhost:{port}", f"--num_processes={count}", f"--process_id={number}"]
            own = {"EVE_CACHE": str(machine / "cache")} | env | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
            with (machine / "printed.txt").open("w") as out:
                self.running.append(subprocess.Popen(command, cwd=ROOT, env=own, stdout=out, stderr=subprocess.STDOUT))

    def reach(self, steps: int) -> None:
        """Wait until process 0 has logged so many steps, or one has ended."""
        limit = time.monotonic() + 600
        while time.monotonic() < limit and all(process.poll() is None for process in self.running):
            found = list(self.machines[0].glob("cache/buckets/work/*/bkt/runs/stage*"))
            if found and len(read_metrics(found[0])) >= steps:
                return
            time.sleep(0.01)

    def kill(self, victims: list[int]) -> None:
        for number in victims:
            self.running[number].kill()
        status = self.wait()
        assert all(status[n] in (0, -signal.SIGKILL) for n in victims), self.printed()
        for number in set(range(len(status))) - set(victims):
            said = (self.machines[number] / "printed.txt").read_text().splitlines()[-1]
            assert status[number] == 0 or (status[number] == 1 and said.startswith("error: process")), self.printed()

    def wait(self) -> list[int]:
        try:
            return [process.wait(600) for process in self.running]
        finally:
            for process in self.running:
                process.kill()

    def finish(self) -> None:
        assert self.wait() == [0] * len(self.running), self.printed()

    def printed(self) -> list[str]:
        return [(machine / "printed.txt").read_text()[-3000:] for machine in self.machines]


def whole_steps(work: str) -> list[int]:
    """The checkpoints of the stage in a bucket that count."""
    names = buckets.names_below(f"{work}/stage1")
    return sorted(int(name.split("/")[1]) for name in names if name.endswith("/manifest.json"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scheme"), SERVERS)
def test_a_bucket_is_all_that_hosts_share(
    name: str, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two is killed, or both, ten times; two finish, or one: with the losses of a run in a folder of both."""
    data, local = tmp_path / "data", tmp_path / "local"
    write_dataset(data, "tiny")
    draw = random.Random(name)
    base = {k: v for k, v in os.environ.items() if k != "EVE_CACHE"}
    programs = base | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    Run(2, str(local), stage_on(str(data)), programs, tmp_path / "machines" / "local").finish()
    whole = lines(local / "stage1")
    assert len(whole) == STEPS
    with emulator(name, tmp_path) as server:
        for variable, value in server.items():
            monkeypatch.setenv(variable, value)
        env, work, stage = programs | server, f"{scheme}://bkt/runs", stage_on(f"{scheme}://bkt/data")
        send(data, f"{scheme}://bkt/data")
        seen = []
        for number, victims in enumerate(KILLS):
            two = Run(2, work, stage, env, tmp_path / "machines" / f"kill{number}")
            two.reach(2 * number + draw.randrange(3))
            time.sleep(draw.uniform(0, 0.7))
            two.kill(victims)
            seen.append(whole_steps(work))
            if number == 5:  # one process resumes from here, elsewhere
                for key in buckets.names_below(work):
                    if not key.endswith("run.lock"):
                        buckets.write(f"{scheme}://bkt/copy/{key}", buckets.read_whole(f"{work}/{key}"))
        print(seen)
        assert all(set(before) <= set(after) for before, after in pairwise(seen)), seen
        Run(2, work, stage, env, tmp_path / "machines" / "last").finish()
        found = Path(fetched.fetch(f"{work}/stage1"))
        assert lines(found) == whole
        assert whole_steps(work) == list(range(2, STEPS + 1, 2))
        left = [key for key in buckets.names_below(work) if "run.lock" in key or "manifest.process" in key]
        assert not left
        again = Run(2, work, stage, env, tmp_path / "machines" / "again")  # nothing is left to do
        again.finish()

        step = whole_steps(f"{scheme}://bkt/copy")[-1]
        one = Run(1, f"{scheme}://bkt/copy", stage, env, tmp_path / "machines" / "one")
        one.finish()
        alone = tmp_path / "alone"
        shutil.copytree(local, alone)
        for path in (alone / "stage1" / "checkpoints").iterdir():
            if int(path.name) > step:
                shutil.rmtree(path)
        Run(1, str(alone), stage_on(str(data)), programs, tmp_path / "machines" / "alone").finish()
        assert lines(Path(fetched.fetch(f"{scheme}://bkt/copy/stage1"))) == lines(alone / "stage1")
        assert lines(alone / "stage1")[:step] == whole[:step]

        ask = ("--prompt=what is this?", "--max_new_tokens=4")
        there = env | {"EVE_CACHE": str(tmp_path / "reader")}
        answer = run("launch.chat", f"--checkpoint={work}/stage1", *ask, env=there)
        assert answer == run("launch.chat", f"--checkpoint={local}/stage1", *ask, env=there)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["forbidden", "full", "reset", "slow300"])  # the last: no answer comes
def test_a_bucket_that_refuses_one_of_two(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ends with one line, and what was saved is whole: two others resume from it."""
    data = tmp_path / "data"
    write_dataset(data, "tiny")
    base = {k: v for k, v in os.environ.items() if k != "EVE_CACHE"}
    programs = base | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    with serving() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        env = programs | server.env
        send(data, "s3://bkt/data")
        refused = "checkpoints/6/optimizer/ocdbt.process_1/"
        server.fault = lambda method, key: fault if method == "PUT" and refused in key else ""
        two = Run(2, "s3://bkt/runs", stage_on("s3://bkt/data"), env, tmp_path / "machines" / "refused")
        assert two.wait() == [1, 1], two.printed()
        for text in two.printed():
            said = [line for line in text.splitlines() if line.startswith("error: ")]
            assert said and "Traceback" not in text, text
        assert whole_steps("s3://bkt/runs") == [2, 4]
        server.fault = lambda method, key: ""
        Run(2, "s3://bkt/runs", stage_on("s3://bkt/data"), env, tmp_path / "machines" / "again").finish()
        found = Path(fetched.fetch("s3://bkt/runs/stage1"))
    Run(2, str(tmp_path / "local"), stage_on(str(data)), programs, tmp_path / "machines" / "local").finish()
    assert lines(found) == lines(tmp_path / "local" / "stage1")


@pytest.mark.slow
def test_adapters_on_a_base_in_the_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both processes read the base there and save adapters alone; one is killed; resumed and merged as a local run."""
    data, local, machines = tmp_path / "data", tmp_path / "local", tmp_path / "machines"
    write_dataset(data, "tiny")
    base = {k: v for k, v in os.environ.items() if k != "EVE_CACHE"}
    programs = base | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    Run(1, str(local), stage_on(str(data), steps=2), programs, machines / "1").finish()
    before = f"{local}/stage1"
    Run(1, str(local), stage_on(str(data), "stage2_1:llm=tiny", 2, before), programs, machines / "2_1").finish()
    adapters, steps = "stage3:llm=tiny,lora=4", 8
    Run(2, str(local), stage_on(str(data), adapters, steps, f"{local}/stage2_1"), programs, machines / "3").finish()
    with serving() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        env, command = programs | server.env, stage_on("s3://bkt/data", adapters, steps, "s3://bkt/runs/stage2_1")
        send(data, "s3://bkt/data")
        for name in ("stage1", "stage2_1"):
            send(local / name, f"s3://bkt/runs/{name}")
        two = Run(2, "s3://bkt/runs", command, env, machines / "killed")
        two.reach(5)
        two.kill([1])
        Run(2, "s3://bkt/runs", command, env, machines / "again").finish()
        found = Path(fetched.fetch("s3://bkt/runs/stage3"))
        assert lines(found) == lines(local / "stage3") and len(lines(found)) == steps
        ask = ("--prompt=what is this?", "--max_new_tokens=4")
        there = env | {"EVE_CACHE": str(tmp_path / "reader")}
        run("launch.convert", "merge", "--from=s3://bkt/runs/stage3", "--to=s3://bkt/merged", env=there)
        answer = run("launch.chat", f"--checkpoint={local}/stage3", *ask, env=programs)
        for place in ("runs/stage3", "merged"):
            assert run("launch.chat", f"--checkpoint=s3://bkt/{place}", *ask, env=there) == answer, place


@pytest.mark.slow
def test_the_tiny_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its data is made by process 0, each stage starts from the one before, and process 0 answers and reports."""
    recipe = ["launch.recipe", "--config=demo:tiny"]
    base = {k: v for k, v in os.environ.items() if k != "EVE_CACHE"}
    programs = base | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    Run(2, str(tmp_path / "local"), recipe, programs, tmp_path / "machines" / "local").finish()
    with serving() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        shared = programs | server.env | {"EVE_CACHE": str(tmp_path / "cache")}  # as on a machine with two GPUs
        Run(2, "s3://bkt/runs", recipe, shared, tmp_path / "machines" / "two").finish()
        one = Run(1, "s3://bkt/runs", recipe, programs | server.env, tmp_path / "machines" / "one")
        one.finish()  # nothing is left but the report
        assert "taken over" not in one.printed()[0]
        for name in ("llm", "llm_chat", "stage1", "stage2_1", "stage2_2", "stage3"):
            found = Path(fetched.fetch(f"s3://bkt/runs/{name}"))
            assert lines(found) == lines(tmp_path / "local" / name), name
    assert "runs/report.json" in server.objects
