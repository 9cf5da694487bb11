"""Two processes, whose mesh goes over both, give the original's losses over five steps."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests import reference as ref
from tests.process.processes import ROOT, free_port

pytestmark = pytest.mark.long


def run(folder, mesh, devices):
    """What process 0 prints, and all that each has said."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-m", "tests.process.golden_steps", f"localhost:{free_port()}", "2"]
    running = [
        subprocess.Popen(
            [*command, str(i), str(folder), mesh], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for i in range(2)
    ]
    said = [p.communicate(timeout=900)[0].decode() for p in running]
    assert [p.returncode for p in running] == [0, 0], said
    return json.loads(said[0].splitlines()[-1]), said


SPLIT, ALL = [[0, 1], [2, 3]], [[0, 1, 2, 3]] * 2  # rows that each process builds


@pytest.mark.parametrize(
    ("devices", "mesh", "rows"),
    [
        (1, "fsdp:2", SPLIT),
        pytest.param(4, "data:2,fsdp:2,tensor:2", SPLIT, marks=pytest.mark.slow),
        pytest.param(4, "tensor:8", ALL, marks=pytest.mark.slow),  # each has all rows, and a half of every matrix
    ],
)
def test_a_mesh_over_two_processes(tmp_path, devices, mesh, rows):
    found, said = run(tmp_path, mesh, devices)
    assert found["devices"] == 2 * devices
    assert found["rows"] == rows
    np.testing.assert_allclose(found["losses"], ref.read_json("G_meta")["all"]["losses_5_steps"], rtol=0, atol=1e-5)
    assert said[1] == ""  # one process speaks for all
    assert {p.name for p in (tmp_path / "logs").iterdir()} == {"process-0.log", "process-1.log"}
