"""examples/eve_jax.ipynb: a notebook that is whole, stored without outputs, and runs from top to bottom on a CPU."""

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "eve_jax.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def test_it_is_a_notebook_without_outputs() -> None:
    read = json.loads(NOTEBOOK.read_text())
    assert (read["nbformat"], read["metadata"]["kernelspec"]["name"]) == (4, "python3")
    ids = [cell["id"] for cell in read["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in cells("code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None
        ast.parse("".join(cell["source"]))  # no magic of IPython
    assert len(cells("markdown")) > 5


def test_what_it_imports_is_there() -> None:
    for cell in cells("code"):
        lines = [line for line in "".join(cell["source"]).splitlines() if line.startswith(("import ", "from "))]
        exec("\n".join(lines), {})


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    """Every cell in one fresh process, in order, in another folder; as users compile it, within five minutes."""
    code = "\n".join("".join(cell["source"]) for cell in cells("code"))
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    env = plain | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "JAX_PLATFORMS": "cpu", "TMPDIR": str(tmp_path)}
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "unseen images" in done.stdout
    assert time.monotonic() - began < 300
