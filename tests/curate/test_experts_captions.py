"""Experts from end to end: words on signs are read, kept with the records, and get into captions by the block."""

import json
from pathlib import Path

import pytest

from tests.curate.web import plain


@pytest.mark.slow
def test_words_on_signs_are_read_and_get_into_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("rapidocr", "httpx", "emoji"):
        pytest.importorskip(package)
    from benchmarks.curate_experts import signs

    plain(monkeypatch)
    found = signs(count=40, keep=str(tmp_path))
    assert found["word_recall"] >= 0.9, found
    assert found["captions_with_block"] >= 0.9 and found["captions_without_block"] == 0, found
    page, picture = tmp_path / "with/report.html", tmp_path / "with/report.png"
    assert [str(page), str(picture)] == found["reports"][:2] and picture.stat().st_size > 10_000
    assert "The sign reads" in page.read_text()
    assert "The sign reads" not in (tmp_path / "without/report.html").read_text()
    assert json.loads((tmp_path / "with/usage.json").read_text())["requests"] == 40
