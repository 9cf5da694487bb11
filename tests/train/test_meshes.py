"""A step on a mesh of 8 devices is the single device's step."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MESHES = ("data:8", "fsdp:8", "data:2,fsdp:2,tensor:2", "fsdp:4,tensor:2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "routing"), [("1", "split"), ("2.1", "split"), ("3", "split"), ("3", "masked"), ("1", "v1"), ("3", "v1")]
)
def test_every_mesh_trains_alike(stage, routing):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.train.sharded_steps", stage, routing, *MESHES]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | flags, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    for spec, got in result["meshes"].items():
        np.testing.assert_allclose(got["losses"], result["one device"], rtol=0, atol=1e-5, err_msg=spec)
        assert got["parameters"] < 1e-4, spec
