"""Fixtures of tests that have buckets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from eve_jax.process import buckets, fetched
from tests.buckets import Buckets, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Buckets]:
    with serving() as found:
        yield found


@pytest.fixture
def store(server: Buckets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Buckets:
    """An empty server, and a machine that has no copies of anything."""
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(buckets, "RETRIES", {"max_retries": 1, "initial_delay": "1ms", "max_delay": "1ms"})
    monkeypatch.setattr(buckets, "PATIENCE", 5.0)
    monkeypatch.setattr(fetched, "_done", {})
    buckets._store.cache_clear()
    server.objects.clear()
    server.asked.clear()
    server.signed.clear()
    server.fault = lambda method, key: ""
    return server


@pytest.fixture(params=["s3", "gs"])
def url(request: pytest.FixtureRequest, store: Buckets) -> str:
    return f"{request.param}://bkt/a"
