"""Checksums of a checkpoint of several processes: each sums and checks what it wrote, and one manifest holds them all.

Threads are in the place of processes, and a dict in that of the coordination service.
"""

import json
import threading
from collections import Counter
from pathlib import Path

import pytest

from eve_jax.checkpoint import checksums
from eve_jax.checkpoint.checksums import MANIFEST, damage, write_manifest
from eve_jax.checkpoint.shared_sums import Sums, damage_seen_by_all
from eve_jax.process.peers import Peers
from tests.process.test_peers import distributed_run, three

__all__ = ["three"]
FILES = {
    "params/manifest.ocdbt": 0,
    "params/d/merged": 0,
    "params/ocdbt.process_0/d/a": 0,
    "params/ocdbt.process_1/d/b": 1,
    "params/ocdbt.process_2/d/c": 2,
    "params/array_metadatas/process_2": 2,
    "optimizer/ocdbt.process_1/d/e": 1,
    "meta/metadata": 0,
}


@pytest.fixture
def step(tmp_path: Path) -> Path:
    folder = tmp_path / "stage" / "checkpoints" / "7.orbax-checkpoint-tmp"
    for number, name in enumerate(FILES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes([number]) * (number + 1))
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Names of the files that were read for their checksums, with the process (its thread's name) that did."""
    found: dict[str, set[str]] = {}
    real, submit = checksums._checksum, checksums.ThreadPoolExecutor
    monkeypatch.setattr(checksums, "ThreadPoolExecutor", lambda workers: submit(1, threading.current_thread().name))

    def noted(path: Path) -> str:
        found.setdefault(str(path), set()).add(threading.current_thread().name.rpartition("_")[0])
        return real(path)

    monkeypatch.setattr(checksums, "_checksum", noted)
    return found


def seal(three: list[Peers], step: Path) -> None:
    all_sums = [Sums(peers) for peers in three]
    for one in all_sums[1:]:
        one.follow(step)
    all_sums[0].seal(step)


def test_each_sums_what_it_wrote(three, step, read):
    seal(three, step)
    assert set(json.loads((step / MANIFEST).read_text())["files"]) == set(FILES)
    assert [p.name for p in step.glob("manifest*")] == [MANIFEST], "the parts are in it"
    by_0 = {name for name, writer in FILES.items() if not writer}
    assert {name for name in FILES if read[str(step / name)] == {"MainThread"}} == by_0
    assert Counter(map(len, read.values())) == {1: len(FILES)}, "each file once"
    alone = (step / MANIFEST).read_text()
    write_manifest(step)
    assert (step / MANIFEST).read_text() == alone, "as one process writes it"


@pytest.mark.parametrize(
    "name", ["params/d/merged", "optimizer/ocdbt.process_1/d/e", "params/array_metadatas/process_2"]
)
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_any_number_of_processes_checks_every_file_once(step, read, name, count):
    write_manifest(step)
    read.clear()
    shares = [damage(step, share=(number, count)) for number in range(count)]
    assert shares == [""] * count
    assert set(read) == {str(step / name) for name in FILES}
    (step / name).write_bytes(b"x" * (step / name).stat().st_size)
    found = [damage(step, share=(number, count)) for number in range(count)]
    assert sorted(found)[:-1] == [""] * (count - 1)
    assert f"{step / name} holds other bytes" in max(found)


def test_all_learn_what_one_has_found(three, step):
    write_manifest(step)
    (step / "params/ocdbt.process_2/d/c").unlink()
    said = distributed_run(*(lambda p=p: damage_seen_by_all(step, p) for p in three))
    assert said[0].endswith("process_2/d/c is missing")
    assert said == [said[0]] * 3


def test_a_part_that_cannot_be_written_fails_the_save(three, step, monkeypatch):
    from eve_jax.checkpoint import shared_sums

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared_sums, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        seal(three, step)
    assert not (step / MANIFEST).exists()
