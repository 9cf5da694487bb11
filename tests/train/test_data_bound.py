"""A run that waits for its data prints one line, with the setting to raise."""

from dataclasses import replace
from typing import Any

import pytest

from configs.base import get_config
from eve_jax.config.stage import Config
from eve_jax.data.config import reading_threads
from eve_jax.process import cores, places
from eve_jax.train.data_bound import DataBound, remedy

DATA = Config.of(get_config("tiny")).data


def lines(waits: list[float], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is said of steps of a second, of which so much is spent waiting."""
    now = [0.0]
    bound = DataBound("stage3", DATA, lambda: now[0])
    waited = 0.0
    for wait in waits:
        now[0] += 1.0
        waited += wait
        bound.note(waited)
    return capsys.readouterr().out.splitlines()


def test_it_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines([0.9] + [0.1] * 100, capsys) == []
    assert lines([0.9] * 20, capsys) == []
    found = lines([0.0] * 30 + [0.5] * 100, capsys)
    assert len(found) == 1
    assert found[0].startswith("stage3: data-bound: 30% of the last 20 steps' time was spent waiting for batches; ")


def test_the_remedy_is_one_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 24)
    monkeypatch.setattr(cores, "_sharing", 1)

    def said(own_cores: int, **data: Any) -> str:
        return remedy(replace(DATA, **data), own_cores)

    assert said(24, threads=2) == "raise config.data.threads (now 2; -1 takes 16 here)"
    for threads in (-1, 16):
        assert said(24, threads=threads).startswith("set config.data.workers=2 (now 0; 24 cores")
    assert said(24, workers=3).startswith("set config.data.workers=6 (now 3;")
    assert said(24, workers=20).startswith("set config.data.workers=24 ")
    assert said(24, workers=24).startswith("all of its 24 cores read images")
    assert said(1, threads=1).startswith("all of its 1 cores")


def test_images_in_a_bucket_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "cores", lambda: 2)
    monkeypatch.setattr(cores, "_sharing", 1)
    images = str(places.folder_of("s3://bkt/images", places.READ))
    assert reading_threads(replace(DATA, images=images)) == 16
    assert remedy(replace(DATA, images=images, threads=2), 2) == "raise config.data.threads (now 2; -1 takes 16 here)"
    for threads in (-1, 16):
        said = remedy(replace(DATA, images=images, threads=threads), 2)
        assert said.startswith("each image is asked of a bucket: raise config.data.threads (now 16), or convert")
