"""Captions of other quality: of the same images, the one of the web, the other without places and numbers."""

import re
from pathlib import Path
from random import Random

import pytest

from eve_jax.demo.caption_sets import things, write_caption_sets
from eve_jax.demo.compose import TrainingComposer
from eve_jax.demo.dataset import read_records
from eve_jax.demo.questions import NUMBERS
from eve_jax.demo.settings import TINY
from eve_jax.demo.vocabulary import PLACES
from eve_jax.errors import UserError


def caption(record: dict) -> str:
    return record["conversations"][-1]["value"]


def test_sets_of_captions(tiny: Path, tmp_path: Path) -> None:
    folder = write_caption_sets(tmp_path / "captions", tiny, TINY, 0)
    right, web, cap = (
        read_records(file) for file in (tiny / "captions.jsonl", folder / "web.jsonl", folder / "cap.jsonl")
    )
    for records in (web, cap):
        assert [(r["id"], r["image"]) for r in records] == [(r["id"], r["image"]) for r in right]
        assert all(len(record["conversations"]) == 2 for record in records)
    said = {word for record in cap for word in re.findall(r"\w+", caption(record).lower())}
    assert not said & {*PLACES, *NUMBERS}
    assert sum(caption(one) == caption(other) for one, other in zip(web, right, strict=True)) < len(right) / 4
    for one, whole in zip(cap, right, strict=True):  # the same scenes
        named = re.findall(r"an? (\w+)", caption(one).removeprefix("The image shows "))
        assert all(name[:-2] in caption(whole).lower() for name in named), (caption(one), caption(whole))
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    write_caption_sets(folder, tiny, TINY, 0)
    assert before == {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(UserError, match="holds something else"):
        write_caption_sets(tmp_path / "other", tiny, TINY, 0)


def test_what_there_is() -> None:
    composer = TrainingComposer(TINY, Random(1))
    scene = composer.make.row(composer.split.kinds[:2], "row")
    names = sorted(kind.name for kind in scene.counts)
    assert sorted(re.findall(r"an? (\w+)", things(scene, Random(0)))) == names
    assert things(composer.make.sign("open", "red"), Random(0)) == "The image shows a sign."
