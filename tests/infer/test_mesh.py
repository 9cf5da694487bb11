"""Answers on a mesh, and over processes, are those of one device; weights lie in shards and are not copied."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from eve_jax import EVE
from eve_jax.errors import UserError
from tests.data.synthetic import write_records
from tests.infer import host_share
from tests.process.processes import ROOT, free_port

pytestmark = pytest.mark.long
MODELS = ("moe", "moe int4", "moe int8 tied", "one head", "three heads", "switched", "switched together")
LIMIT = 3600  # seconds: ten meshes take more than ten minutes on a machine that other jobs keep busy


def start(devices: int, *arguments: str) -> subprocess.Popen:
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-m", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def printed(process: subprocess.Popen) -> dict:
    out, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, error[-3000:]
    return json.loads(out.splitlines()[-1])


def check(found: dict, alone: dict, spec: str) -> None:
    """The same ids, and logits of float32 within 1e-4."""
    assert {**found, "logits": []} == {**alone, "logits": []}, spec
    np.testing.assert_allclose(found["logits"], alone["logits"], rtol=0, atol=1e-4, err_msg=spec)


@pytest.mark.slow
def test_a_mesh_answers_as_one_device():
    """Golden model A as moe, whose two key/value heads four devices share: each of them is on two."""
    found = printed(start(8, "tests.infer.on_meshes", "moe", "", "data:2,tensor:4"))
    assert len(found[""]) == 9 and found[""]["weights as given"]
    check(found["data:2,tensor:4"], found[""], "data:2,tensor:4")


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["moe", "moe int4", "moe int8 tied", "one head", "three heads", "switched", "switched together"]
)
def test_every_mesh_answers_as_one_device(model):
    specs = ["data:2", "tensor:2", "tensor:4", "data:2,tensor:2", "fsdp:2,tensor:4", "data:2,fsdp:2,tensor:2"]
    specs += ["data:8", "data:4,tensor:2", "data:2,tensor:4"]
    if model != "switched together":  # its four query heads, which it norms together, cannot be filled up to eight
        specs.append("tensor:8")
    found = printed(start(8, "tests.infer.on_meshes", model, "", *specs))
    for spec in specs:
        check(found[spec], found[""], spec)


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "each"), [("data:2", 1), ("data:2,tensor:2", 2), ("tensor:4", 2)])
def test_two_processes_answer_as_one(tmp_path, spec, each):
    """Each of them has every answer."""
    of = f"localhost:{free_port()},2"
    running = [start(each, "tests.infer.on_meshes", "moe", spec, f"--of={of},{n},{tmp_path}") for n in range(2)]
    alone = printed(start(1, "tests.infer.on_meshes", "moe", ""))
    for process in running:
        check(printed(process)[spec], alone[""], spec)


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["Hugging Face", "imported", "trained"])
def test_no_host_holds_a_checkpoint_whole(tmp_path, monkeypatch, stored):
    """Of two processes each takes little more memory than for the half that its device gets.

    A training on one device stores each parameter in one piece, which is decoded whole.
    """
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # as commands have it: freed memory of a thread serves the others
    if stored != "Hugging Face":
        host_share.write(tmp_path / host_share.STAGE, stored == "trained")
    of = f"localhost:{free_port()}", "2"
    running = [start(1, "tests.infer.host_share", *of, str(number), str(tmp_path)) for number in range(2)]
    for found in map(printed, running):
        assert found["right"] and found["whole"] > 300e6 and found["share"] < 0.51 * found["whole"]
        assert found["held"] < 0.65 * found["whole"]
        assert found["grown"] < found["share"] + 90e6 + 2 * found["largest"] * (stored == "trained"), found


@pytest.mark.slow
def test_weights_of_a_checkpoint_and_of_a_training_run(hf, eve, tmp_path):
    """On 4 devices: each holds its share alone, and a second copy is made only of what has another dtype."""
    records = write_records(tmp_path, 5)
    found = printed(start(4, "tests.infer.held_weights", str(hf), str(records), str(tmp_path / "images")))
    assert found["answers"] == eve.generate_batch(["Why?", "How?"], max_new_tokens=6)
    assert found["axes"] == [None, "fsdp", "tensor"]
    assert found["share"] < 0.6  # of 4 devices, tensor:2: biases and norms are whole on each
    assert found["live"] == found["answers"]
    assert found["shared"] == found["of the dtype"] > 0
    assert found["cast"] > 0
    alone = [line.loss for line in eve.score(records, tmp_path / "images").lines]
    np.testing.assert_allclose(found["losses"], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mesh", ["rows:2", "data:3", "tensor"])
def test_a_mesh_that_cannot_be(hf, mesh):
    with pytest.raises(UserError, match=f"^mesh={mesh!r}"):
        EVE.from_pretrained(hf, mesh=mesh)
    with pytest.raises(UserError, match="mesh"):
        EVE.from_pretrained(hf, mesh=2)  # type: ignore[arg-type]
