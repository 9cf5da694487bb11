"""Rows built by worker processes: the same bits as by threads, whatever their number, and errors that arrive."""

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.base import get_config
from eve_jax.data.rows import row_processes
from eve_jax.data.rows.build import Batch
from eve_jax.data.rows.pipeline import StageData, open_stage_data
from eve_jax.errors import UserError
from eve_jax.process import cores
from tests.data.synthetic import byte_tokenizer, write_records

Steps = list[tuple[int, list[Batch]]]


def stage(folder: Path) -> ConfigDict:
    config = get_config("tiny")
    byte_tokenizer().save(folder / "tokenizer")
    data: dict[str, Any] = {"records": str(write_records(folder, 40)), "images": str(folder / "images")}
    data |= {"tokenizer": str(folder / "tokenizer"), "image_mode": "anyratio_ld", "max_size": 96}
    config.data.update(data | {"max_tokens": 400, "row_tokens": 512, "rows": 2, "max_bad": 2.0})
    return config


def same(a: Batch, b: Batch) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def equal(a: Steps, b: Steps) -> bool:
    return [step for step, _ in a] == [step for step, _ in b] and all(
        same(x, y) for (_, p), (_, q) in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


def opened(config: ConfigDict, folder: Path, **changes: int) -> StageData:
    c = config.copy_and_resolve_references()
    c.data.update(changes)
    return open_stage_data(c, folder / "stage", saved={})


def reasons(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "stage" / "bad_records.jsonl").read_text().splitlines()
    return sorted((entry["id"], entry["reason"]) for entry in map(json.loads, lines))


def test_the_same_batches_by_any_number_of_processes(tmp_path: Path) -> None:
    config = stage(tmp_path)
    open_stage_data(config, tmp_path / "stage")
    (tmp_path / "images" / "4_0.png").unlink()  # broke since
    plain = opened(config, tmp_path, threads=0)
    whole, found = list(plain.batches()), reasons(tmp_path)
    assert plain.plan.steps > 2
    assert found == [("r4", "missing file")]
    (tmp_path / "stage" / "bad_records.jsonl").unlink()
    assert equal(list(opened(config, tmp_path, workers=2, threads=2).batches()), whole)
    assert reasons(tmp_path) == found
    one = opened(config, tmp_path, workers=1, threads=1)
    part = [(step, [{n: a[1:] for n, a in batch.items()} for batch in batches]) for step, batches in whole[1:]]
    assert equal(list(one.batches(1, rows=[1])), part)
    assert one.builder.reading == {}
    at = [str(row_processes._OneOf(one.builder, entries)) for entries in ((3,), (0, 2, 5))]  # said when one hangs
    path = config.data.records
    assert at == [f"{path}:4", f"one of those from {path}:1 to {path}:6"]


def test_errors_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = stage(tmp_path)
    open_stage_data(config, tmp_path / "stage")
    started: list[row_processes.RowProcesses] = []
    close = row_processes.RowProcesses.close

    def noted(processes: row_processes.RowProcesses) -> None:
        started.append(processes)
        close(processes)

    monkeypatch.setattr(row_processes.RowProcesses, "close", noted)
    data = opened(config, tmp_path, workers=1, threads=2, prefetch=1)
    batches = data.batches()
    next(batches)
    for child in multiprocessing.active_children():
        os.kill(child.pid or 0, signal.SIGKILL)
    with pytest.raises(UserError, match=r"a data process died \(out of memory\?\); .*config\.data\.workers"):
        list(batches)
    assert len(started) == 1
    assert multiprocessing.active_children() == []

    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"3 records broke while training, more than config\.data\.max_bad=2;"):
        list(opened(config, tmp_path, workers=1, threads=1).batches())
    data = opened(config, tmp_path, workers=1, threads=1)
    lines = Path(config.data.records).read_text().replace("Number 3", "Number 4")
    Path(config.data.records).write_text(lines)
    with pytest.raises(UserError, match="the records changed since the run began"):
        list(data.batches())


def test_threads_by_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(48)))
    quota = tmp_path / "cpu.max"
    assert cores.cores(quota) == 48
    quota.write_text("max 100000\n")
    assert cores.cores(quota) == 48
    quota.write_text("400000 100000\n")
    assert cores.cores(quota) == 4
    monkeypatch.setattr(cores, "cores", lambda: 48)
    monkeypatch.setattr(cores, "_sharing", 1)
    assert [cores.default_threads(n) for n in (1, 2, 4, 100)] == [16, 16, 12, 1]
    monkeypatch.setattr(cores, "_sharing", 4)
    assert [cores.default_threads(n) for n in (1, 2)] == [12, 6]
