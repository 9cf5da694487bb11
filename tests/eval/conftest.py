"""The golden model A as a Hugging Face folder, and opened for small images."""

from pathlib import Path

import pytest

from eve_jax import EVE
from tests.weights import folders


@pytest.fixture(scope="session")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.write_hf(tmp_path_factory.mktemp("eve") / "hf", *folders.golden())


@pytest.fixture(scope="session")
def eve(hf: Path) -> EVE:
    return EVE.from_pretrained(hf, fit="shrink", max_size=32)
