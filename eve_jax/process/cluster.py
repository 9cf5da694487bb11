"""Which processes belong to a run, from flags or from the environment; nothing here touches JAX."""

import glob
import importlib.util
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from eve_jax.errors import UserError


class Cluster(NamedTuple):
    """How to reach the others. Empty `coordinator` (HOST:PORT of process 0): look into the environment.

    peer_timeout: seconds without a sign of life after which a process counts as dead. start_timeout: seconds to wait
    for all processes at the start.
    """

    coordinator: str = ""
    num_processes: int | None = None
    process_id: int | None = None
    peer_timeout: int = 40
    start_timeout: int = 300


def environment(env: Mapping[str, str], tpu: bool) -> str:
    """What manages the processes according to `env`: slurm, mpi, tpu, kubernetes, or "" for a single process.

    `tpu`: whether this machine has TPU chips. Only names that stand for several processes count, but for "tpu" on a
    TPU VM, whose metadata server alone knows how many hosts there are.
    """
    if all(f"SLURM_{name}" in env for name in ("JOB_ID", "STEP_NODELIST", "PROCID", "LOCALID")):
        return "slurm" if _number(env, "SLURM_NTASKS") > 1 else ""
    if _number(env, "OMPI_COMM_WORLD_SIZE") > 1:
        return "mpi"
    if tpu:
        workers = env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES")
        if workers is not None:
            return "tpu" if "," in workers or _number(env, "MEGASCALE_NUM_SLICES") > 1 else ""
        return "" if "TPU_SKIP_MDS_QUERY" in env else "tpu"
    return "kubernetes" if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env else ""


def _number(env: Mapping[str, str], name: str) -> int:
    """The number in the environment variable `name`, 1 where it is not set."""
    try:
        return int(env.get(name, "1"))
    except ValueError:
        raise UserError(f"the environment variable {name}={env[name]!r} is not a number") from None


def _has_tpu() -> bool:
    wanted = os.environ.get("JAX_PLATFORMS", "tpu").split(",")
    return "tpu" in wanted and bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))


def bind_address(coordinator: str) -> str | None:
    """Where process 0 listens for the others: at its own address alone, so that localhost is reached from here alone.

    coordinator: HOST:PORT. None, every address of the machine, where HOST is not one of them but leads to it.
    """
    host, _, port = coordinator.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), 0, type=socket.SOCK_STREAM)
    except OSError:
        return None
    for family, kind, protocol, _, address in found:  # of which one may be of a protocol that is switched off
        with suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
            return f"{host}:{port}"
    return None


def resolve(cluster: Cluster) -> Cluster | None:
    """`cluster` with the gaps filled from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    None when there is a single process. Raises UserError for flags that do not fit together.
    """
    env = os.environ
    c = cluster._replace(coordinator=cluster.coordinator or env.get("JAX_COORDINATOR_ADDRESS", ""))
    if c.num_processes is None and "JAX_NUM_PROCESSES" in env:
        c = c._replace(num_processes=_number(env, "JAX_NUM_PROCESSES"))
    if c.process_id is None and "JAX_PROCESS_ID" in env:
        c = c._replace(process_id=_number(env, "JAX_PROCESS_ID"))
    given = (bool(c.coordinator), c.num_processes is not None, c.process_id is not None)
    if not any(given):
        if environment(env, _has_tpu()) == "kubernetes" and importlib.util.find_spec("kubernetes") is None:
            raise UserError(
                "an indexed Kubernetes job: give --coordinator, --num_processes and --process_id "
                "(launch/ has a manifest), or pip install 'jax[k8s]' to have them found"
            )
        return c if environment(env, _has_tpu()) else None
    if c.num_processes == 1 and not c.process_id:
        return None
    if not all(given):
        raise UserError("--coordinator=HOST:PORT, --num_processes and --process_id go together: give all three or none")
    host, _, port = c.coordinator.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={c.coordinator} is not HOST:PORT with a port of 1 to {2**16 - 1}")
    number, count = c.process_id or 0, c.num_processes or 0
    if count < 1 or not 0 <= number < count:
        raise UserError(f"--process_id={number} is not one of 0 to {count - 1} (--num_processes={count})")
    return c
