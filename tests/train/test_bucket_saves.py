"""A checkpoint in a bucket by several processes: each sends and keeps its part, one index holds them all.

Threads are in the place of processes, and a dict in that of the coordination service.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
import tensorstore as ts

from eve_jax.checkpoint import bucket_saves
from eve_jax.checkpoint.bucket_parts import read
from eve_jax.checkpoint.bucket_saves import BucketSaves
from eve_jax.checkpoint.checksums import damage
from eve_jax.errors import UserError
from eve_jax.process import buckets, places
from eve_jax.process.bucket_lock import BucketStore
from eve_jax.process.fetched import fetch_step
from eve_jax.process.lock import Lock, acquire
from eve_jax.process.peers import Peers
from eve_jax.process.publishing import Published
from tests.buckets import SAID, Buckets, below
from tests.process.conftest import server, store, url
from tests.process.test_peers import distributed_run, three

__all__ = ["server", "store", "three", "url"]
WIDTH = 1000  # of an array with a row by each process: too much for the index
VALUES = np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32)
SHARDING = jax.sharding.SingleDeviceSharding(jax.devices()[0])
ROW = jax.ShapeDtypeStruct((3, WIDTH), np.float32, sharding=SHARDING)
WANTED = {"a": ROW, "none": optax.EmptyState(), "b": {"c": ROW}}


def database(folder: Path, name: str, row: int) -> None:
    kvstore = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}, "path": f"{name}/"}
    array = {"shape": [3, WIDTH], "chunks": [1, WIDTH], "dtype": "<f4"}
    store = ts.open({"driver": "zarr", "kvstore": kvstore, "metadata": array}, create=True, open=True).result()
    store[row].write(VALUES[row]).result()


def written(folder: Path, process: int) -> Path:
    """What Orbax leaves of a process's part of a checkpoint: its arrays, an index of these alone, metadata."""
    for item, names in {"params": ["a", "b.c"], "optimizer": ["a"]}.items():
        for name in names:
            database(folder / item / f"ocdbt.process_{process}", name, process)
        (folder / item / "manifest.ocdbt").write_bytes(b"of this process alone")
        (folder / item / "d").mkdir()
        (folder / item / "d" / "left").write_bytes(b"")
        (folder / item / "array_metadatas").mkdir()
        (folder / item / "array_metadatas" / f"process_{process}").write_text("{}")
    (folder / "meta").mkdir()
    (folder / "meta" / "metadata").write_text(json.dumps({"written by": process}))
    (folder / "_CHECKPOINT_METADATA").write_text("{}")
    return folder


@pytest.fixture
def saves(url: str, store: Buckets, three: list[Peers], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BucketSaves]]:
    monkeypatch.setattr(bucket_saves, "POLL", 0.01)
    lock: Lock = acquire(BucketStore(f"{url}/stage/run.lock", 100.0), "training")
    found = []
    for peers in three:
        folder = places.folder_of(f"{url}/stage", places.work_of(peers.index))
        folder.mkdir(parents=True)
        own = None if peers.index else lock
        found.append(BucketSaves(Published(f"{url}/stage", folder, own, peers, lock.owner.token), peers))
    yield found
    lock.release()


def seal(saves: list[BucketSaves], number: int) -> list:
    """Save as Orbax has it done: the folder takes its name when it is sealed."""

    def one(save: BucketSaves) -> None:
        step = save.work.folder / "checkpoints" / str(number)
        made = written(step.with_name(f"{number}.tmp"), save.peers.index)
        save.seal(made, step)
        made.rename(step)

    return distributed_run(*(lambda save=save: one(save) for save in saves))


def test_each_keeps_its_part_and_any_number_reads_all(
    saves: list[BucketSaves], url: str, store: Buckets, tmp_path: Path
) -> None:
    assert seal(saves, 4) == [None] * 3
    names = [key.removeprefix("a/stage/checkpoints/4/") for key in store.objects if "/4/" in key]
    assert names[-1] == "manifest.json" and not [name for name in names if "left" in name or "manifest.pro" in name]
    for save in saves:
        step = save.work.folder / "checkpoints" / "4"
        parts = {part for name in below(step) for part in name.split("/") if "process_" in part}
        assert parts == {f"ocdbt.process_{save.peers.index}", f"process_{save.peers.index}"}
        assert json.loads((step / "meta" / "metadata").read_text()) == {"written by": 0}
        assert damage(step, share=(save.peers.index, 3)) == ""
        store.asked.clear()
        found = read(step, "params", WANTED)
        assert all(np.array_equal(value, VALUES) for value in jax.tree.leaves(found))
        asked = {key.split("/")[5] for _, key in store.asked}
        assert asked == {f"ocdbt.process_{n}" for n in range(3) if n != save.peers.index}, "its own it has"
    whole = tmp_path / "whole"
    fetch_step(f"{url}/stage/checkpoints/4", whole)
    assert damage(whole) == ""
    base = {"driver": "ocdbt", "base": f"file://{whole}/optimizer/", "path": "a/"}
    alone = ts.open({"driver": "zarr", "kvstore": base}, read=True).result()
    assert np.array_equal(alone.read().result(), VALUES)
    with pytest.raises(UserError, match="cannot be read"):
        read(step, "params", {"other": ROW})
    with pytest.raises(UserError, match=r"an array has the shape \(3, 1000\), not \(2, 1000\)"):
        read(step, "params", {"a": jax.ShapeDtypeStruct((2, WIDTH), np.float32, sharding=SHARDING)})


@pytest.mark.parametrize("url", ["s3"], indirect=True)
@pytest.mark.parametrize(("process", "fault"), [(0, "forbidden"), (1, "full"), (2, "reset")])
def test_a_part_that_cannot_be_sent_fails_the_save_of_all(
    saves: list[BucketSaves], store: Buckets, process: int, fault: str
) -> None:
    assert seal(saves, 2) == [None] * 3
    before = {key: value for key, value in store.objects.items() if "/2/" in key}
    store.fault = lambda method, key: fault if f"checkpoints/4/params/ocdbt.process_{process}/" in key else ""
    said = seal(saves, 4)
    assert all(isinstance(error, OSError) and SAID[fault] in str(error.strerror) for error in said), said
    assert not [key for key in store.objects if key.endswith("4/manifest.json")]
    assert {key: value for key, value in store.objects.items() if "/2/" in key} == before


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_what_is_lost_on_the_way_does_not_count(
    saves: list[BucketSaves], store: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = store.put

    def losing(key: str, data: bytes, *allowed: Any) -> int:
        return 1 if "4/optimizer/ocdbt.process_2/manifest" in key else put(key, data, *allowed)

    monkeypatch.setattr(store, "put", losing)
    said = seal(saves, 4)
    assert all("process_2" in str(error) or "process_2" in str(error.filename) for error in said), said
    assert not [key for key in store.objects if key.endswith("4/manifest.json")]


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_a_list_may_be_older_than_what_was_written(
    saves: list[BucketSaves], store: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = buckets.names_below
    monkeypatch.setattr(buckets, "names_below", lambda url: [n for n in listed(url) if "optimizer" not in n])
    assert seal(saves, 4) == [None] * 3
    assert "a/stage/checkpoints/4/manifest.json" in store.objects


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_a_step_that_is_saved_again_is_waited_for_again(saves: list[BucketSaves], store: Buckets) -> None:
    """As after a return to an earlier checkpoint."""
    assert seal(saves, 4) == [None] * 3
    for save in saves:
        shutil.rmtree(save.work.folder / "checkpoints" / "4")
    store.fault = lambda method, key: "full" if "checkpoints/4/params/ocdbt.process_2/" in key else ""
    assert all(isinstance(error, OSError) for error in seal(saves, 4))
    assert "a/stage/checkpoints/4/manifest.json" not in store.objects


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_a_part_of_a_run_that_was_resumed_elsewhere_is_not_taken(saves: list[BucketSaves], store: Buckets) -> None:
    """A process of the old run, which has not noticed that process 0 was killed, sends what it has of the same step."""
    stale = saves[1].work
    old = Published(stale.url, stale.folder, None, stale.others, "of the old run")
    place = f"{stale.url}/checkpoints/4/params/ocdbt.process_1/manifest.ocdbt"
    old.write(place, b"comes before")
    assert seal(saves, 4) == [None] * 3
    before = store.objects["a/stage/checkpoints/4/params/ocdbt.process_1/manifest.ocdbt"]
    assert before[0] != b"comes before"
    for at in (place, f"{stale.url}/checkpoints/4/manifest.json"):
        with pytest.raises(buckets.TakenOver):
            old.write(at, b"comes after")
    assert store.objects["a/stage/checkpoints/4/params/ocdbt.process_1/manifest.ocdbt"] == before
