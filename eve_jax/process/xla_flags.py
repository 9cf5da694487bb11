"""Flags of XLA for runs on NVIDIA GPUs (docs/gpu.md#flags-of-xla); for TPUs see `compiler_options`."""

import os
from collections.abc import Callable, MutableMapping
from importlib.util import find_spec
from pathlib import Path

NVIDIA = Path("/proc/driver/nvidia/version")  # of the kernel's driver
PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
# Transfers next to computation, those of parameters a layer ahead; few large transfers.
FLAGS = {
    "xla_gpu_enable_latency_hiding_scheduler": "true",
    "xla_gpu_enable_pipelined_all_gather": "true",
    "xla_gpu_enable_pipelined_reduce_scatter": "true",
    "xla_gpu_enable_while_loop_double_buffering": "true",
    "xla_gpu_all_gather_combine_threshold_bytes": "134217728",
    "xla_gpu_reduce_scatter_combine_threshold_bytes": "67108864",
}


def on_gpu(environ: MutableMapping[str, str], find: Callable[[str], object] = find_spec, driver: Path = NVIDIA) -> bool:
    """Whether JAX will run on NVIDIA GPUs, which cannot be asked of JAX before its flags are set."""
    asked = environ.get("JAX_PLATFORMS", "")
    return (not asked or "cuda" in asked or "gpu" in asked) and driver.exists() and any(map(find, PLUGINS))


def with_flags(given: str) -> str:
    """`given`, the value of XLA_FLAGS, with FLAGS in front, but for those that it names itself."""
    named = {item.partition("=")[0].lstrip("-") for item in given.split()}
    return " ".join([*(f"--{name}={value}" for name, value in FLAGS.items() if name not in named), given]).strip()


def prepare(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set XLA_FLAGS where the run is on NVIDIA GPUs; called before JAX looks for devices."""
    if on_gpu(environ):
        environ["XLA_FLAGS"] = with_flags(environ.get("XLA_FLAGS", ""))
