"""Attention of rows of 1,024 tokens on meshes, also with more parts than key/value heads, is one device's to 1e-5."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eve_jax.model.head_groups import grouped_heads

ROOT = Path(__file__).parents[2]
KERNELS = ("chunked", "blocked", "splash", "flash")
MESHES = ("tensor:2", "data:2,tensor:4", "tensor:8")  # of the first devices


def check(*cases: str) -> None:
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.model.on_meshes", *cases]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(cases)
    assert all(distance < 1e-5 for distance in found.values()), found


@pytest.mark.slow
def test_more_parts_than_key_value_heads() -> None:
    """Three query heads of each over two parts: one of them gets a head of zeros."""
    check("6/2/flash/tensor:4")


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_on_every_mesh(kernel: str) -> None:
    heads = ((4, 2), (4, 4), (14, 2), (28, 4))
    check(*(f"{n}/{kv}/{kernel}/{mesh}" for n, kv in heads for mesh in MESHES))


@pytest.mark.parametrize(
    ("given", "grouped"),
    [
        ((28, 4, 1), (28, 4)),
        ((28, 4, 4), (28, 4)),
        ((28, 4, 8), (32, 8)),
        ((14, 2, 4), (16, 4)),
        ((4, 2, 8), (8, 8)),
        ((14, 2, 3), (18, 6)),
        ((32, 8, 6), (48, 24)),
        ((16, 16, 8), (16, 16)),
        ((6, 1, 4), (8, 4)),
    ],
)
def test_heads_in_groups(given: tuple[int, int, int], grouped: tuple[int, int]) -> None:
    heads, kv_heads, parts = given
    assert grouped_heads(heads, kv_heads, parts) == grouped
    assert not grouped[0] % parts and not grouped[1] % parts and not grouped[0] % grouped[1]
    assert grouped[0] // kv_heads >= heads // kv_heads
