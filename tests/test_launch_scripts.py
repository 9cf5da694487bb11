"""The scripts and manifests under launch/, as far as they can be run here."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def dry(*command: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"DRY_RUN": "1"} | env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("script", ["local.sh", "tpu.sh", "slurm.sbatch"])
def test_scripts_are_sound(script):
    assert subprocess.run(["bash", "-n", ROOT / "launch" / script]).returncode == 0
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", ROOT / "launch" / script]).returncode == 0


def test_processes_on_this_machine():
    done = dry("launch/local.sh", "2", "launch.train", "--config=stage1", "--workdir=w", PORT="1234", PYTHON="python")
    assert done.stdout.splitlines() == [
        f"python -m launch.train --config=stage1 --workdir=w --coordinator=localhost:1234 --num_processes=2 "
        f"--process_id={i}"
        for i in range(2)
    ]


def test_a_failure_is_the_scripts_status():
    env = {"DRY_RUN": "", "PYTHON": "false"}
    assert dry("launch/local.sh", "2", "launch.train", **env).returncode == 1
    assert dry("launch/local.sh").returncode == 2


def test_slices():
    one = dry("launch/tpu.sh", "run", "launch.train", "--config=stage3", NAME="eve", ZONE="z")
    assert one.stdout.startswith("gcloud compute tpus tpu-vm ssh eve --zone=z --worker=all --command=cd\\ eve_jax")
    assert "launch.train" in one.stdout
    two = dry("launch/tpu.sh", "setup", NAME="eve", SLICES="2", SHARE="10.0.0.2:/eve").stdout
    assert {"eve-0", "eve-1"} <= set(two.split())
    assert "mount -t nfs 10.0.0.2:/eve /shared" in two
    assert "--node-count=2 --node-prefix=eve" in dry("launch/tpu.sh", "create", SLICES="2").stdout
    assert dry("launch/tpu.sh").returncode == 2


def test_compiled_programs_are_spoken_of_and_their_folder_is_handed_on():
    started = dry("launch/tpu.sh", "run", "launch.train", EVE_CACHE="/mnt/a disk").stdout
    assert "EVE_CACHE=/mnt/a" in started.replace("\\", "")
    for name in ("tpu.sh", "slurm.sbatch", "gke_tpu.yaml", "kubernetes.yaml"):
        assert "EVE_CACHE" in (ROOT / "launch" / name).read_text()


def test_slurm_runs_the_command_on_all_tasks():
    done = dry("bash", "launch/slurm.sbatch", "launch.train", "--config=stage3", PYTHON="python")
    assert done.stdout.split() == [
        "srun",
        "--kill-on-bad-exit=0",
        "python",
        "-u",
        "-m",
        "launch.train",
        "--config=stage3",
    ]


@pytest.mark.parametrize(("name", "kinds"), [("gke_tpu", ["JobSet"]), ("kubernetes", ["Service", "Job"])])
def test_manifests(name, kinds):
    yaml = pytest.importorskip("yaml")
    documents = list(yaml.safe_load_all((ROOT / "launch" / f"{name}.yaml").read_text()))
    assert [d["kind"] for d in documents] == kinds
    text = str(documents)
    assert "launch.train" in text and "--workdir=/shared/runs" in text


def test_the_manifest_of_the_server() -> None:
    yaml = pytest.importorskip("yaml")
    service, deployment = yaml.safe_load_all((ROOT / "launch" / "gke_serve.yaml").read_text())
    assert (service["kind"], deployment["kind"]) == ("Service", "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][-1] == "launch.serve"
    drain = next(int(arg.partition("=")[2]) for arg in container["args"] if arg.startswith("--drain_time"))
    assert drain < pod["terminationGracePeriodSeconds"] - 10
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
