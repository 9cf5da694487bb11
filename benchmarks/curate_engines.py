"""Curation killed at random moments, and on a Ray cluster of two nodes of this machine: the same files as ever.

    python -m benchmarks.curate_engines nodes COMMAND...     run COMMAND against a cluster of two nodes

EVE_RAY_PYTHON names the Python of an environment with the extras curate and ray; without, this one's is tried.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.curate_images import ROOT, files_of, write_photos

TINY = ["--nodraw", "--config=curate:tiny", "--config.shard_records=50", "--config.write.shard_records=40"]


def tiny_command(python: str, source: tuple[str, str], out: Path, *more: str) -> list[str]:
    """Return the command that curates `source` with every stage but experts."""
    where = [f"--from={source[0]}", f"--images={source[1]}", f"--to={out}"]
    return [python, "-m", "launch.curate", *TINY, "--config.select.rule=nearest:60", *where, *more]


def kills(folder: Path, images: int = 2000, count: int = 30, seed: int = 0) -> dict[str, Any]:
    """Return whether curations that are killed `count` times in all, at random moments, and resumed until they are done
    leave the files of one that is not killed; each begins anew when one is done.
    """
    source = write_photos(folder / "small", images, 80)
    whole, cut = folder / "whole", folder / "cut"
    for out in (whole, cut):
        shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    subprocess.run(tiny_command(sys.executable, source, whole), cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    wall = time.monotonic() - began
    moments, wanted, hit, done, other = random.Random(seed), files_of(whole), 0, 0, 0
    while hit < count or cut.exists():
        with subprocess.Popen(tiny_command(sys.executable, source, cut), cwd=ROOT, stdout=subprocess.DEVNULL) as run:
            try:
                run.wait(moments.uniform(0.1, 1.0) * wall if hit < count else None)
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                hit += 1
                continue
        if run.returncode:
            raise subprocess.CalledProcessError(run.returncode, run.args)
        done, other = done + 1, other + (files_of(cut) != wanted)
        shutil.rmtree(cut)
    return {"kills": hit, "done": done, "other": other, "files": len(wanted), "holds": not other and done > 0}


def ray(folder: Path, images: int = 1000) -> dict[str, Any]:
    """Return whether a cluster of two nodes leaves the files of the native runner."""
    python = os.environ.get("EVE_RAY_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import daft, ray"], capture_output=True).returncode:
        return {"error": "no Ray: name the Python of an environment that has it in EVE_RAY_PYTHON", "holds": False}
    source = write_photos(folder / "small", images, 80)
    left = []
    for runner in ("native", "ray"):
        out = folder / f"runner_{runner}"
        shutil.rmtree(out, ignore_errors=True)
        command = tiny_command(python, source, out, f"--config.engine.runner={runner}")
        if runner == "ray":
            command = [python, "-m", "benchmarks.curate_engines", "nodes", *command]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            return {"error": f"{runner}: {(done.stderr or done.stdout).splitlines()[-1:]}", "holds": False}
        left.append(files_of(out))
    same = {name for name in left[0] if left[0][name] == left[1].get(name)}
    return {
        "files": len(left[0]),
        "other": len(left[0].keys() | left[1].keys()) - len(same),
        "holds": left[0] == left[1],
    }


def on_nodes(command: list[str]) -> int:
    """Run a command against a cluster of two nodes that is made for it; return its status."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    try:
        return subprocess.run([*command, f"--config.engine.address={cluster.address}"]).returncode
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    if sys.argv[1:2] != ["nodes"] or len(sys.argv) < 3:
        sys.exit("usage: python -m benchmarks.curate_engines nodes COMMAND...")
    sys.exit(on_nodes(sys.argv[2:]))
