"""The check of a GPU, as far as a CPU can run it."""

import json

import pytest

from tests.launcher import ROOT, launch

pytestmark = pytest.mark.long


@pytest.mark.slow
def test_a_dry_run() -> None:
    done = launch("benchmarks.gpu", "--dry", cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    kernels = found["kernels"]
    assert {name.split()[0] for name in kernels} == {"chunked", "flash", "cudnn", "splash"}
    assert all(k.get("right") or "skipped" in k for k in kernels.values()), kernels
    assert sum("skipped" in k for k in kernels.values()) == 2, "cuDNN alone needs a GPU"
    assert found["training"]["losses"][-1] < found["training"]["losses"][0]
    assert found["training"]["tokens_per_s"] > 0 and found["decoding"]["tokens_per_s"] > 0
