"""One writer per folder: who is refused, whose lock is taken over, and that of many starters exactly one wins."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from eve_jax.errors import UserError
from eve_jax.process import lock
from eve_jax.process.lock import LOCK, acquire, locked
from eve_jax.process.owner import FolderStore, Owner

ELSEWHERE = replace(Owner.this_process(), host="node7", machine="other", pid=4321, token="feed")


def left_by(folder: Path, owner: Owner, age: float = 0.0) -> None:
    """The lock of `owner`, last renewed `age` seconds ago."""
    (folder / LOCK).mkdir(parents=True)
    path = folder / LOCK / f"{owner.token}.json"
    path.write_text(json.dumps(asdict(owner)))
    then = time.time() - age
    os.utime(path, (then, then))


def gone_pid() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_live_one_is_refused_and_released_in_every_case(tmp_path):
    folder = tmp_path / "runs" / "stage3"
    with locked(folder, "training"):
        said = rf"run\.lock: in use by process {os.getpid()} on \S+ since 2\S+; .*--workdir.*remove this lock"
        with pytest.raises(UserError, match=said), locked(folder, "training"):
            pass
        assert len(list((folder / LOCK).iterdir())) == 1
    assert not list(folder.iterdir())
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), locked(folder, "training"):
            (folder / "kept").touch()
            raise error
    assert [p.name for p in folder.iterdir()] == ["kept"]


def test_another_folder_is_free(tmp_path):
    with locked(tmp_path / "a", "training"), locked(tmp_path / "b", "training"), locked(tmp_path, "the recipe"):
        pass


def test_a_process_that_was_killed_is_taken_over_at_once(tmp_path, capsys):
    code = f"""
import time
from pathlib import Path
from eve_jax.process.lock import locked
with locked(Path({str(tmp_path)!r}), "training"):
    print("held", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match=f"in use by process {process.pid} "), locked(tmp_path, "training"):
        pass
    process.send_signal(signal.SIGSTOP)  # one that is suspended is there
    with pytest.raises(UserError, match=f"in use by process {process.pid} "), locked(tmp_path, "training"):
        pass
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and its parent has not asked for its status
    with locked(tmp_path, "training"):
        pass
    assert f"taken over from process {process.pid} on" in capsys.readouterr().out
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize(
    "owner",
    [
        lambda me: replace(me, pid=gone_pid()),
        lambda me: replace(me, began="1"),  # its pid is ours now
        lambda me: replace(me, pid=1, began="1"),
    ],
)
def test_stale_on_this_machine(tmp_path, capsys, owner):
    stale = replace(owner(Owner.this_process()), token="dead")
    left_by(tmp_path, stale)
    with locked(tmp_path, "training"):
        assert len(list((tmp_path / LOCK).iterdir())) == 1
    assert f"taken over from process {stale.pid} on {stale.host}" in capsys.readouterr().out


def test_another_machine_goes_by_its_renewals(tmp_path, monkeypatch, capsys):
    left_by(tmp_path, ELSEWHERE, age=lock.LAPSE + 5)
    with locked(tmp_path, "training"):
        pass
    assert "taken over from process 4321 on node7" in capsys.readouterr().out
    monkeypatch.setattr(lock, "LAPSE", 1.0)
    monkeypatch.setattr(lock, "POLL", 0.02)
    left_by(tmp_path, ELSEWHERE)
    began = time.monotonic()
    with locked(tmp_path, "training"):
        assert time.monotonic() - began > 0.5
    said = capsys.readouterr().out
    assert "held by process 4321 on node7" in said
    assert "taken over" in said
    left_by(tmp_path, ELSEWHERE)
    beat = threading.Timer(0.2, os.utime, [tmp_path / LOCK / "feed.json"])
    beat.start()
    with pytest.raises(UserError, match="in use by process 4321 on node7"), locked(tmp_path, "training"):
        pass
    beat.join()
    leave = threading.Timer(0.2, FolderStore(tmp_path / LOCK).remove, ["feed"])
    leave.start()
    with locked(tmp_path, "training"):
        pass
    leave.join()
    assert "taken over" not in capsys.readouterr().out


def test_a_container_of_the_same_host_name_is_another_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LAPSE", 0.3)
    monkeypatch.setattr(lock, "POLL", 0.02)
    me = Owner.this_process()
    left_by(tmp_path, replace(me, pid=gone_pid(), machine=me.machine + " of a container", token="feed"))
    timer = threading.Timer(0.1, os.utime, [tmp_path / LOCK / "feed.json"])
    timer.start()
    with pytest.raises(UserError, match="in use by"), locked(tmp_path, "training"):
        pass
    timer.join()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"pid": "many"}', "null"])
def test_a_lock_that_cannot_be_read_goes_by_its_age(tmp_path, monkeypatch, text):
    left_by(tmp_path, ELSEWHERE, age=lock.LAPSE + 5)
    path = tmp_path / LOCK / "feed.json"
    then = path.stat().st_mtime
    path.write_text(text)
    os.utime(path, (then, then))
    with locked(tmp_path, "training"):
        pass


def test_what_is_no_lock_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    (tmp_path / LOCK).write_text("mine")
    with pytest.raises(UserError, match=r"run\.lock is not a lock: remove it"), locked(tmp_path, "training"):
        pass
    assert (tmp_path / LOCK).read_text() == "mine"
    (tmp_path / LOCK).unlink()
    (tmp_path / LOCK).mkdir()  # left by a kill in the midst of a release
    with locked(tmp_path, "training"):
        pass


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", Path("/proc/none")):
        said = rf"{folder.name}/run\.lock cannot be written: \w+"
        with pytest.raises(UserError, match=said), locked(folder, "training"):
            pass


def test_it_is_renewed_and_its_loss_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    with locked(tmp_path, "training") as held:
        (file,) = (tmp_path / LOCK).iterdir()
        os.utime(file, (1.0, 1.0))
        limit = time.monotonic() + 10
        while file.stat().st_mtime == 1.0 and time.monotonic() < limit:
            time.sleep(0.01)
        assert file.stat().st_mtime > 1.0
        held.check()
        file.unlink()
        (tmp_path / LOCK / "feed.json").write_text(json.dumps(asdict(ELSEWHERE)))
        while held._thread.is_alive() and time.monotonic() < limit:
            time.sleep(0.01)
        with pytest.raises(UserError, match=r"taken over by process 4321 on node7 .*training ends here"):
            held.check()
    assert [p.name for p in (tmp_path / LOCK).iterdir()] == ["feed.json"], "the lock of another stays"


def _try(folder: Path, start: "multiprocessing.synchronize.Event", results: "multiprocessing.Queue[str]") -> None:
    start.wait()
    try:
        acquire(FolderStore(folder / LOCK), "training")
        results.put("won")
        time.sleep(30)  # until it is terminated
    except UserError as error:
        results.put(str(error))


@pytest.mark.parametrize("stale", [pytest.param(False, marks=pytest.mark.slow), True])
def test_of_many_starters_one_wins(tmp_path, stale):
    """Processes that start together, with no lock or with a stale one."""
    context = multiprocessing.get_context("fork")
    for number in range(2 if stale else 5):
        folder = tmp_path / str(number)
        folder.mkdir()
        if stale:
            left_by(folder, replace(Owner.this_process(), began="1", token="dead"))
        start, results = context.Event(), context.Queue()
        processes = [context.Process(target=_try, args=(folder, start, results), daemon=True) for _ in range(6)]
        for process in processes:
            process.start()
        start.set()
        said = [results.get(timeout=20) for _ in processes]
        assert said.count("won") == 1
        assert all("in use by process" in text for text in said if text != "won")
        assert [p.name for p in folder.iterdir()] == [LOCK]
        for process in processes:
            process.kill()
            process.join()


def test_threads_that_take_over_and_release(tmp_path):
    """At no time do two hold it, however often it is released and taken."""
    inside, most = [0], [0]
    guard = threading.Lock()

    def work(_: int) -> None:
        for _ in range(20):
            try:
                with locked(tmp_path / "folder", "training"):
                    with guard:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                    with guard:
                        inside[0] -= 1
            except UserError as error:
                assert "in use by" in str(error)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert most == [1]
