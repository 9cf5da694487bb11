"""A report of launch.compile next to an earlier one."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from eve_jax.compile.against import compared, differences, read_report, show_against
from eve_jax.errors import UserError

OLD: dict[str, Any] = {
    "topology": "v5e:4x8",
    "mesh": {"data": 1, "fsdp": 32, "tensor": 1},
    "stage": "3",
    "row_shape": {"name": "text", "patches": 0, "specials": 0, "text": 8192},
    "rows": 32,
    "micro_batches": 1,
    "parameters_trainable": 7,
    "parameters_frozen": 0,
    "hbm_peak_bytes": 10 * 2**30,
    "hlo_flops_per_chip": 4e14,
    "compiler_estimate_seconds": 3.86,
    "collectives": {"all-gather": {"count": 56.0}, "collective-permute": {"count": 6996.0}},
    "cpu_seconds": 121.0,
}
NEW = OLD | {
    "hbm_peak_bytes": 9 * 2**30,
    "compiler_estimate_seconds": 3.474,
    "estimate_seconds": 4.0,
    "compiler_options": {"xla_a": "1"},
    "collectives": {"all-gather": {"count": 56.0}, "reduce-scatter": {"count": 325.0}},
}


def test_figures() -> None:
    rows = {title: figures for title, *figures in compared(OLD, NEW)}
    assert rows["HBM per chip, GiB"] == ["10.00", "9.00", "-10.0%"]
    assert rows["compiler's cycles, attention at peak, s"] == ["3.860", "3.474", "-10.0%"]
    assert rows["estimate with all parts, s"] == ["", "4.000", ""], "an older report lacks it"
    assert rows["collective-permute"] == ["6,996", "0", "-100.0%"]
    assert rows["reduce-scatter"] == ["0", "325", ""]
    assert "moved in the HBM, GiB" not in rows


def test_what_is_not_the_same_is_said() -> None:
    assert differences(OLD, NEW) == ["xla_a: not set before, 1 now"]
    assert differences(OLD, NEW | {"rows": 64})[0] == "rows: 32 before, 64 now"
    out = io.StringIO()
    show_against(OLD, NEW, Console(file=out, width=112))
    assert "xla_a: not set before, 1 now" in out.getvalue()


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(f"a table\nof many lines\n{json.dumps(OLD)}\n")
    assert read_report(str(path)) == OLD
    others = [OLD | {"hbm_peak_bytes": "10"}, OLD | {"collectives": {"all-gather": 56}}, {"hbm_peak_bytes": 1}]
    for text in ("", "a table\n", "[1]", '{"cpu_seconds": 1}', "[" * 100_000, *map(json.dumps, others)):
        path.write_text(text)
        with pytest.raises(UserError, match=r"old\.json: its last line is no report"):
            read_report(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"old\.json: cannot be read as UTF-8 text"):
        read_report(str(path))
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        read_report(str(tmp_path / "none.json"))
    with pytest.raises(UserError, match="is a folder; name a file"):
        read_report(str(tmp_path))
