"""Several processes as one run: who they are, how they find each other, how they end.

A run of one process starts nothing of this. Otherwise `jax.distributed` connects the processes, by flags or by what
TPU pods, SLURM, Open MPI and Kubernetes say in the environment.
"""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from eve_jax.errors import UserError
from eve_jax.process import places
from eve_jax.process.cluster import Cluster, bind_address, environment, resolve
from eve_jax.process.interrupt import Interrupted
from eve_jax.process.kept_programs import keep_everywhere
from eve_jax.process.native_log import NativeOutput, lost_peer
from eve_jax.process.peers import FAILED, STOPPED, Peers

_peers: Peers | None = None


def peers() -> Peers | None:
    """The other processes of this run; None when it is the only one."""
    return _peers


def is_leader() -> bool:
    """True for the process that writes what only one may write: process 0, or the only one."""
    return _peers is None or _peers.index == 0


def count() -> int:
    """Return of how many processes this run is one."""
    return 1 if _peers is None else _peers.count


def print_once(text: str) -> None:
    """Print, in the process that leads."""
    if is_leader():
        print(places.shown(text), flush=True)


@contextmanager
def by_process_0(name: str) -> Iterator[bool]:
    """True in the block of the one process that is to do something for all; the others wait until it is done.

    They answer nothing while they wait, so in the block `peers()` is None.
    """
    global _peers
    mine, others = is_leader(), _peers
    _peers = None
    try:
        yield mine
    finally:
        _peers = others
    if others is not None:
        others.gather(name)


@contextmanager
def distributed_run(cluster: Cluster, workdir: Path) -> Iterator[None]:
    """Runs the block as one of the processes of `cluster`; native libraries write to `workdir`/logs.

    When the block raises, the other processes are told and end, too; when another process ends, this one prints why
    and exits: status 1, or 130 when the other was stopped on request.
    """
    global _peers
    found = resolve(cluster)
    if found is None:
        yield
        return
    _connect(found, workdir)
    try:
        yield
    except Interrupted:
        if _peers is not None and not _peers.agreed_to_stop:
            _peers.fail("interrupted", STOPPED)
            raise
        _part()
        raise
    except BaseException as error:
        if _peers is not None:
            _wait_for_reason(error, found)
            stopped = isinstance(error, KeyboardInterrupt)
            text = "asked to stop" if stopped else places.shown(" ".join(str(error).split())) or type(error).__name__
            _peers.fail(text, STOPPED if stopped else FAILED)
        raise
    _part()


def _connect(cluster: Cluster, workdir: Path) -> None:
    global _peers
    logs = workdir / "logs"
    output = NativeOutput(logs / f"{socket.gethostname()}-{os.getpid()}.log")
    output.on_abort(lambda tail: lost_peer(tail, cluster.num_processes or 0, cluster.start_timeout))
    times: dict[str, Any] = {
        "heartbeat_timeout_seconds": cluster.peer_timeout,
        "initialization_timeout": cluster.start_timeout,
        "shutdown_timeout_seconds": cluster.start_timeout,
    }
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM away from `interrupt`
    try:
        if cluster.coordinator:
            if cluster.process_id == 0:
                times["coordinator_bind_address"] = bind_address(cluster.coordinator)
            jax.distributed.initialize(cluster.coordinator, cluster.num_processes, cluster.process_id, **times)
        else:
            jax.distributed.initialize(**times)
    except Exception as error:
        if cluster.coordinator or environment(os.environ, True) != "tpu":
            raise UserError(f"the processes cannot be connected: {error}") from error
        print(f"this TPU host knows of no others, so it trains alone ({error})", file=sys.stderr, flush=True)
        return
    count, index = jax.process_count(), jax.process_index()
    output.rename(logs / f"process-{index}.log")
    if count > 1:
        from jax._src.distributed import global_state  # its client has no public name

        output.on_abort(lambda tail: lost_peer(tail, count, cluster.start_timeout))
        _peers = Peers(global_state.client, index, count)
        keep_everywhere(workdir, _peers)


def _part() -> None:
    """Ends the run on all hosts: waits until all have come so far."""
    global _peers
    if _peers is not None:
        _peers.gather("end")
        _peers.close()
        _peers = None
    jax.distributed.shutdown()


def _wait_for_reason(error: BaseException, cluster: Cluster) -> None:
    """A failed exchange of data most often means that a peer is gone: wait for those who know to end this process."""
    text = str(error)
    if isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in text or "coordination service" in text:
        print("an exchange with the other processes failed; finding out why ...", file=sys.stderr, flush=True)
        time.sleep(cluster.peer_timeout + 10)
