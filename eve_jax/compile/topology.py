"""Devices of a machine that is not there, and what its chips can do.

`v5e:16x16` is a slice of 256 TPU v5e chips, `h100:8x4` four nodes of eight GPUs (`eve_jax.compile.gpus`), `cpu:8`
eight virtual devices of this processor. The first requires the TPU compiler (the extra `tpu`) and no TPU.
"""

import contextlib
import importlib.util
import math
import os
import re
import signal
from typing import NamedTuple

import jax

from eve_jax.compile.capture import captured
from eve_jax.compile.gpus import CARDS, FRACTION, MACHINES, is_machine, open_machine
from eve_jax.errors import UserError, install
from eve_jax.train.flops import peak_flops

GIB = 2**30
# Read by libtpu when it is loaded: ask no metadata server, share no lock with other processes, keep no log files, and
# say on standard error what the compiler has to say.
LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_LOG_DIR": "disabled",
    "TPU_STDERR_LOG_LEVEL": "0",
}


class Chip(NamedTuple):
    """One accelerator chip.

    kind: of its `jax.Device`. hbm: what a program may use, bytes. bandwidth: of the HBM, bytes/s. links: to all
    neighbors together, one way, bytes/s, by name: ICI of TPUs, NVLink of GPUs. clock: cycles/s; 0 where the compiler
    counts none. network: as `links`, to other nodes; 0 where there are none.
    """

    kind: str
    hbm: float
    bandwidth: float
    links: float
    clock: float = 0.0
    network: float = 0.0

    @property
    def flops(self) -> float:
        """Bfloat16 peak, FLOP/s."""
        return peak_flops(self.kind) or math.nan


# Bandwidths and link speeds are the vendor's public figures (cloud.google.com/tpu/docs/v4, v5e, v5p, v6e; half of
# the bidirectional ICI figure). `hbm` is the limit that libtpu 0.0.42 compiles against: the chips have 32, 16, 95 and
# 32 GiB. `clock` follows from the peak and the size of the matrix units.
CHIPS = {
    "v4": Chip("TPU v4", 30.75 * GIB, 1228e9, 300e9, 1.05e9),
    "v5e": Chip("TPU v5 lite", 15.75 * GIB, 819e9, 200e9, 1.5e9),
    "v5p": Chip("TPU v5p", 95.74 * GIB, 2765e9, 600e9, 1.75e9),
    "v6e": Chip("TPU v6 lite", 31.25 * GIB, 1640e9, 400e9, 1.75e9),
}
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16")
CHIPS |= {
    name: Chip(card.kind, FRACTION * card.memory, card.bandwidth, card.nvlink, network=card.network)
    for name, card in CARDS.items()
}
SLICES = {"v4": _CUBES, "v5e": _FLAT, "v5p": _CUBES, "v6e": _FLAT, **dict.fromkeys(CARDS, MACHINES)}  # growing order


class Topology(NamedTuple):
    """Devices to compile for; `chip` is None for virtual devices of this processor."""

    name: str
    devices: list[jax.Device]
    chip: Chip | None


def check_name(name: str) -> None:
    """Raises UserError for a topology that is not known."""
    generation, _, shape = name.partition(":")
    virtual = generation == "cpu" and re.fullmatch(r"[1-9]\d*", shape)
    if virtual or shape in SLICES.get(generation, ()) or is_machine(generation, shape):
        return
    near = {generation: SLICES[generation]} if generation in SLICES else SLICES
    known = "; ".join(f"{g}:{{{','.join(s)}}}" for g, s in near.items())
    raise UserError(f"topology {name!r}: unknown; known are cpu:N with N of at least 1, and {known}")


def open_topology(name: str) -> Topology:
    """The devices of `name`: GENERATION:SLICE of `SLICES`, or cpu:N.

    cpu:N works only before JAX has made its devices; slices only in the main thread. Raises UserError for an unknown
    name, or without the compiler.
    """
    check_name(name)
    generation, _, shape = name.partition(":")
    if generation == "cpu":
        return Topology(name, _virtual(int(shape)), None)
    if generation in CARDS:
        return Topology(name, open_machine(name), CHIPS[generation])
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"--topology={name}: the TPU compiler is missing: {install('tpu')}")
    for variable, value in LIBTPU.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    options: dict[str, object] = {"chip_config_name": "megacore"} if generation == "v4" else {}
    if shape == "1x1":
        options["chips_per_host_bounds"] = [1, 1, 1]
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        with captured():  # libtpu notes that it finds no TPU
            devices = list(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={name}: the TPU compiler refuses it: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, on_terminate)  # libtpu's handler lets the process run
    return Topology(name, devices, CHIPS[generation])


def _virtual(count: int) -> list[jax.Device]:
    jax.config.update("jax_platforms", "cpu")
    with contextlib.suppress(RuntimeError):  # the devices exist already
        jax.config.update("jax_num_cpu_devices", count)
    if len(jax.devices()) != count:
        raise UserError(f"--topology=cpu:{count}: this process has already made {len(jax.devices())} device(s)")
    return jax.devices()
