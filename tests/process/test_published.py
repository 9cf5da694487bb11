"""Work folders in buckets: what is published and when, on which machine, and what a refusal leaves."""

import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from eve_jax.errors import InUse, UserError
from eve_jax.process import buckets, fetched, places, publishing
from eve_jax.process import published as stored_folders
from eve_jax.process.fetched import fetch
from eve_jax.process.lock import locked
from eve_jax.process.peers import Peers
from eve_jax.process.published import in_bucket, published, sent, work_folder
from eve_jax.process.publishing import Published, one_line
from eve_jax.process.stored_path import StoredPath
from tests.buckets import SAID, Buckets, below, step
from tests.process.test_peers import distributed_run, three

__all__ = ["three"]


def checkpoint(folder: Path, number: int, text: bytes = b"p") -> Path:
    """A finished checkpoint on this machine."""
    made = folder / "checkpoints" / str(number)
    (made / "params").mkdir(parents=True)
    (made / "params" / "x").write_bytes(text)
    (made / "manifest.json").write_text(json.dumps({"files": {"params/x": [1, ""]}}))
    return made


def test_a_work_folder_on_one_machine_then_on_another(
    url: str, store: Buckets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(work_folder(f"{url}/stage"))
    with in_bucket(folder, "training"):
        work = published(folder)
        assert work is not None and published(folder / "plan") is work
        (folder / "metrics.jsonl").write_text("1\n")
        (folder / "plan").mkdir()
        (folder / "plan" / "p").write_text("plan")
        (folder / ".hidden").touch()
        (folder / "x.part").touch()
        work.save(checkpoint(folder, 2), folder / "checkpoints" / "2")
        puts = [key for method, key in store.asked if method in ("PUT", "POST") and "run.lock" not in key]
        assert puts[-1] == "a/stage/checkpoints/2/manifest.json"
        assert puts.index("a/stage/metrics.jsonl") < puts.index("a/stage/checkpoints/2/params/x")
        (folder / "metrics.jsonl").write_text("1\n2\n")
    assert store.objects["a/stage/metrics.jsonl"][0] == b"1\n2\n"
    assert not [key for key in store.objects if key.endswith((".hidden", ".part", "run.lock"))]

    step(store, "a/stage", 4, whole=False)  # of a save that was killed
    monkeypatch.setenv("EVE_CACHE", str(tmp_path / "other"))
    there = Path(work_folder(f"{url}/stage"))
    assert there != folder
    with in_bucket(there, "training"):
        assert below(there) == ["checkpoints/2/manifest.json", "checkpoints/2/params/x", "metrics.jsonl", "plan/p"]
        work = published(there)
        assert work is not None
        work.save(checkpoint(there, 4), there / "checkpoints" / "4")
        (there / "checkpoints" / "2" / "manifest.json").unlink()
        (there / "checkpoints" / "2" / "params" / "x").unlink()
        (there / "checkpoints" / "2" / "params").rmdir()
        (there / "checkpoints" / "2").rmdir()
        (there / "plan" / "p").unlink()
    assert not [key for key in store.objects if "checkpoints/2/" in key or "plan" in key or "left" in key]

    monkeypatch.setenv("EVE_CACHE", str(tmp_path / "cache"))
    with in_bucket(folder, "training"):  # the first machine again, which has what is no longer so
        assert [name for name in below(folder) if not name.endswith((".hidden", ".part"))] == [
            "checkpoints/4/manifest.json",
            "checkpoints/4/params/x",
            "metrics.jsonl",
        ]


@pytest.mark.parametrize("fault", SAID)
def test_a_refusal_loses_nothing(url: str, fault: str, store: Buckets) -> None:
    folder = Path(work_folder(url))
    with in_bucket(folder, "training"):
        (folder / "metrics.jsonl").write_text("1\n")
        made = checkpoint(folder, 2)
        work = published(folder)
        assert work is not None
        work.save(made, made)
    before = {key: value for key, value in store.objects.items() if key != "a/run.lock"}
    with pytest.raises(UserError, match=SAID[fault]) as said, in_bucket(folder, "training"):
        store.fault = lambda method, key: fault if key != "a/run.lock" else ""
        work = published(folder)
        assert work is not None
        (folder / "metrics.jsonl").write_text("1\n2\n")
        made = checkpoint(folder, 4)
        with pytest.raises(OSError, match=SAID[fault]):
            work.save(made, made)
    assert "what was saved before is whole" in str(said.value)
    assert {key: value for key, value in store.objects.items() if key != "a/run.lock"} == before
    with pytest.raises(UserError), in_bucket(folder, "training"):
        pass
    store.fault = lambda method, key: ""
    with in_bucket(folder, "training"):
        assert below(folder / "checkpoints") == ["2/manifest.json", "2/params/x"]


def test_a_bucket_that_does_not_answer_keeps_nobody_waiting(
    url: str, store: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first request that is given up, the lock alone is asked for, to give it back."""
    folder = Path(work_folder(url))
    with pytest.raises(UserError, match="does not answer"), in_bucket(folder, "training"):
        work = published(folder)
        assert work is not None
        (folder / "metrics.jsonl").write_text("1\n")
        monkeypatch.setattr(buckets, "PATIENCE", 0.2)
        monkeypatch.setattr(buckets, "SLOWEST", 1e9)
        store.fault = lambda method, key: "slow0.5"
        store.asked.clear()
        with one_line(url):
            work.publish()
    assert len(store.asked) == 2


def test_blocks_inside_share_the_lock(url: str, store: Buckets) -> None:
    folder = Path(work_folder(url))
    with in_bucket(folder, "the recipe") as outer:
        with in_bucket(folder, "training") as inner, locked(folder, "training") as again:
            assert outer is inner is again
        with in_bucket(folder / "stage", "training") as below_it:
            assert below_it is None
        assert "a/run.lock" in store.objects
        with pytest.raises(InUse), locked(folder / "stage", "x"), locked(folder / "stage", "y"):
            pass
    assert not store.objects


def held_elsewhere(store: Buckets, key: str) -> None:
    """Let another machine have taken the lock over."""
    found = json.loads(store.objects[key][0]) | {"token": "feed", "host": "node7", "machine": "other", "pid": 1}
    store.put(key, json.dumps(found).encode())


def test_what_arrives_late_takes_nothings_place(url: str, store: Buckets) -> None:
    """Requests of a process that was killed, or whose run was resumed elsewhere, before and after the new run's."""
    folder = Path(work_folder(f"{url}/stage"))
    made, at = checkpoint(folder, 4, b"old"), f"{url}/stage/checkpoints/4/params/x"
    with pytest.raises(UserError, match="taken over by process 1 on node7"), in_bucket(folder, "training"):
        old = published(folder)
        assert old is not None
        (folder / "metrics.jsonl").write_text("1\n")
        old.publish()
        late = old._notes.last("metrics.jsonl")
        held_elsewhere(store, "a/stage/run.lock")
        new = Published(f"{url}/stage", folder.with_name("other"), None, None, "feed")
        new.pull()
        store.put("a/stage/metrics.jsonl", b"late")  # before the new run writes
        (new.folder / "metrics.jsonl").write_text("2\n")
        new.publish()
        assert store.objects["a/stage/metrics.jsonl"][0] == b"2\n"
        new.begin(new.folder / "checkpoints" / "4")
        store.put("a/stage/checkpoints/4/params/x", b"late")
        new.write(at, b"new")
        for place, data, known in [(at, b"late", buckets.NONE_YET), (f"{url}/stage/metrics.jsonl", b"late", late)]:
            with pytest.raises(buckets.TakenOver, match=r"taken over by process 1 on node7 .* nothing more is written"):
                old.write(place, data, known)
        for write in (old.publish, lambda: old.begin(made), lambda: old.end(made, str(places.url_of(made)), made)):
            with pytest.raises(buckets.TakenOver):
                write()
        (folder / "metrics.jsonl").write_text("3\n")
    assert store.objects["a/stage/metrics.jsonl"][0] == b"2\n"
    assert store.objects["a/stage/checkpoints/4/params/x"][0] == b"new"
    assert "a/stage/checkpoints/4/manifest.json" not in store.objects


def test_a_folder_is_waited_for_that_a_dying_process_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 of a run whose process 0 was killed holds no lock in the bucket."""
    monkeypatch.setattr(stored_folders, "POLL", 0.01)
    order = []

    def second() -> None:
        with stored_folders._alone(tmp_path / "stage"):
            order.append("second")

    with stored_folders._alone(tmp_path / "stage"):
        monkeypatch.setattr(stored_folders, "LAPSE", 0.1)
        with pytest.raises(UserError, match="a process of an earlier run does not end"):
            second()
        monkeypatch.setattr(stored_folders, "LAPSE", 60.0)
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_each_process_of_a_run_has_a_folder_of_its_own(
    url: str, store: Buckets, three: list[Peers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With threads in the place of processes: process 0 publishes, and hands out what it has to the others."""
    step(store, "a/stage", 2)
    monkeypatch.setattr(publishing, "peers", lambda: three[0])
    folders = [places.folder_of(f"{url}/stage", places.work_of(peers.index)) for peers in three]
    assert len(set(folders)) == 3 and folders[0] == Path(work_folder(f"{url}/stage"))
    assert {places.url_of(folder) for folder in folders} == {f"{url}/stage"}
    assert places.shown(f"{folders[2]}/x") == f"{url}/stage/x"
    with locked(folders[0], "training") as lock:
        works = [
            Published(f"{url}/stage", folder, None if peers.index else lock, peers, lock.owner.token)
            for folder, peers in zip(folders, three, strict=True)
        ]
        assert distributed_run(*(work.pull for work in works)) == [None] * 3
        assert [below(folder) for folder in folders] == [below(folders[0])] * 3
        (folders[0] / "plan").mkdir()
        (folders[0] / "plan" / "p").write_text("plan")
        (folders[1] / "stray").touch()
        assert distributed_run(*(work.hand_out for work in works)) == [None] * 3
        assert [(folder / "plan" / "p").read_text() for folder in folders] == ["plan"] * 3
        times = {(folder / "plan" / "p").stat().st_mtime_ns for folder in folders}
        assert len(times) == 1, "fingerprints of records have them"
        assert not (folders[1] / "stray").exists() and "a/stage/stray" not in store.objects


def test_files_are_sent_when_they_are_whole(url: str, store: Buckets, tmp_path: Path) -> None:
    out = Path(work_folder(f"{url}/scores.jsonl"))
    with pytest.raises(ZeroDivisionError), sent(out):
        out.write_text("half")
        raise ZeroDivisionError
    assert not store.objects
    with sent(out, Path(f"{out}.bad.jsonl")):
        out.write_text("whole")
    assert {key: data for key, (data, _) in store.objects.items()} == {"a/scores.jsonl": b"whole"}
    with sent(tmp_path / "local"):
        pass


def test_paths_in_files(url: str, store: Buckets, tmp_path: Path) -> None:
    store.put("a/stage1/config.json", b"{}")
    folder, origin = Path(work_folder(f"{url}/stage2")), Path(fetch(f"{url}/stage1"))
    stored = StoredPath.of(origin, folder)
    assert stored == ("../stage1", f"{url}/stage1")
    assert stored.find(folder) == origin
    local = tmp_path / "copy" / "stage2"  # of a run that was copied from the bucket
    for name in ("stage1", "stage2"):
        (tmp_path / "copy" / name).mkdir(parents=True)
    assert stored.find(local) == local / "../stage1"
    (tmp_path / "copy" / "stage1").rmdir()
    assert stored.find(local) == origin
    store.remove("a/stage1/config.json")
    fetched._done.clear()
    assert stored.find(folder) is None


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_is_whole_in_the_bucket_while_it_is_written(store: Buckets, mode: str, tmp_path: Path) -> None:
    """SQLite's file alone, copied in the midst of a transaction, would have a half of it, or nothing."""
    folder = Path(work_folder("s3://bkt/a"))

    def stored() -> list[tuple[int, int]]:
        (tmp_path / "copy.db").write_bytes(store.objects["a/mlflow.db"][0])
        with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
            assert copy.execute("pragma integrity_check").fetchall() == [("ok",)]
            return copy.execute("select count(*), sum(x = y) from t").fetchall()

    with in_bucket(folder, "training"):
        work = published(folder)
        assert work is not None
        with closing(sqlite3.connect(folder / "mlflow.db", isolation_level=None)) as writer:
            writer.execute(f"pragma journal_mode={mode}")
            writer.execute("pragma cache_size=4")  # pages, so that a transaction is written before it ends
            writer.execute("create table t (x, y, filler)")
            numbers = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 400)"
            writer.execute(f"{numbers} insert into t select i, i, hex(randomblob(500)) from n")
            work.publish()
            assert stored() == [(400, 400)]
            if mode == "wal":  # a reader then need not wait
                writer.execute("begin")
                writer.execute("update t set x = -x, filler = hex(randomblob(500))")
                work.publish()
                assert stored() == [(400, 400)]
                writer.execute("commit")
                work.publish()
                assert stored() == [(400, 0)]
        assert [name for name in store.objects if "mlflow" in name] == ["a/mlflow.db"]
        (folder / "mlflow.db-journal").write_text("of a run that was killed: another state's")
        work.pull()
        assert not (folder / "mlflow.db-journal").exists()
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
