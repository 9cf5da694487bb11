"""Checkpoints: damage is named and survived, nothing good is overwritten; what is kept; full and read-only disks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax import __version__
from eve_jax.checkpoint.best import Best
from eve_jax.checkpoint.checksums import MANIFEST, damage
from eve_jax.checkpoint.stage_folder import AGAIN, Checkpoints, newest_step, steps_in
from eve_jax.checkpoint.stored import load_stored, stored_shapes
from eve_jax.errors import UserError

ROOT = Path(__file__).parents[2]


def params(step):
    return {"a": jnp.full((64, 8), float(step)), "b": jnp.arange(5.0) + step}


def saved(folder, steps=(1, 2), **policy):
    checkpoints = Checkpoints(folder, **{"keep": 9, **policy})
    for step in steps:
        checkpoints.save(step, params(step), {"count": jnp.int32(step)}, {"plan": "p"}, {"loss": 10.0 - step % 5})
    checkpoints.close()
    return folder / "checkpoints"


def a_file(step):
    """The largest file of the parameters."""
    return max((p for p in (step / "params").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(step):
    file = a_file(step)
    file.write_bytes(file.read_bytes()[:-7])
    return file


def delete(step):
    file = a_file(step)
    file.unlink()
    return file


def flip(step):
    file = a_file(step)
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 16
    file.write_bytes(raw)
    return file


def empty(step):
    shutil.rmtree(step)
    step.mkdir()
    return step


def garble(step):
    (step / MANIFEST).write_text('{"files": {"par')
    return step / MANIFEST


BREAKS = {f.__name__: f for f in (truncate, delete, flip, empty, garble)}


@pytest.mark.parametrize("name", BREAKS)
def test_damage_is_set_aside_for_the_one_before(tmp_path, capsys, name):
    root = saved(tmp_path)
    file = BREAKS[name](root / "2")
    kept = {p: p.read_bytes() for p in (root / "1").rglob("*") if p.is_file()}
    left = sorted(p.name for p in (root / "2").rglob("*"))
    assert newest_step(tmp_path) == 1
    assert str(file) in capsys.readouterr().err
    with pytest.raises(UserError, match="newest checkpoint is damaged"):
        newest_step(tmp_path, fall_back=False)

    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.set_damaged_aside(final=99)
    said = capsys.readouterr().err
    assert str(file) in said
    assert "the one before is of step 1" in said
    assert checkpoints.latest == 1
    assert sorted(p.name for p in (root / "2.damaged").rglob("*")) == left, "kept as it was"
    checkpoints.save(2, params(2), {"count": jnp.int32(2)}, {"plan": "p"})  # training has come there again
    checkpoints.close()
    assert steps_in(tmp_path) == [1, 2]
    assert damage(root / "2") == ""
    assert {p: p.read_bytes() for p in kept} == kept
    np.testing.assert_array_equal(read(tmp_path, 2)["a"], params(2)["a"])


def read(folder, step):

    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = stored_shapes(folder, step)
    return load_stored(
        folder, step, {n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place) for n, s in shapes.items()}
    )


def test_without_a_manifest_it_is_used_unverified(tmp_path):
    root = saved(tmp_path)
    (root / "2" / MANIFEST).unlink()
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.set_damaged_aside(final=99)
    assert (checkpoints.latest, checkpoints.is_verified(2), checkpoints.is_verified(1)) == (2, False, True)
    checkpoints.close()


def test_of_the_final_checkpoint_only_sizes_are_looked_at(tmp_path):
    root = saved(tmp_path)
    flip(root / "2")
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.set_damaged_aside(final=2)
    assert checkpoints.latest == 2
    truncate(root / "2")
    checkpoints.set_damaged_aside(final=2)
    assert checkpoints.latest == 1
    checkpoints.close()


def test_all_damaged(tmp_path):
    root = saved(tmp_path)
    first, second = flip(root / "1"), delete(root / "2")
    with pytest.raises(UserError, match="no checkpoint that is whole") as error:
        newest_step(tmp_path)
    assert str(second) in str(error.value)
    assert str(error.value).endswith(AGAIN)
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.set_damaged_aside(final=99)
    assert checkpoints.latest is None
    checkpoints.close()
    assert first.is_relative_to(root / "1")
    assert sorted(p.name for p in root.iterdir()) == ["1.damaged", "2.damaged"]


@pytest.mark.parametrize("fall_back", [True, False])
@pytest.mark.parametrize("name", BREAKS)
def test_the_only_one_is_damaged(tmp_path, name, fall_back):
    root = saved(tmp_path)
    shutil.rmtree(root / "1")
    file = BREAKS[name](root / "2")
    with pytest.raises(UserError) as error:
        newest_step(tmp_path, fall_back)
    assert str(file) in str(error.value)
    assert str(error.value).startswith(f"{tmp_path} has no checkpoint that is whole: ")
    assert str(error.value).endswith("rerun its training, or remove the folder and rerun its import")


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ({"keep": 2}, [11, 12]),
        ({"keep": 1, "keep_every": 4}, [4, 8, 12]),
        ({"keep": 1, "best": Best(2)}, [4, 9, 12]),  # the loss is 10 - step % 5
        ({"keep": 1, "best": Best(2, largest=True)}, [5, 10, 12]),
        ({"keep": 1, "best": Best(1, "eval/loss")}, [12]),  # which no checkpoint has
    ],
)
def test_what_is_kept(tmp_path, policy, kept):
    saved(tmp_path, range(1, 8), **policy)
    saved(tmp_path, range(8, 13), **policy)  # resumes in another process
    assert steps_in(tmp_path) == kept


def test_what_a_kill_left_is_cleaned_away(tmp_path):
    root = saved(tmp_path)
    shutil.copytree(root / "2", root / "3.orbax-checkpoint-tmp")
    checkpoints = Checkpoints(tmp_path, keep=9)
    assert checkpoints.latest == 2
    checkpoints.save(3, params(3), {"count": jnp.int32(3)}, {})
    checkpoints.close()
    assert sorted(p.name for p in root.iterdir()) == ["1", "2", "3"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1.5 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def noise(megabytes):
    return {"a": np.random.default_rng(0).normal(size=int(megabytes * 1e6 / 8))}


@pytest.mark.parametrize("noticed", ["close", "check", "save"])
def test_full_disk(small_disk, noticed):
    root = saved(small_disk, [1])
    checkpoints = Checkpoints(small_disk, keep=1)
    checkpoints.save(2, noise(3), {"count": jnp.int32(2)}, {})
    with pytest.raises(UserError) as error:
        if noticed == "close":
            checkpoints.close()
        if noticed == "save":
            checkpoints.save(3, params(3), {"count": jnp.int32(3)}, {})
        while noticed == "check":
            checkpoints.check()
    checkpoints.close()  # says it once
    said = str(error.value)
    assert "\n" not in said
    assert f"{root}: checkpoint 2 could not be written (No space left on device); the one of step 1 is whole" in said
    assert [p.name for p in root.iterdir()] == ["1"]
    assert damage(root / "1") == ""


MANY = """
import sys
from pathlib import Path
import jax.numpy as jnp, numpy as np
from eve_jax.errors import UserError
from eve_jax.checkpoint.stage_folder import Checkpoints
from eve_jax.process.hush import hush_loops

hush_loops()  # as every command does
noise = np.random.default_rng(0).normal(size=(40, 10_000))
checkpoints = Checkpoints(Path(sys.argv[1]))
try:
    checkpoints.save(1, {str(n): a for n, a in enumerate(noise)}, {"count": jnp.int32(1)}, {})
    checkpoints.close()
except UserError as error:
    print("error:", error)
"""


def test_full_disk_is_one_line_for_many_arrays(small_disk):
    command = [sys.executable, "-c", MANY, str(small_disk)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "(No space left on device); there is no older one" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_read_only_folder(small_disk):
    root = saved(small_disk, [1])
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert newest_step(small_disk) == 1
    checkpoints = Checkpoints(small_disk)
    with pytest.raises(UserError, match=r"checkpoint 2 could not be written \(Read-only file system\)"):
        checkpoints.save(2, params(2), {"count": jnp.int32(2)}, {})
    checkpoints.close()
    meta = json.loads((root / "1" / "meta" / "metadata").read_text())
    assert meta == {"plan": "p", "eve_jax_version": __version__}
