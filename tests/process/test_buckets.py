"""Buckets: objects and their conditions, copies of what is read, locks, and refusals."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from eve_jax.errors import InUse, UserError
from eve_jax.process import buckets, caches, fetched, lock, places
from eve_jax.process.buckets import Refused
from eve_jax.process.fetched import fetch
from eve_jax.process.lock import locked
from eve_jax.process.owner import Owner
from eve_jax.process.paths import expand, expand_list
from eve_jax.process.published import work_folder
from tests.buckets import SAID, Buckets, below, step


def reads(store: Buckets) -> list[str]:
    """Keys of the objects that were asked for since the last call."""
    found = [key for method, key in store.asked if method == "GET" and key and not key.endswith(".listed")]
    store.asked.clear()
    return found


def test_objects(url: str, store: Buckets) -> None:
    assert buckets.read(f"{url}/x") == (None, b"")
    first = buckets.write(f"{url}/x", b"hello")
    assert buckets.read(f"{url}/x") == (b"hello", first)
    assert buckets.read(f"{url}/x", known=first) == (b"", first)
    assert buckets.read(f"{url}/x", part=slice(1, 3))[0] == b"el"
    assert buckets.write(f"{url}/x", b"other", instead_of=buckets.NONE_YET) == b""
    second = buckets.write(f"{url}/x", b"other", instead_of=first)
    assert second not in (b"", first)
    assert buckets.write(f"{url}/x", b"late", instead_of=first) == b""
    buckets.remove(f"{url}/x", known=first)
    assert buckets.read_whole(f"{url}/x") == b"other"
    names = [f"n/{number}" for number in range(7)]  # more than a page of the listing
    for name in names:
        buckets.write(f"{url}/{name}", b"")
    buckets.write(f"{url}/p q+\u00fc%.txt", b"")
    buckets.write(f"{url}b/beside", b"")
    assert buckets.names_below(url) == [*names, "p q+\u00fc%.txt", "x"]
    buckets.remove_below(f"{url}/n")
    buckets.remove(f"{url}/x")
    assert buckets.names_below(url) == ["p q+\u00fc%.txt"]
    with pytest.raises(FileNotFoundError):
        buckets.read_whole(f"{url}/x")


@pytest.mark.parametrize("size", [0, 2, 3, 5, 8, 11, 18, 19, 20])
def test_large_objects_are_read_in_pieces(url: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "FIRST", 3)
    monkeypatch.setattr(buckets, "CHUNK", 8)
    data = os.urandom(size)
    buckets.write(f"{url}/x", data)
    buckets.download(f"{url}/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == data


@pytest.mark.parametrize("fault", SAID)
def test_a_bucket_that_refuses_says_why(url: str, fault: str, store: Buckets, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    store.fault = lambda method, key: fault
    with pytest.raises(Refused) as refused:
        buckets.write(f"{url}/x", b"")
    assert SAID[fault] in str(refused.value.strerror)
    assert refused.value.filename == f"{url}/x"
    assert "\n" not in str(refused.value)
    if (url[:2], fault) != ("gs", "gone"):  # there a bucket that is not there has no objects
        with pytest.raises(Refused):
            buckets.names_below(url)
    with pytest.raises(UserError, match=rf"^config.init={url}: "):
        fetch(url, "config.init")


def test_a_bucket_that_does_not_answer(
    url: str, store: Buckets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is given up after as long as the bytes may take that are read or written, which of most objects are few."""
    monkeypatch.setattr(buckets, "PATIENCE", 0.2)
    monkeypatch.setattr(buckets, "SLOWEST", buckets.FIRST / 0.2)
    store.fault = lambda method, key: "slow1"
    asked = (
        lambda: buckets.write(f"{url}-late/x", b""),
        lambda: buckets.read(f"{url}-late/x"),
        lambda: buckets.download(f"{url}-late/x", tmp_path / "x"),
    )
    for ask in asked:
        with pytest.raises(Refused, match="does not answer, or too slowly"):
            ask()


def test_answers_that_are_cut_off_are_never_taken_for_whole(url: str, store: Buckets, tmp_path: Path) -> None:
    store.put("a/x", b"0123456789")
    step(store, "a", 2)
    cuts = ["cut"]
    store.fault = lambda method, key: cuts.pop() if cuts else ""
    buckets.download(f"{url}/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"0123456789" and not cuts
    store.fault = lambda method, key: "cut"
    for ask in (lambda: buckets.read(f"{url}/x"), lambda: buckets.download(f"{url}/x", tmp_path / "y")):
        with pytest.raises(Refused):
            ask()
    store.fault = lambda method, key: "cut" if not key else ""  # lists alone
    with pytest.raises(OSError):
        buckets.names_below(url)
    with pytest.raises(UserError):
        fetch(url)


@pytest.mark.parametrize("wrong", ["s3://b//x", "s3://b/../x", "gs://b/./x", "s3://b/a\\b"])
def test_urls_lead_nowhere_else(wrong: str) -> None:
    with pytest.raises(UserError, match=r"without empty parts, `\.` and `\.\.`"):
        places.folder_of(wrong, places.READ)


def test_names_of_objects_lead_nowhere_else(url: str, store: Buckets) -> None:
    store.put("a/../../x", b"")
    with pytest.raises(UserError, match=r"is called '../../x', which no file can be"):
        fetch(url)


def test_places(store: Buckets) -> None:
    place = places.folder_of("s3://b/k/x", places.READ)
    assert places.url_of(place) == "s3://b/k/x"
    assert places.url_of(place, (places.WORK,)) is None
    assert places.url_of("/tmp/x") is None
    assert places.shown(f"in {place}: {place}/y, /tmp/z") == "in s3://b/k/x: s3://b/k/x/y, /tmp/z"
    assert places.join("gs://b/k/x", "../y") == "gs://b/k/y"
    with pytest.raises(UserError, match="leads out of the bucket"):
        places.join("gs://b/k", "../../other")


def test_what_was_fetched_is_fetched_again_only_where_it_changed(url: str, store: Buckets) -> None:
    store.put("a/x", b"1")
    store.put("a/d/y", b"2")
    place = Path(fetch(url))
    assert ((place / "x").read_bytes(), (place / "d/y").read_bytes()) == (b"1", b"2")
    times = (place / "x").stat().st_mtime_ns
    fetched._done.clear()  # of another process
    reads(store)
    store.put("a/d/y", b"3")
    store.remove("a/x")
    assert Path(fetch(url)) == place
    assert (place / "d/y").read_bytes() == b"3"
    assert not (place / "x").exists()
    assert (place / "d/y").stat().st_mtime_ns != times
    fetched._done.clear()
    (place / "d/y").write_bytes(b"of someone")
    fetch(url)
    assert (place / "d/y").read_bytes() == b"3"


def test_a_bucket_is_the_folder_of_all_that_is_in_it(url: str, store: Buckets) -> None:
    store.put("x", b"1")
    store.put("d/y", b"2")
    bucket = url.removesuffix("/a")
    place = Path(fetch(f"{bucket}/"))
    assert ((place / "x").read_bytes(), (place / "d/y").read_bytes()) == (b"1", b"2")
    assert expand(bucket, "", work_folder) == str(places.folder_of(bucket, places.WORK))
    for wrong in ("s3://", "S3://bkt/a", "gs:///a"):
        with pytest.raises(UserError, match=r"^--to=.*: expected s3://BUCKET/KEY or gs://BUCKET/KEY$"):
            expand(wrong, "--to", fetch)
    with pytest.raises(UserError, match=r"^workdir=s3:/bkt/a: a bucket is s3://BUCKET/KEY, with two slashes"):
        expand(Path("s3://bkt/a"), "workdir", work_folder)


def test_files_patterns_and_lists(store: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("r-1.jsonl", "r-2.jsonl", "other.jsonl"):
        store.put(f"a/{name}", name.encode())
    monkeypatch.setenv("WHERE", "a")
    base = places.folder_of("s3://bkt/a", places.READ)
    assert expand_list("s3://bkt/$WHERE/r-1.jsonl,llava:s3://bkt/a/other.jsonl", "records", fetch).split(",") == [
        f"{base}/r-1.jsonl",
        f"llava:{base}/other.jsonl",
    ]
    assert expand("s3://bkt/a/r-*.jsonl", "records", fetch) == f"{base}/r-*.jsonl"
    assert sorted(path.name for path in base.iterdir()) == ["other.jsonl", "r-1.jsonl", "r-2.jsonl"]
    with pytest.raises(UserError, match=r"^records=s3://bkt/a/none: there is no such object, and none below it$"):
        expand("s3://bkt/a/none", "records", fetch)
    with pytest.raises(UserError, match="only the last part of a URL may be a pattern"):
        fetch("s3://bkt/*/x")


def test_of_a_stage_the_newest_whole_checkpoint_comes_without_its_optimizer(url: str, store: Buckets) -> None:
    store.put("a/config.json", b"{}")
    store.put("a/model.safetensors", b"w")
    for number in (2, 10):
        step(store, "a", number)
    step(store, "a", 12, whole=False)
    without = Path(fetch(url, weights=False))
    assert below(without) == ["config.json"]
    found = Path(fetch(url))
    own = [f"checkpoints/10/{name}" for name in ("_METADATA", "manifest.json", "params/d/1")]
    assert below(found) == sorted([*own, "config.json", "model.safetensors"])
    fetched._done.clear()
    reads(store)
    fetch(url)
    assert not [key for key in reads(store) if "params" in key]
    fetched.complete_step(found / "checkpoints/10")
    assert below(found) == sorted([*own, "checkpoints/10/optimizer/o", "config.json", "model.safetensors"])
    assert not [key for key in reads(store) if "params" in key]
    store.remove("a/checkpoints/10/optimizer/o")
    (found / "checkpoints/10/optimizer/o").unlink()
    with pytest.raises(UserError, match=rf"^{url}/checkpoints/10/optimizer/o: no such object$"):
        fetched.complete_step(found / "checkpoints/10")


def test_a_checkpoint_that_the_run_removes_while_it_is_read(url: str, store: Buckets) -> None:
    """The one that took its place is read then; of one that only lacks a file, what is there comes."""
    store.put("a/config.json", b"{}")
    step(store, "a", 2)

    def removed(method: str, key: str) -> str:
        if method == "GET" and "checkpoints/2/params/" in key:
            step(store, "a", 4)
            for old in [name for name in store.objects if "checkpoints/2/" in name]:
                store.remove(old)
        return ""

    store.fault = removed
    found = Path(fetch(url))
    assert below(found / "checkpoints") == ["4/_METADATA", "4/manifest.json", "4/params/d/1"]
    store.remove("a/checkpoints/4/params/d/1")
    fetched._done.clear()
    shutil.rmtree(found / "checkpoints")
    fetch(url)
    assert below(found / "checkpoints") == ["4/_METADATA", "4/manifest.json"]  # `damage` says what is missing


def test_processes_that_share_a_cache_fetch_in_turn(store: Buckets) -> None:
    """As those of one machine with several GPUs do: each would remove what the other has fetched so far."""
    store.put("a/config.json", b"{}")
    step(store, "a", 2)
    store.fault = lambda method, key: "slow0.3" if "/params/" in key else ""
    code = "from eve_jax.process.fetched import fetch; print(fetch('s3://bkt/a'))"
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    assert ended[0][0] == ended[1][0]
    found = Path(ended[0][0].strip())
    assert below(found / "checkpoints") == ["2/_METADATA", "2/manifest.json", "2/params/d/1"]


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_bucket_that_is_not_there_has_no_lock(scheme: str, store: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    with (
        pytest.raises(UserError, match=f"^{scheme}://other/a/run.lock cannot be written: no such bucket or object"),
        locked(Path(work_folder(f"{scheme}://other/a")), "training"),
    ):
        pass


def test_one_writer(url: str, store: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.05)
    folder = Path(work_folder(url))
    with locked(folder, "training") as held:
        with (
            pytest.raises(InUse, match=rf"{url}/run.lock: in use by process {os.getpid()}"),
            locked(folder, "training"),
        ):
            pass
        generations = {store.objects["a/run.lock"][1]}
        while len(generations) < 3:  # it is renewed
            generations.add(store.objects["a/run.lock"][1])
        held.check()
    assert "a/run.lock" not in store.objects
    gone = replace(Owner.this_process(), pid=2**22 - 1, began="1", token="feed")
    store.put("a/run.lock", json.dumps(gone.__dict__ | {"renewed": 3, "time": 0}).encode())
    with locked(folder, "training"):  # of a process that is gone
        store.put("a/run.lock", json.dumps(gone.__dict__ | {"renewed": 4, "time": 0}).encode())
    assert "a/run.lock" in store.objects, "a lock of another is not removed"


def test_a_lock_of_another_machine_is_watched_first(store: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LAPSE": 0.4, "BEAT": 0.05, "POLL": 0.05}.items():
        monkeypatch.setattr(lock, name, value)
    other = replace(Owner.this_process(), host="node7", machine="other", token="feed")
    store.put("a/run.lock", json.dumps(other.__dict__ | {"renewed": 3, "time": 0}).encode())  # a clock far behind
    before = len(store.asked)
    with locked(Path(work_folder("s3://bkt/a")), "training"):
        assert len(store.asked) - before > 4


def test_caches_are_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("EVE_CACHE", "s3://bkt/cache")
    monkeypatch.setattr(caches, "_replaced", set())
    folder = caches.cache_folder()
    assert folder is not None and folder.parent == tmp_path
    said = (
        "EVE_CACHE=s3://bkt/cache is no folder of this machine: compiled programs and copies of remote files are kept"
    )
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
