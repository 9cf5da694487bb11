"""Two processes of four devices, whose mesh has all axes, give the original's losses over five steps."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests import reference as ref
from tests.hosts.processes import ROOT, free_port


def run(folder, mesh):
    """What process 0 prints, and all that each has said."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"}
    command = [sys.executable, "-m", "tests.hosts.golden_steps", f"localhost:{free_port()}", "2"]
    running = [
        subprocess.Popen(
            [*command, str(i), str(folder), mesh], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for i in range(2)
    ]
    said = [p.communicate(timeout=900)[0].decode() for p in running]
    assert [p.returncode for p in running] == [0, 0], said
    return json.loads(said[0].splitlines()[-1]), said


def test_a_mesh_over_two_processes(tmp_path):
    found, said = run(tmp_path, "data:2,fsdp:2,tensor:2")
    assert found["devices"] == 8
    assert found["rows"] == [[0, 1], [2, 3]]  # each process builds its own
    np.testing.assert_allclose(found["losses"], ref.read_json("G_meta")["all"]["losses_5_steps"], rtol=0, atol=1e-5)
    assert said[1] == ""  # one process speaks for all
    assert {p.name for p in (tmp_path / "logs").iterdir()} == {"process-0.log", "process-1.log"}


@pytest.mark.slow
def test_a_tensor_group_over_two_processes(tmp_path):
    found, _ = run(tmp_path, "tensor:8")
    assert found["rows"] == [[0, 1, 2, 3], [0, 1, 2, 3]]  # both hold all rows, and a half of each matrix
    np.testing.assert_allclose(found["losses"], ref.read_json("G_meta")["all"]["losses_5_steps"], rtol=0, atol=1e-5)
