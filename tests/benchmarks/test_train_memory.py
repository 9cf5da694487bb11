"""A training process holds little more than its programs need."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["93m", "260m"])
def test_resident_memory(model: str) -> None:
    """At most 1.3 times XLA's account, over 20 steps in which the loss falls."""
    command = [sys.executable, "-m", "benchmarks.train_memory", "--json", f"--models={model}", "--most=1.3"]
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])[model]
    assert figures["steps"] == 20
    assert figures["losses"][1] < figures["losses"][0]
