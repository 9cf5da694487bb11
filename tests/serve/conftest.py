"""The golden model A as an EVE, and a server of it whose answers are told."""

from collections.abc import Iterator

import httpx
import pytest

from eve_jax import EVE
from eve_jax.serve.settings import ServeSettings
from tests.serve.scripted import Address, Scripted, serving
from tests.weights import folders


@pytest.fixture(scope="session")
def eve(tmp_path_factory: pytest.TempPathFactory) -> EVE:
    hf = folders.write_hf(tmp_path_factory.mktemp("served") / "hf", *folders.golden())
    return EVE.from_pretrained(hf, fit="shrink")


@pytest.fixture(scope="session")
def shared(eve: EVE) -> Iterator[Address]:
    with serving(eve, Scripted(eve), ServeSettings(names=("eve", "eve-2"), quiet=True, max_images=3)) as address:
        yield address


@pytest.fixture
def told(shared: Address) -> Iterator[Scripted]:
    """The scheduler of `shared`, as it was at first."""
    told = shared.scheduler
    yield told
    told.pace, told.most, told.error, told.capacity = 0.0, 1000, "", 1000
    told.go.set()
    told.requests.clear()
    told.reasons.clear()


@pytest.fixture(scope="session")
def client(shared: Address) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shared.url, timeout=30, verify=False) as client:
        yield client
