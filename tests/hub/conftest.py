from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from eve_jax.data.sources import hub as records_of_hub
from eve_jax.process import hub as names
from tests.hub.server import Hub, serving


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in for the hub, with an empty cache, an empty current folder, and the address in the environment."""
    cwd, cache = tmp_path / "cwd", tmp_path / "cache"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    hub = Hub()
    with serving(hub) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for name, value in {"HF_ENDPOINT": url, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1"}.items():
            monkeypatch.setenv(name, value)
        forget()
        yield hub
    forget()


def forget() -> None:
    """Have this process ask the hub again, as a new one does."""
    names._resolved.cache_clear()
    names.fetch_card.cache_clear()
    records_of_hub._sizes.cache_clear()
    names._moving.clear()
