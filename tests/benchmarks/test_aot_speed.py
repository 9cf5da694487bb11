"""Steps whose speed is followed: what they miss, what is kept, its table."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import aot_speed
from benchmarks.aot_speed import Case, entry, keep, table

SUMMARY: dict[str, Any] = {
    "row_shape": {"name": "text", "patches": 0, "specials": 0, "text": 8192},
    "micro_batches": 1,
    "rows": 32,
    "compiler_options": {"a": "1"},
    "hbm_peak_bytes": 9.5 * 2**30,
    "hbm_bytes_moved": 600 * 2**30,
    "collective_bytes_received": 2**30,
    "hlo_flops_per_chip": 4e14,
    "cpu_seconds": 130.2,
    "compiler_estimate_seconds": 3.5,
    "compiler_estimate_mfu": 0.52,
    "estimate_seconds": 4.0,
    "estimate_mfu": 0.45,
    "estimate_parts": {},
}


def test_what_is_missed_is_said() -> None:
    assert Case((), seconds=3.5, gib=9.5, mfu=0.52).missed(SUMMARY) == []
    missed = Case((), seconds=3.4, gib=9.1, mfu=0.6).missed(SUMMARY)
    assert missed == ["3.50 s, at most 3.40", "9.50 GiB, at most 9.10", "MFU 52.0%, at least 60%"]
    too_large = {k: v for k, v in SUMMARY.items() if k != "compiler_estimate_mfu"}
    assert Case((), mfu=0.6).missed(too_large) == ["does not fit"]


def test_the_table_has_all_that_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aot_speed, "KEPT", tmp_path / "kept.jsonl")
    monkeypatch.setattr(aot_speed, "version", lambda name: "0.0")
    too_large = {k: v for k, v in SUMMARY.items() if not k.startswith(("compiler_estimate", "estimate"))}
    for case, more, day, summary in (
        ("one", "", "2026-01-01", SUMMARY),
        ("other", "--config.compile.options=", "2026-01-01", too_large),
        ("one", "", "2026-01-02", SUMMARY | {"compiler_estimate_seconds": 3.25}),
    ):
        keep(entry(case, more, day, summary))
    lines = table().splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == [
        "| one, 1 x 32 x 8192",
        "| one, 1 x 32 x 8192",
        "| other, 1 x 32 x 8192",
    ]
    assert "| 9.50 | 3.500 | 52.0% | 4.000, 45.0% | 600, 1.0 | 130 |" in lines[0]
    assert "| 3.250 |" in lines[1]
    assert "| compile.options= | 9.50 | does not fit |" in lines[2]
