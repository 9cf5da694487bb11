"""Memory of a training process next to its programs' own account: python -m benchmarks.train_memory [--json]

A process of its own for each model trains all weights on one row, as `launch.train` does on a CPU: the step's
functions, AdamW with clipping, float32, the layers' inputs and attention outputs stored. Random weights, 60% of the row
an image's. Says what XLA needs for the step (arguments, results, temporaries), the most that the process had resident
from its start to its end, and tokens a second of CPU time. 93m: 94 M parameters, rows of 512; 260m: four layers of
Qwen2.5-0.5B's sizes, rows of 2,048; 0.5b: all of it, 856 M, rows of 1,024, which takes some 15 GB of memory and half an
hour on two cores (--models=0.5b). Prints a table and, with --json, a line of JSON last; exits with 1 where the ratio is
above --most.
"""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table

from eve_jax.errors import UserError
from launch._flags import run

MODELS = flags.DEFINE_list("models", ["93m", "260m"], "which of 93m, 260m, 0.5b")
STEPS = flags.DEFINE_integer("steps", 20, "steps of each", lower_bound=2)
MOST = flags.DEFINE_float("most", 1.3, "the largest ratio of resident memory to the account that is good")
JSON = flags.DEFINE_bool("json", False, "print the figures as a line of JSON last", allow_override=True)
CHILD = flags.DEFINE_bool("child", False, "be the process that trains one model (the script calls itself)")
QWEN = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_heads": 14,
    "num_kv_heads": 2,
    "vocab_size": 151_936,
    "tie_embeddings": True,
}
KNOWN: dict[str, tuple[dict[str, Any], int]] = {
    "93m": ({"num_layers": 14}, 512),
    "260m": ({**QWEN, "num_layers": 4}, 2048),
    "0.5b": ({**QWEN, "num_layers": 24}, 1024),
}
GIB = 2**30


def resident(what: str) -> int:
    """Return a figure of this process by its name in /proc/self/status, such as VmHWM, bytes."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def train(name: str) -> dict[str, Any]:
    """Train the model `name` in this process, and return its figures."""
    from eve_jax.process.setup import setup

    setup(computes=True)
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from benchmarks import workload
    from configs import base
    from eve_jax.batch import RowShape
    from eve_jax.config.stages import stage_factors
    from eve_jax.data.image.rule import PATCH_BYTES
    from eve_jax.data.rows.build import Sample, lay_out
    from eve_jax.data.text.encode import IMAGE_ID
    from eve_jax.model.eve import init_params
    from eve_jax.train.optimizer import optimizer
    from eve_jax.train.step import StepFunctions, TrainState

    fields, tokens = KNOWN[name]
    cfg = replace(workload.config(), **fields, remat="attention")
    side = int((0.6 * tokens) ** 0.5)
    text = tokens - side * side - side - 1
    rng = np.random.default_rng(0)
    ids = rng.integers(10, 8000, text).astype(np.int32)
    sample = Sample(np.insert(ids, 1, IMAGE_ID), np.insert(ids, 1, -100), [(side, side)])
    batch: dict[str, Any] = {k: v[None] for k, v in lay_out([sample], RowShape(side * side, side + 1, text)).items()}
    batch["patches"] = rng.integers(0, 256, (1, side * side, PATCH_BYTES), dtype=np.uint8)
    lr = optax.constant_schedule(1e-5)
    tx = optimizer(base.get_config().optim, lr, cfg, stage_factors("3"))
    params = jax.jit(lambda: init_params(cfg, 0))()
    state = TrainState(jnp.zeros((), jnp.int32), params, jax.jit(tx.init)(params))
    del params
    functions = StepFunctions(cfg, tx, lr)
    losses, began, cpu = [], 0.0, 0.0
    for step in range(STEPS.value or 0):
        if step == 1:  # the first compiles
            began, cpu = time.perf_counter(), time.process_time()
        state, metrics = functions(state, {}, [jax.device_put(batch)])
        losses.append(float(metrics["loss"]))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resident("VmHWM")
    memory = functions.fused.lower(state, {}, jax.device_put(batch)).compile().memory_analysis()
    assert memory is not None
    own = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    done = tokens * (len(losses) - 1)
    return {
        "parameters": sum(value.size for value in jax.tree.leaves(state.trainable)),
        "row_tokens": tokens,
        "steps": len(losses),
        "losses": [losses[0], losses[-1]],
        "account_bytes": own + memory.temp_size_in_bytes,
        "peak_resident_bytes": peak,
        "tokens_per_s": done / took,
        "tokens_per_cpu_s": done / cpu,
    }


def main() -> None:
    names = MODELS.value or []
    if unknown := [name for name in names if name not in KNOWN]:
        raise UserError(f"--models={unknown[0]}: expected {', '.join(KNOWN)}")
    if CHILD.value:
        print(json.dumps(train(names[0])))
        return
    found = {}
    table = Table("model", "parameters", "account, GiB", "peak resident, GiB", "ratio", "tokens/s", "a CPU second")
    for name in names:
        command = [
            sys.executable,
            "-m",
            "benchmarks.train_memory",
            "--child",
            f"--models={name}",
            f"--steps={STEPS.value}",
        ]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
        if done.returncode:
            raise UserError(f"{name}: the training process ended with status {done.returncode}")
        of = found[name] = json.loads(done.stdout.splitlines()[-1])
        sizes = [of["account_bytes"], of["peak_resident_bytes"]]
        table.add_row(
            name,
            f"{of['parameters'] / 1e6:.0f} M",
            *(f"{size / GIB:.2f}" for size in sizes),
            f"{sizes[1] / sizes[0]:.2f}",
            f"{of['tokens_per_s']:.1f}",
            f"{of['tokens_per_cpu_s']:.1f}",
        )
    Console(width=112).print(table)
    if JSON.value:
        print(json.dumps(found), flush=True)
    sys.exit(any(of["peak_resident_bytes"] > (MOST.value or 0) * of["account_bytes"] for of in found.values()))


if __name__ == "__main__":
    run(main)
