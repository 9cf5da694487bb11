"""A benchmark without a package of an extra ends with one line that names the extra."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.extras import want
from eve_jax.errors import UserError

ROOT = Path(__file__).parents[2]


def test_a_missing_package() -> None:
    want("json", "serve")
    with pytest.raises(UserError, match=r"^no_such_package is missing: pip install .*\[serve\]'$"):
        want("no_such_package", "serve")
    with pytest.raises(UserError, match=r"\[torch\]', or --notorch$"):
        want("no_such_package", "torch", "--notorch")


@pytest.mark.parametrize(("benchmark", "package", "extra"), [("serve", "httpx", "test"), ("serve", "uvicorn", "serve")])
def test_a_benchmark_says_so(tmp_path: Path, benchmark: str, package: str, extra: str) -> None:
    code = f"""
import runpy, sys
from importlib.abc import MetaPathFinder
class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            raise ModuleNotFoundError(name=name)
import importlib.util
seen = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == {package!r} else seen(name, package)
sys.meta_path.insert(0, Hidden())
sys.argv = [{benchmark!r}]
runpy.run_module("benchmarks.{benchmark}", run_name="__main__")
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"error: {package} is missing: pip install -c constraints.txt -e '.[{extra}]'"]
