"""`launch.compile` from end to end on virtual devices, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.launcher import launch

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long
TINY = ["--config=stage3:llm=tiny", "--config.data.max_tokens=200", "--row_tokens=256", "--rows=8", "--json"]

COLLECTIVES = """
import jax, json
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from eve_jax.compile.abstract import Program
from eve_jax.compile.build import build
from eve_jax.compile.topology import open_topology
from eve_jax.config.stage import Config
from eve_jax.sharding import gather, make_mesh, parameter_sharding, use

jax.config.update("jax_enable_compilation_cache", False)  # as in launch.compile: from the cache comes no warning
devices = open_topology("cpu:8").devices
mesh = make_mesh("data:2,fsdp:4", devices)
cube = make_mesh("data:2,fsdp:2,tensor:2", devices)

def known(x):
    def local(x):
        y = jax.lax.all_gather(x, "fsdp", tiled=True)
        return jax.lax.psum(y, "data"), jax.lax.psum_scatter(y, "fsdp", tiled=True)
    return jax.shard_map(local, mesh=mesh, in_specs=P(("data", "fsdp")), out_specs=(P(), P("fsdp")), check_vma=False)(x)

def moved(x):
    x = jax.lax.with_sharding_constraint(jnp.sin(x), NamedSharding(cube, P("fsdp")))
    return jax.lax.with_sharding_constraint(jnp.sin(x), NamedSharding(cube, P(None, ("data", "tensor"))))

HEAD = ("vocab", "table")

def head(x):
    with use(cube):
        return jnp.sin(gather(jnp.sin(x), HEAD, jnp.bfloat16))

stored = parameter_sharding(cube, HEAD, (256, 128))
out = []
places = (NamedSharding(mesh, P(("data", "fsdp"))), NamedSharding(cube, P("fsdp")), stored)
for function, place in zip((known, moved, head), places):
    x = jax.ShapeDtypeStruct((256, 128), jnp.float32, sharding=place)
    built = build(Program("f", jax.jit(function), (x,), 1, 0), "test")
    out.append([built.counts.by_kind(), built.counts.wire, len(built.involuntary)])
print(json.dumps(out))
"""

UPDATE = """
from configs import stage3
from eve_jax.compile.abstract import abstract_step, plan_work
from eve_jax.compile.topology import open_topology
from eve_jax.config.stage import Config
from eve_jax.sharding import make_mesh

mesh = make_mesh("data:2,fsdp:4", open_topology("cpu:8").devices)
config = stage3.get_config("llm=tiny")
config.data.max_tokens = 200
config = Config.of(config)
step = abstract_step(config, mesh, plan_work(config, mesh.shape, None, "mixed", 8, 1024))
programs = {p.name: p.function.lower(*p.arguments).compile() for p in step.programs}
(state, _), sums = (programs[name].output_shardings for name in ("update", "gradients"))
sharded = 0
for name, value in step.sums.grads.items():
    same = [w.is_equivalent_to(value.sharding, len(value.shape)) for w in (sums.grads[name], state.trainable[name])]
    assert all(same), (name, same)
    sharded += not value.sharding.is_fully_replicated
print(sharded)
"""


def run(*command: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=environment)


def test_collectives_and_the_compilers_warning():
    done = run("-c", COLLECTIVES)
    assert done.returncode == 0, done.stderr
    (kinds, wire, involuntary), (_, _, warned), (gathered, _, of_head) = json.loads(done.stdout.splitlines()[-1])
    local = 256 // 8 * 128 * 4  # bytes of a shard
    assert kinds == {
        "all-gather": {"count": 1, "bytes": 4 * local, "largest_bytes": 4 * local},
        "all-reduce": {"count": 1, "bytes": 4 * local, "largest_bytes": 4 * local},
        "reduce-scatter": {"count": 1, "bytes": 4 * local, "largest_bytes": 4 * local},
    }
    assert wire == 3 * local + 2 * 4 * local + 3 * local
    assert involuntary == 0
    assert warned == 1
    assert of_head == 0, "a head that fsdp and tensor share is gathered by way of the whole"
    assert gathered["all-gather"]["largest_bytes"] <= 256 * 128 // 2 * 4
    assert "Involuntary" not in done.stderr
    assert "compiling" in done.stderr


@pytest.mark.slow
def test_sums_stay_sharded():
    """A step's sums lay whole on every device once: 53 GiB at 7B."""
    done = run("-c", UPDATE)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) >= 16


def test_tiny_stage_on_eight_devices():
    done = launch("launch.compile", *TINY, "--topology=cpu:8")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["mesh"] == {"data": 1, "fsdp": 8, "tensor": 1}
    assert figures["tokens_per_step"] == 64 * 2 * 8192
    assert figures["hbm_bytes"] is None
    assert figures["hbm_peak_bytes"] == pytest.approx(sum(figures["hbm_by_kind"].values()), rel=0.01)
    assert figures["model_flops_per_chip"] > 0
    assert figures["hlo_over_formula"] == pytest.approx(1, abs=0.01)
    assert figures["hlo_flops_per_chip"] > figures["model_flops_per_chip"]
    assert figures["involuntary_remat"] == 0
    assert figures["unknown_loops"] == []
    assert not [w for w in figures["whole_weights_moved"] if "layers." in w]
    assert figures["collectives"]["all-gather"]["largest_bytes"] <= 4096 * 64 * 4  # the second convolution
    assert "tokens per step" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ve_0_stage1", "ve_0_captions", "dt_0_captions"])
def test_a_stage_of_a_recipe(stage):
    """A vision encoder's products are those of the formula, its attention comes to it."""
    done = launch("launch.compile", "--config=fig2:tiny", f"--stage={stage}", "--topology=cpu:1", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["config"] == stage
    assert figures["overrides"].startswith(f"--config.stages.{stage}.mesh=data:1")
    assert figures["hlo_over_formula"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--topology=cpu:8", "--mesh=fsdp:3"], "does not fit 8"),
        (["--topology=cpu:2", "--search", "--rows=0"], "no limit"),
        (["--topology=cpu:2", "--search", "--rows=2"], "--rows=2"),
        (["--topology=cpu:2", "--topologies=v5e"], "without --topology"),
        ([], "which machine"),
    ],
)
def test_bad_flags_are_one_line(flags, words):
    done = launch("launch.compile", *TINY, *flags)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_control_c_while_the_compiler_is_at_work():
    command = [sys.executable, "-m", "launch.compile", *TINY, "--topology=cpu:8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr
        for line in process.stderr:
            if "compiling" in line:
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5e:2x4", "v5p:2x2x1", "v4:2x2x1", "v6e:2x2"])
def test_small_model_for_absent_tpus(topology):
    pytest.importorskip("libtpu")
    sizes = [f"--config.model.{k}={v}" for k, v in {"head_dim": 128, "num_heads": 4, "num_kv_heads": 2}.items()]
    done = launch("launch.compile", "--config=stage3:llm=tiny", *sizes, f"--topology={topology}", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert 0 < figures["hbm_peak_bytes"] < 0.9 * figures["hbm_bytes"]
    assert figures["hlo_over_formula"] == pytest.approx(1, abs=0.05)
    assert figures["attention_kernel_flops_per_chip"] > 0
    assert figures["involuntary_remat"] == 0
    assert not [w for w in figures["whole_weights_moved"] if "layers." in w]
    assert 0 < figures["roofline_mfu"] < 1


ATTENTION = """
import sys
import jax, jax.numpy as jnp
from eve_jax.compile.topology import open_topology
from eve_jax import sharding
from eve_jax.model.attention import packed_attention

mesh = sharding.make_mesh("", open_topology("v5e:1x1").devices)
place = sharding.batch_sharding(mesh)

def gradients(q, k, v, segment, g):
    with sharding.use(mesh):
        return jax.vjp(lambda *x: packed_attention(*x, segment, kernel="splash"), q, k, v)[1](g)

for length in (16384, 32768):
    q, k = (jax.ShapeDtypeStruct((1, length, heads, 128), jnp.bfloat16, sharding=place) for heads in (28, 4))
    segment = jax.ShapeDtypeStruct((1, length), jnp.int32, sharding=place)
    print(jax.jit(gradients).lower(q, k, k, segment, q).compile().memory_analysis().temp_size_in_bytes)
"""


@pytest.mark.slow
def test_attention_memory_on_tpu_is_linear():
    """Shorter rows live in the chip's inner memory in part. The fused backward kernel took 3.8 GB for the first."""
    pytest.importorskip("libtpu")
    done = run("-c", ATTENTION)
    assert done.returncode == 0, done.stderr
    shorter, longer = map(int, done.stdout.split())
    assert longer < 2.1 * shorter < 2.1 * 0.5e9
