"""Weights whose heads a mesh copies or fills up are placed without one being whole on a device."""

import os
import subprocess
import sys

import pytest

from tests.process.processes import ROOT

CODE = """
import sys

import numpy as np

from eve_jax.infer.heads import as_given, regrouped
from eve_jax.infer.parameters import shard_params
from eve_jax.model.quantized import plain
from eve_jax.sharding import make_mesh
from tests.infer.on_meshes import model

cfg, params = model(sys.argv[1])
mesh = make_mesh("tensor:8")
new, placed = regrouped(cfg, shard_params(cfg, params, mesh), mesh)
back, given = plain(as_given(cfg, new, placed, mesh)), plain(params)
assert (new.num_heads, new.num_kv_heads) == (8, 8)
for key in given:
    np.testing.assert_array_equal(np.asarray(back[key]), np.asarray(given[key]), key)
print("the same")
"""


@pytest.mark.parametrize("name", ["moe", pytest.param("moe int4", marks=pytest.mark.slow)])
def test_no_weight_is_replicated_on_its_way(name: str) -> None:
    """The compiler warns on stderr when it makes a whole array on every device to move it."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8", "TF_CPP_MIN_LOG_LEVEL": "0"}
    done = subprocess.run([sys.executable, "-c", CODE, name], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout == "the same\n", done.stderr[-3000:]
    assert "rematerialization" not in done.stderr
