"""A toy stage of a few steps, and modules of a user's own that are importable while a test runs."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import demo
from tests.train.placing import demo_data, placed


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo's data set at test size in data/."""
    folder = tmp_path_factory.mktemp("extend")
    demo_data(folder / "data")
    return folder


@pytest.fixture
def stage(dataset: Path) -> ConfigDict:
    """Two steps of the demo's stage 2.2, which trains all groups, in one row a step."""
    c = placed(demo.get_config("tiny").stages.stage2_2, dataset, "")
    c.train.steps = 2
    c.data.rows = c.data.micro_batches = c.data.max_shapes = 1
    c.optim.warmup = 0.0
    return c


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Writes a module of the user's into the current folder, which is the test's own; forgets it at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    written: list[str] = []

    def write(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        written.append(name)
        return path

    yield write
    for name in written:
        sys.modules.pop(name, None)
