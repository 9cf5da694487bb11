"""Copies of a run's state on the hosts' own disks: used when newer than the shared checkpoint and whole everywhere."""

import json
import shutil
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.checkpoint.local_copies import COPY, LocalCopies, LocalSettings
from eve_jax.checkpoint.stage_folder import Checkpoints, steps_in
from eve_jax.errors import UserError
from eve_jax.sharding import make_mesh, replicated
from tests.process.processes import Processes, lines, small_stage


def settings(tmp_path: Path) -> LocalSettings:
    return LocalSettings(str(tmp_path / "disk"), 2, make_mesh("fsdp:1", jax.devices()[:1]))


def state(step: int, mesh: jax.sharding.Mesh) -> tuple[dict, dict]:
    place = replicated(mesh)
    return (
        {"a.b": jax.device_put(jnp.full((6, 4), float(step)), place)},
        {"count": jax.device_put(jnp.int32(step), place)},
    )


def opened(tmp_path: Path) -> tuple[Checkpoints, LocalCopies]:
    (tmp_path / "stage").mkdir(exist_ok=True)
    local = LocalCopies(settings(tmp_path), tmp_path / "stage", None)
    checkpoints = Checkpoints(tmp_path / "stage", local=local)
    checkpoints.set_damaged_aside(final=None)
    return checkpoints, local


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


@pytest.fixture
def saved(tmp_path):
    """A stage with a checkpoint at 3 and copies of steps 2 and 4."""
    checkpoints, local = opened(tmp_path)
    assert [step for step in range(1, 5) if local.due(step)] == [2, 4]
    local.save(2, *state(2, local.settings.mesh), {"plan": "p2"})
    checkpoints.save(3, *state(3, local.settings.mesh), {"plan": "p3"})
    local.save(4, *state(4, local.settings.mesh), {"plan": "p4"})
    checkpoints.close()
    return local.folder


def test_the_newer_copy_is_resumed_from(saved, tmp_path):
    assert sorted(path.name for path in saved.iterdir()) == ["2", "4"], "two are kept"
    checkpoints, local = opened(tmp_path)
    assert (checkpoints.latest, checkpoints.meta(4), checkpoints.is_verified(4)) == (4, {"plan": "p4"}, True)
    found = checkpoints.restore(4, *abstract(state(0, local.settings.mesh)))
    np.testing.assert_array_equal(found[0]["a.b"], np.full((6, 4), 4.0))
    assert int(found[1]["count"]) == 4
    checkpoints.save(6, *state(6, local.settings.mesh), {"plan": "p6"})
    checkpoints.close()
    assert steps_in(tmp_path / "stage") == [3, 6]
    later, _ = opened(tmp_path)
    assert later.latest == 6, "the shared one is newer now"
    assert not list(saved.iterdir())
    later.close()


def break_nothing_of_the_run(copy: Path, stage: Path) -> None:
    (stage / "local_copies.json").unlink()  # the stage begins anew


def break_mesh(copy: Path, stage: Path) -> None:
    about = json.loads((copy / COPY).read_text())
    (copy / COPY).write_text(json.dumps(about | {"mesh": "another"}))


def break_end(copy: Path, stage: Path) -> None:
    (copy / "manifest.json").unlink()  # killed before it was whole


def break_file(copy: Path, stage: Path) -> None:
    file = max((p for p in (copy / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize("wrong", [break_nothing_of_the_run, break_mesh, break_end, break_file])
def test_another_copy_is_not(saved, tmp_path, wrong, capsys):
    wrong(saved / "4", tmp_path / "stage")
    checkpoints, _ = opened(tmp_path)
    assert checkpoints.latest == 3
    assert not list(saved.iterdir())
    assert ("holds other bytes" in capsys.readouterr().err) == (wrong is break_file)
    checkpoints.close()


def test_other_weights_are_refused(saved, tmp_path):
    checkpoints, local = opened(tmp_path)
    params, optimizer = abstract(state(0, local.settings.mesh))
    with pytest.raises(UserError, match="holds other weights or shards"):
        checkpoints.restore(4, params | {"c": params["a.b"]}, optimizer)
    checkpoints.close()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "disk").write_text("a file")
    with pytest.raises(UserError, match=r"config\.train\.local_dir: .*disk/stage-\w+/process-0 cannot be made"):
        opened(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [False, True])
def test_killed_between_checkpoints(tmp_path, lost):
    """Two processes are killed: they resume from their copies, or, with one disk lost, from the checkpoint."""
    stage = [*small_stage(tmp_path, 40), "--config.train.save_every=10", "--config.mesh=fsdp:2"]
    Processes(2, tmp_path / "undisturbed", stage).finish()
    local = [*stage, f"--config.train.local_dir={tmp_path / 'disk'}", "--config.train.local_every=2"]
    two = Processes(2, tmp_path / "work", [*local, "--peer_timeout=20"])
    two.reach("stage1", 17)
    for process in (0, 1):
        two.send(process, signal.SIGKILL)
    two.wait()
    time.sleep(1)
    disks = sorted((tmp_path / "disk").glob("stage1-*/process-*"))
    assert [path.name for path in disks] == ["process-0", "process-1"]
    if lost:
        shutil.rmtree(disks[1])
    again = Processes(2, tmp_path / "work", local).finish()
    assert ("resuming from the hosts' own copies of step 1" in again.outputs()[0]) != lost, again.outputs()
    assert lines(tmp_path / "work") == lines(tmp_path / "undisturbed")
