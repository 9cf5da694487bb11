"""Tables of lengths that are measured in pieces: the same table, after any kill, in little memory."""

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eve_jax.data.field_counts import FieldCounts
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.plan.joined_file import save_joined
from eve_jax.data.plan.lengths import ARRAYS, Dropped, Lengths, joined
from eve_jax.data.plan.measured_on import SEEN, SeenTable
from eve_jax.data.samples import measure as measure_module
from eve_jax.data.samples import table_in_pieces as pieces_module
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.samples.table_in_pieces import pieces_of, table_in_pieces
from eve_jax.data.sources.records import open_records
from tests.data.synthetic import byte_tokenizer, write_records

ROOT = Path(__file__).parents[2]
RULE = SampleRule(byte_tokenizer(), ImageRule("anyratio_ld", max_size=96), "plain", max_tokens=1000)


def table(records: range, images: int = 1) -> Lengths:
    """A table of records with `images` images of 2 x 3 patches each."""
    n = len(records)
    text = np.array(records, np.int32) % 100 + 1
    grids = np.tile(np.array([[2, 3]], np.int32), (n * images, 1))
    first = np.arange(n + 1, dtype=np.int64) * images
    files = np.arange(n * images)
    none = np.zeros(0, np.int32), np.zeros(0, np.uint64)
    seen = SeenTable(np.array(records, np.uint64), np.stack([files, files], 1).astype(np.uint32), files, *none)
    counts = (text, np.full(n, 6 * images, np.int32), np.full(n, 3 * images, np.int32))
    return Lengths(np.array(records, np.int32), *counts, grids, first, [], fields=[FieldCounts(n, n)], seen=seen)


def same(a: Lengths, b: Lengths) -> bool:
    assert a.seen is not None and b.seen is not None
    arrays = [(getattr(a, name), getattr(b, name)) for name in ARRAYS]
    arrays += [(getattr(a.seen, name), getattr(b.seen, name)) for name in SEEN]
    equal = all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in arrays)
    others = [(t.dropped, t.truncated, t.shrunk, list(t.fields), t.digest) for t in (a, b)]
    return equal and others[0] == others[1]


def test_joined_in_a_file_is_joined_in_memory(tmp_path: Path) -> None:
    parts = [table(range(5)), table(range(5, 5)), table(range(5, 9), images=2), table(range(9, 12), images=0)]
    parts[0].dropped.append(Dropped("a:1", "x", "", "bad"))
    joined(parts).save(tmp_path / "whole.npz")
    parts[2].save(tmp_path / "part.npz")
    save_joined(tmp_path / "new.npz", [*parts[:2], tmp_path / "part.npz", parts[3]])
    assert same(Lengths.load(tmp_path / "new.npz"), Lengths.load(tmp_path / "whole.npz"))
    assert {*np.load(tmp_path / "new.npz")} == {*np.load(tmp_path / "whole.npz")}


def test_pieces_depend_on_the_records_alone() -> None:
    assert pieces_of(range(3, 4003), 10_000) == [range(3, 2003), range(2003, 4003)]
    assert {len(piece) for piece in pieces_of(range(10**8), 10**8)} == {50_000}
    assert len(pieces_of(range(10**6), 10**6)) == 256


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 10 records, by other processes however few there are."""
    monkeypatch.setattr(pieces_module, "LEAST", 10)
    monkeypatch.setattr(measure_module, "FEW", 0)


def test_by_processes_and_with_pieces_that_are_there(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_records(tmp_path, 35)
    path.write_text(path.read_text() + "{bad\n")
    records = open_records(str(path), tmp_path / "images")
    whole = measure(records, RULE)
    made = measure(records, RULE, tmp_path / "plan", processes=2)
    whole.save(tmp_path / "whole.npz")
    assert same(made, Lengths.load(tmp_path / "whole.npz"))
    assert [p.name for p in (tmp_path / "plan").iterdir()] == [made.file.path.name if made.file else ""]

    keep = tmp_path / "plan" / Path(made.key.split()[0]).with_suffix(".pieces").name
    for start in (0, 10, 30):
        stop = min(start + 10, 36)
        measure_module.measure_part(records, range(start, stop), RULE).save(keep / f"{start}-{stop}.npz")
    whole_piece = (keep / "10-20.npz").read_bytes()
    (keep / "10-20.npz").write_bytes(whole_piece[:300] + bytes(64) + whole_piece[364:])  # what a power cut may leave
    (tmp_path / "plan" / "lengths-other.pieces").mkdir()
    (tmp_path / "plan" / f"{made.key.split()[0]}.npz").unlink()
    seen: list[int] = []
    original = measure_module.measure_part

    def spy(records: Any, indices: Iterator[int], rule: SampleRule) -> Lengths:
        taken = list(indices)
        seen.extend(taken)
        return original(records, taken, rule)

    monkeypatch.setattr(measure_module, "measure_part", spy)
    assert same(measure(records, RULE, tmp_path / "plan"), made)
    assert seen == list(range(10, 30))
    assert "16 of 36 records are measured already" in capsys.readouterr().err
    assert not list((tmp_path / "plan").glob("*.pieces"))


SLOW = """
import time
from pathlib import Path
from eve_jax.data.record import Fields, Record, Turn

class Words:
    tables = None
    def __len__(self): return 400
    def where(self, index): return f"words:{index}"
    def fingerprint(self): return "words"
    def read(self, index):
        time.sleep(0 if Path("fast").exists() else 0.01)
        return Record(str(index), (), (Turn("gpt", "word " * (index % 7 + 1)),), self.where(index)), Fields()
"""
COMMAND = """
import sys
from eve_jax.data.samples import measure, table_in_pieces
from tests.data.test_table_in_pieces import RULE
from eve_jax.data.sources.records import open_records
table_in_pieces.LEAST, measure.FEW = 10, 0
print(measure.measure(open_records("slow_words:Words"), RULE, "plan", processes=2).digest)
"""


@pytest.mark.slow
def test_a_killed_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_words.py").write_text(SLOW)
    (tmp_path / "command.py").write_text(COMMAND)  # without a guard for processes that import it
    command = [sys.executable, "command.py"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while len(list(tmp_path.glob("plan/*.pieces/[0-9]*.npz"))) < 4 and time.monotonic() < limit:
        time.sleep(0.02)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < limit:
        time.sleep(0.02)
    kept = list(tmp_path.glob("plan/*.pieces/[0-9]*.npz"))
    assert 4 <= len(kept) < 40
    times = {path.name: path.stat().st_mtime_ns for path in kept}
    (tmp_path / "fast").touch()
    again = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert f"{10 * len(times)} of 400 records are measured already" in again.stderr
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    measure(open_records("slow_words:Words"), RULE).save(tmp_path / "alone.npz")
    assert again.stdout.strip() == Lengths.load(tmp_path / "alone.npz").digest


@pytest.mark.usefixtures("collected_often")
def test_memory_is_far_below_40_bytes_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 150_000
    monkeypatch.setattr(pieces_module, "LEAST", 10_000)
    table_in_pieces(tmp_path / "first.npz", [range(100)], lambda records, *_: table(records), lambda: None, 1)
    tracemalloc.start()
    table_in_pieces(tmp_path / "a.npz", [range(n)], lambda records, *_: table(records), lambda: None, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(Lengths.load(tmp_path / "a.npz")) == n
    assert peak < 20 * n
