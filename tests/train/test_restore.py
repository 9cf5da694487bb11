"""A checkpoint of 8 devices resumes with 1, 2, 4 devices in other arrangements, bit for bit, also a partial one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eve_jax.weights.open import open_checkpoint
from tests.train.stages_on_disk import DAC, started

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_from_eight_devices(tmp_path):
    flags = {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.train.resharded", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | flags, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "restored"
    begin = started(tmp_path / "stage3", DAC, "3", tmp_path / "stage2_1")  # in a process that has one device
    assert begin.step == 3
    read = open_checkpoint(tmp_path / "stage3").params()
    for name, value in begin.state.trainable.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(read[name]))
