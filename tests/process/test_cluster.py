"""Which processes make a run: flags, environment, and what is said when they do not fit."""

import pytest

from eve_jax.errors import UserError
from eve_jax.process import cluster
from eve_jax.process.cluster import Cluster, environment, resolve

SLURM = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """An environment that says nothing."""
    monkeypatch.setattr(cluster, "_has_tpu", lambda: False)
    monkeypatch.setattr(cluster.os, "environ", {})


@pytest.mark.parametrize(
    ("env", "tpu", "found"),
    [
        ({}, False, ""),
        ({**SLURM, "SLURM_NTASKS": "2"}, False, "slurm"),
        ({**SLURM, "SLURM_NTASKS": "1"}, False, ""),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2"}, False, ""),  # a batch script without srun
        ({"OMPI_COMM_WORLD_SIZE": "4"}, False, "mpi"),
        ({}, True, "tpu"),  # a TPU VM
        ({"TPU_SKIP_MDS_QUERY": "1"}, True, ""),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True, "tpu"),  # GKE
        ({"TPU_WORKER_HOSTNAMES": "a"}, True, ""),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, True, "tpu"),
        ({"KUBERNETES_SERVICE_HOST": "x", "JOB_COMPLETION_INDEX": "0"}, False, "kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "x"}, False, ""),
    ],
)
def test_environments(env, tpu, found):
    assert environment(env, tpu) == found


def test_a_single_process_starts_nothing():
    assert resolve(Cluster()) is None
    assert resolve(Cluster("localhost:1234", 1, 0)) is None


def test_flags_and_variables(monkeypatch):
    assert resolve(Cluster("host:1234", 2, 1)) == Cluster("host:1234", 2, 1)
    variables = {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
    monkeypatch.setattr(cluster.os, "environ", variables)
    assert resolve(Cluster()) == Cluster("host:1", 4, 3)
    assert resolve(Cluster(process_id=2)) == Cluster("host:1", 4, 2)


def test_a_variable_that_is_no_number(monkeypatch):
    monkeypatch.setattr(cluster.os, "environ", {"JAX_NUM_PROCESSES": "all"})
    with pytest.raises(UserError, match="JAX_NUM_PROCESSES='all'"):
        resolve(Cluster())


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (Cluster("host:1234"), "go together"),
        (Cluster(num_processes=2), "go together"),
        (Cluster("host", 2, 0), "not HOST:PORT"),
        (Cluster("host:http", 2, 0), "not HOST:PORT"),
        (Cluster("host:99999", 2, 0), "not HOST:PORT with a port"),
        (Cluster("host:1", 2, 2), "--process_id=2 is not one of 0 to 1"),
    ],
)
def test_flags_that_do_not_fit(flags, says):
    with pytest.raises(UserError, match=says):
        resolve(flags)


def test_kubernetes_without_its_client_says_which_flags_to_give(monkeypatch):
    monkeypatch.setattr(cluster.os, "environ", {"KUBERNETES_SERVICE_HOST": "x", "JOB_COMPLETION_INDEX": "0"})
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--coordinator, --num_processes and --process_id"):
        resolve(Cluster())
