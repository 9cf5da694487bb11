"""A tiny dataset, written once."""

from pathlib import Path

import pytest

from eve_jax.demo.dataset import write_dataset


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("demo") / "data", "tiny")
