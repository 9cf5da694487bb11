"""Training on a mesh of 8 devices is the single device's training (issue: 10 steps, losses 1e-5, parameters 1e-4).

Gradients of the first step are compared to 1e-5 of each tensor's largest. Where one of those is rounding alone, Adam
moves its parameter by up to the learning rate, either way: less than two thousandths of all may be twice that apart.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.train.sharded_steps import LR

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long
MESHES = ("data:8", "fsdp:8", "data:2,fsdp:2,tensor:2", "fsdp:2,tensor:4", "data:4,fsdp:2", "data:2,tensor:4")


def trained(stage: str, routing: str, steps: int, meshes: tuple[str, ...]) -> dict:
    """What `sharded_steps` prints."""
    flags = {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.train.sharded_steps", stage, routing, str(steps), *meshes]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


GRADIENTS = 1e-5
# Of Gemma, whose scores are not divided. Its rows one by one on one device are 2.8e-5 from all at once (2026-12-01).
OF_GEMMA = 5e-5


def check(result: dict, steps: int, gradients: float = GRADIENTS) -> None:
    assert len(result["one device"]) == steps
    assert result["one device"][-1] < result["one device"][0]
    for spec, got in result["meshes"].items():
        np.testing.assert_allclose(got["losses"], result["one device"], rtol=0, atol=1e-5, err_msg=spec)
        assert got["gradients"] < gradients, spec
        assert got["decided"] < 1e-4, spec
        assert got["undecided"] < 2 * LR and got["share"] < 2e-3, spec
        assert got["unsharded"] == [], spec


@pytest.mark.slow
def test_two_steps_on_the_least_even_mesh():
    """Where the compiler would lay small parameters otherwise; the slow tests take ten steps on every mesh."""
    check(trained("3", "split", 2, ("data:2,tensor:4",)), 2)


@pytest.mark.slow
@pytest.mark.parametrize("routing", ["split", "masked"])
@pytest.mark.parametrize("stage", ["1", "2.1", "3"])
def test_every_mesh_trains_as_one_device(stage, routing):
    check(trained(stage, routing, 10, MESHES), 10)


@pytest.mark.slow
@pytest.mark.parametrize("routing", ["lorasplit", "loramasked"])
def test_adapters_on_every_mesh(routing):
    """With dropout, which leaves the same values out on each."""
    check(trained("3", routing, 10, MESHES), 10)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["1", "3"])
def test_neo_on_meshes(stage):
    """With images that see all of themselves, extra layers, and queries wider than values."""
    check(trained(stage, "neo", 10, MESHES), 10)


@pytest.mark.slow
@pytest.mark.parametrize("member", ["gemma", "hundred"])
def test_other_members_on_meshes(member):
    """Layers of two sizes, of which one has a single key head, and windows; patches with tables of places."""
    gradients = OF_GEMMA if member == "gemma" else GRADIENTS
    check(trained("3", member, 10, ("data:8", "fsdp:8", "data:2,fsdp:2,tensor:2")), 10, gradients)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["2.1", "3"])
def test_a_vision_encoder_on_meshes(stage):
    """In whose first steps no parameter is further apart, whatever its gradient."""
    result = trained(stage, "encoder", 4, ("data:8", "fsdp:8", "data:2,fsdp:2,tensor:2"))
    check(result, 4)
    assert all(got["undecided"] < 1e-4 for got in result["meshes"].values())


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["1", "3"])
def test_eve_v1_on_meshes(stage):
    """With the aligning loss and its teacher."""
    check(trained(stage, "v1", 10, ("data:8", "fsdp:8", "fsdp:2,tensor:4")), 10)
