"""Data from the hub: only where it is asked for, recorded with its commit, one line without network."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from eve_jax.errors import UserError
from eve_jax.eval.chosen import Choice
from tests.eval.data_files import write_hub


def test_data_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_hub(tmp_path, "gqa")
    commit = tmp_path / "snapshots" / "0123abc"
    commit.parent.mkdir()
    (tmp_path / "lmms-lab-encoder" / "GQA").rename(commit)
    asked: list[Any] = []

    def download(repository: str, **settings: Any) -> str:
        asked.append((repository, settings))
        return str(commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    one, other = Choice(["gqa"], "hub", "both").open()
    assert one.rows is not None and len(one.rows) == 45 and one.revision == other.revision == "0123abc"
    patterns = ["testdev_balanced_instructions/testdev-*.parquet", "testdev_balanced_images/testdev-*.parquet"]
    assert asked[0] == ("lmms-lab-encoder/GQA", {"repo_type": "dataset", "allow_patterns": patterns})


def test_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repository: str, **settings: Any) -> str:
        raise ConnectionError("no route to host\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    message = r"lmms-lab-encoder/MME cannot be fetched \(no route to host\); without network, copy its data/test-\*"
    with pytest.raises(UserError, match=message):
        Choice(["mme"], "hub").open()
