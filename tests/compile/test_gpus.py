"""Machines with GPUs that are not there: names, the card's description, programs that the CUDA plugin compiles."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eve_jax.compile import gpus
from eve_jax.compile.count import count
from eve_jax.compile.estimate import on_links
from eve_jax.compile.search import slices
from eve_jax.compile.topology import CHIPS, check_name, open_topology
from eve_jax.errors import UserError

ROOT = Path(__file__).parents[2]
# As XLA writes them: a product by cuBLAS with room to work in, and a reduce-scatter that runs next to it.
TEXT = """
HloModule jit_f, is_scheduled=true, num_partitions=16

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

%async (p: bf16[160,64]) -> bf16[10,64] {
  %p = bf16[160,64]{1,0} parameter(0)
  ROOT %scatter = bf16[10,64]{1,0} reduce-scatter(%p), channel_id=1, replica_groups=[1,16]<=[16], \
dimensions={0}, to_apply=%sum
}

ENTRY %main (x: bf16[160,32], w: bf16[32,64]) -> bf16[10,64] {
  %x = bf16[160,32]{1,0} parameter(0)
  %w = bf16[32,64]{1,0} parameter(1)
  %product = (bf16[160,64]{1,0}, s8[33554432]{0}) custom-call(%x, %w), \
custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{\
"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"],"lhs_batch_dimensions":[],"rhs_batch_dimensions":[]}}}
  %y = bf16[160,64]{1,0} get-tuple-element(%product), index=0
  %start = ((bf16[160,64]{1,0}), bf16[10,64]{1,0}) async-start(%y), calls=%async
  ROOT %done = bf16[10,64]{1,0} async-done(%start)
}
"""
PROGRAM = """
import json
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from eve_jax.compile.abstract import Program
from eve_jax.compile.build import build
from eve_jax.compile.topology import open_topology
from eve_jax.sharding import make_mesh

devices = open_topology("h100:8x2").devices
mesh = make_mesh("", devices)
x = jax.ShapeDtypeStruct((1024, 512), jnp.bfloat16, sharding=NamedSharding(mesh, P(("data", "fsdp"))))
w = jax.ShapeDtypeStruct((512, 256), jnp.bfloat16, sharding=NamedSharding(mesh, P("fsdp")))
loss = jax.grad(lambda w, x: jnp.sum((x @ w).astype(jnp.float32) ** 2))
built = build(Program("f", jax.jit(loss, out_shardings=w.sharding), (w, x), 1, 0), "test")
flops, memory, counts = built.counts.flops, built.memory, built.counts
print(json.dumps([dict(mesh.shape), devices[0].device_kind, flops, counts.wire, counts.far, memory.arguments]))
"""


@pytest.mark.parametrize("name", ["h100:1", "h100:8", "h200:8", "a100-80:8", "b200:8x2", "h100:8x3", "h100:8x64"])
def test_names_of_machines(name):
    check_name(name)


@pytest.mark.parametrize("name", ["h100:3", "h100:16", "h100:8x1", "h100:4x2", "h100:", "v100:8"])
def test_names_of_none(name):
    with pytest.raises(UserError, match=r"h100:\{1,2,4,8,8x2"):
        check_name(name)


def test_machines_in_growing_order():
    sizes = [eval(name.partition(":")[2].replace("x", "*")) for name in slices("h200")]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1


def test_without_the_plugin(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"h100:8.*pip install .*\[cuda\]"):
        open_topology("h100:8")


def test_products_of_cublas_and_collectives_that_run_aside():
    counts = count(TEXT, [0] * 8 + [1] * 8)
    assert counts.flops == 2 * 160 * 64 * 32
    (scatter,) = counts.collectives
    assert (scatter.kind, scatter.wire, scatter.far) == ("reduce-scatter", 150 * 64 * 2, 150 * 64 * 2 / 8)
    assert not scatter.waits
    # The product's factors and result, and the collective's operand and result, once.
    assert counts.hbm == 2 * (160 * 32 + 32 * 64 + 160 * 64 + 160 * 64 + 10 * 64)


def test_links_of_a_node_and_between_nodes():
    assert on_links(CHIPS["h100"], 450e9 + 25e9, 25e9) == {"nvlink": 1.0, "network": 0.5}
    assert on_links(CHIPS["v5e"], 200e9, 0) == {"ici": 1.0}


@pytest.mark.parametrize("name", gpus.CARDS)
def test_peaks_are_known(name):
    assert CHIPS[name].flops > 3e14


@pytest.mark.skipif(not any(map(importlib.util.find_spec, gpus.PLUGINS)), reason="no CUDA plugin of JAX")
def test_a_program_for_two_nodes():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment["JAX_PLATFORMS"] = "cpu"
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    mesh, kind, flops, wire, far, arguments = json.loads(done.stdout.splitlines()[-1])
    assert mesh == {"data": 2, "fsdp": 8, "tensor": 1}
    assert kind.startswith("NVIDIA H100")
    assert flops == 2 * 2 * 1024 * 512 * 256 / 16  # a product forward, one for the gradient of w
    assert arguments == 2 * (1024 * 512 / 16 + 512 * 256 / 8)
    assert 0 < far < wire
