"""GPUs of machines that are not there: what a card can do, and how it is described to XLA's CUDA compiler.

`h100:8` is a node of eight cards, `h100:8x4` four such nodes. The CUDA plugin of JAX (the extra `cuda`) compiles for a
described card and requires neither a card nor NVIDIA's driver and libraries.
"""

import importlib.util
import os
import re
from typing import Any, NamedTuple

import jax

from eve_jax.compile.capture import captured
from eve_jax.errors import UserError, install
from eve_jax.process.xla_flags import PLUGINS, with_flags

NODE = 8  # cards that NVLink connects
# Of a card's memory, that a program may use: what docs/gpu.md has XLA_PYTHON_CLIENT_MEM_FRACTION set to.
FRACTION = 0.9
# Where a run tries out algorithms there is nothing to measure on: products are cuBLAS's, whose first is taken.
DEVICELESS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"


class Card(NamedTuple):
    """A kind of GPU in a node of eight: public figures of NVIDIA (docs/gpu.md#plans-for-machines-that-are-not-there).

    kind: of its `jax.Device`. memory: bytes, as CUDA says. bandwidth: of the HBM, bytes/s. nvlink, network: to all
    other cards of the node, and to other nodes, one way, bytes/s. capability: of computation. cores, fpus, clock: its
    multiprocessors, float32 units of each, GHz. shared: bytes of shared memory of a multiprocessor, of a block of
    threads. cache: bytes of the second level.
    """

    kind: str
    memory: float
    bandwidth: float
    nvlink: float
    network: float
    capability: tuple[int, int]
    cores: int
    fpus: int
    clock: float
    shared: tuple[int, int]
    cache: int


# Data sheets and user guides of DGX A100, DGX H100/H200 and DGX B200, and XLA's own descriptions of cards
# (xla/backends/gpu/target_config/specs). `memory` of the H200 is what CUDA says, 1.2 GiB less than in those. Half of
# the bidirectional figure of NVLink; a network adapter of 200 or 400 Gbit/s for each card.
CARDS = {
    "a100-80": Card(
        "NVIDIA A100-SXM4-80GB", 85.1e9, 2039e9, 300e9, 25e9, (8, 0), 108, 64, 1.41, (167936, 166912), 41943040
    ),
    "h100": Card(
        "NVIDIA H100 80GB HBM3", 84.94e9, 3352e9, 450e9, 50e9, (9, 0), 132, 128, 1.98, (233472, 232448), 52428800
    ),
    "h200": Card("NVIDIA H200", 139.8 * 2**30, 4800e9, 450e9, 50e9, (9, 0), 132, 128, 1.98, (233472, 232448), 52428800),
    "b200": Card("NVIDIA B200", 191.5e9, 7672e9, 900e9, 50e9, (10, 0), 148, 128, 1.965, (233472, 232448), 132644864),
}
MACHINES = ("1", "2", "4", "8", "8x2", "8x4", "8x8", "8x16", "8x32")  # in growing order
_SHAPE = re.compile(rf"[124{NODE}]|{NODE}x(?:[2-9]|[1-9]\d+)")


def is_machine(generation: str, shape: str) -> bool:
    """Return whether `generation:shape` is a machine: cards of a node, or eight on each of several nodes."""
    return generation in CARDS and bool(_SHAPE.fullmatch(shape))


def described(card: Card) -> str:
    """Return the card as XLA's GpuTargetConfigProto in its text form."""
    fields: dict[str, Any] = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": card.shared[0],
        "shared_memory_per_block_optin": card.shared[1],
        "threads_per_core_limit": 2048,
        "core_count": card.cores,
        "fpus_per_core": card.fpus,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024,
        "thread_dim_limit_z": 64,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
        "memory_bandwidth": round(card.bandwidth),
        "device_memory_size": round(card.memory),
        "l2_cache_size": card.cache,
        "clock_rate_ghz": card.clock,
        "dnn_version": '"9.12.0"',
        "runtime_version": '"13.0.0"',
        "driver_version": '"13.0.0"',
        "compile_time_toolkit_version": '"13.0.0"',
    }
    lines = "\n".join(f"  {name}: {value}" for name, value in fields.items())
    major, minor = card.capability
    capability = f"  cuda_compute_capability {{ major: {major} minor: {minor} }}"
    versions = "dnn_version_info { major: 9 minor: 12 }"
    name = f'device_description_str: "{card.kind}"'
    return f'gpu_device_info {{\n{lines}\n{capability}\n}}\nplatform_name: "CUDA"\n{versions}\n{name}\n'


def open_machine(name: str) -> list[jax.Device]:
    """Return the cards of the machine `name`. Raises UserError without JAX's CUDA plugin, or where it refuses them.

    Programs are compiled with the flags of runs on GPUs (`eve_jax.process.xla_flags`): call it before any is.
    """
    generation, _, shape = name.partition(":")
    if not any(map(importlib.util.find_spec, PLUGINS)):
        raise UserError(f"--topology={name}: JAX's CUDA plugin, which compiles for it, is missing: {install('cuda')}")
    os.environ["XLA_FLAGS"] = f"{with_flags(os.environ.get('XLA_FLAGS', ''))} {DEVICELESS}"
    from jax.experimental import topologies

    cards, _, nodes = shape.partition("x")
    options = {"topology": f"1x{nodes or 1}x{cards}", "target_config": described(CARDS[generation])}
    try:
        with captured():  # what the plugin notes of a machine without its driver
            return list(topologies.get_topology_desc(generation, platform="cuda", **options).devices)
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        raise UserError(f"--topology={name}: the CUDA plugin refuses it: {error}") from error
