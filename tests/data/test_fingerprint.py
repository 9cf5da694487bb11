"""The data's part in a run's identity: every change of what a batch holds is refused by name, a copy is not."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs.base import get_config
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.prepare.convert import Conversion, convert
from eve_jax.data.rows.pipeline import StageData, open_stage_data
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.text import templates
from eve_jax.data.text.tokenizer import FastTokenizer
from eve_jax.errors import UserError
from tests.data.source_files import samples_of, write_parquet, write_tar
from tests.data.synthetic import byte_tokenizer, write_records


def stage_config(folder: Path, records: str = "", n: int = 12) -> ConfigDict:
    config = get_config("tiny")
    byte_tokenizer().save(folder / "tokenizer")
    path = write_records(folder, n)
    config.data.update(
        {
            "records": records or str(path),
            "images": str(folder / "images"),
            "tokenizer": str(folder / "tokenizer"),
            "image_mode": "anyratio_ld",
            "max_size": 96,
            "max_tokens": 400,
            "row_tokens": 512,
            "rows": 2,
        }
    )
    return config


def begun(config: ConfigDict, folder: Path) -> StageData:
    return open_stage_data(config, folder / "stage")


def resumed(config: ConfigDict, folder: Path, data: StageData) -> StageData:
    saved = json.loads(json.dumps(data.fingerprint))
    return open_stage_data(config, folder / "stage", saved=saved)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def other_image(path: Path) -> None:
    """Another image in the file's place, of the same sides and bytes."""
    size = path.stat().st_size
    with Image.open(path) as image:
        turned = image.convert("RGB").transpose(Image.Transpose.ROTATE_180)
    turned.save(path)
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    os.utime(path, ns=(1, 1))


def test_records_of_the_same_length(tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    data = begun(config, tmp_path)
    edit(tmp_path / "records.jsonl", "Number 4", "Number 9")
    with pytest.raises(UserError, match=r"stage: the records of .*records\.jsonl \(source 1\) are not those") as error:
        resumed(config, tmp_path, data)
    assert "restore them, or use another --workdir" in str(error.value)
    assert "\n" not in str(error.value)
    edit(tmp_path / "records.jsonl", "Number 9", "Number 4")
    assert resumed(config, tmp_path, data).plan.hash == data.plan.hash


def test_reordered_and_appended_records(tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    data = begun(config, tmp_path)
    path = tmp_path / "records.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([lines[3], *lines[1:3], lines[0], *lines[4:]]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="are not those of its last checkpoint"):
        resumed(config, tmp_path, data)
    path.write_text("\n".join([*lines, lines[0]]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"has 13 records; its checkpoints were trained on 12"):
        resumed(config, tmp_path, data)
    path.write_text("\n".join([*lines[:-1], "{broken"]) + "\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"\(11 of them can be used, 12 could; left out is .*records\.jsonl:12: not valid"
    ):
        resumed(config, tmp_path, data)
    path.write_text(json.dumps([json.loads(line) for line in lines], indent=1), encoding="utf-8")
    assert resumed(config, tmp_path, data).plan.hash == data.plan.hash  # the same records, written otherwise


def test_sources_swapped_replaced_and_removed(tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    other = tmp_path / "other.jsonl"
    other.write_text((tmp_path / "records.jsonl").read_text(encoding="utf-8").replace("Number", "Figure"))
    config.data.records = f"{tmp_path}/records.jsonl,{other}"
    data = begun(config, tmp_path)
    config.data.records = f"{other},{tmp_path}/records.jsonl"
    with pytest.raises(UserError, match=r"other\.jsonl \(source 1\).*config\.data\.records has another order"):
        resumed(config, tmp_path, data)
    config.data.records = str(other)
    with pytest.raises(UserError, match=r"names 1 sources, its checkpoints were trained on 2 \(.*other\.jsonl\)"):
        resumed(config, tmp_path, data)
    shutil.copy(tmp_path / "records.jsonl", tmp_path / "third.jsonl")
    config.data.records = f"{tmp_path}/records.jsonl,{tmp_path}/third.jsonl"
    with pytest.raises(UserError, match=r"third\.jsonl \(source 2\)"):
        resumed(config, tmp_path, data)


def test_a_tokenizer_with_permuted_tokens(tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    data = begun(config, tmp_path)
    path = tmp_path / "tokenizer" / "tokenizer.json"
    spec = json.loads(path.read_text())
    vocab = spec["model"]["vocab"]
    a, b = sorted(vocab)[10:12]
    vocab[a], vocab[b] = vocab[b], vocab[a]
    config.data.tokenizer = str(tmp_path / "permuted")
    (tmp_path / "permuted").mkdir()
    (tmp_path / "permuted" / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(UserError, match=r"config\.data\.tokenizer=.*permuted is not the tokenizer"):
        resumed(config, tmp_path, data)
    assert [p.name for p in (tmp_path / "stage" / "plan").glob("lengths*")] == [data.lengths.key.split()[0] + ".npz"]


def test_a_tokenizer_as_another_version_of_the_library_writes_it() -> None:
    def fingerprint(spec: dict[str, Any]) -> str:
        class Written(FastTokenizer):
            def fingerprint(self) -> str:
                return json.dumps(spec)

        tokenizer = byte_tokenizer()
        assert isinstance(tokenizer, FastTokenizer)
        return SampleRule(Written(tokenizer.inner), ImageRule("anyratio_ld"), "qwen2").fingerprint()["tokenizer"]

    old = {"model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}
    new = {"model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]], "ignore_merges": False, "x": None}}
    assert fingerprint(old) == fingerprint(new)
    assert fingerprint({"model": {"vocab": {"a": 1, "b": 0, "ab": 2}, "merges": ["a b"]}}) != fingerprint(old)


def test_the_text_of_a_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = stage_config(tmp_path)
    config.data.template = "qwen2"
    data = begun(config, tmp_path)
    changed = replace(templates.TEMPLATES["qwen2"], system="A chat with a curious user and an artificial assistant.")
    monkeypatch.setitem(templates.TEMPLATES, "qwen2", changed)
    with pytest.raises(UserError, match="the text of the template qwen2 is not what"):
        resumed(config, tmp_path, data)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("max_size", 64, "the image rule"), ("image_first", True, "image_first"), ("long", "truncate_text", "or long")],
)
def test_settings(field: str, value: Any, message: str, tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    data = begun(config, tmp_path)
    config.data[field] = value
    with pytest.raises(UserError, match=message):
        resumed(config, tmp_path, data)


def test_another_image_of_the_same_size(tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    data = begun(config, tmp_path)
    other_image(tmp_path / "images" / "5_1.png")
    with pytest.raises(UserError, match=r"the image .*5_1\.png \(of .*records\.jsonl:6\) changed since"):
        resumed(config, tmp_path, data)
    shutil.rmtree(tmp_path / "stage" / "plan")
    with pytest.raises(
        UserError, match=r"images of .*records\.jsonl \(source 1\) are not those of its last checkpoint"
    ):
        resumed(config, tmp_path, data)


def test_images_that_are_gone_or_broken_keep_the_plan(tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    data = begun(config, tmp_path)
    (tmp_path / "images" / "5_1.png").unlink()
    (tmp_path / "images" / "4_0.png").write_bytes(b"no image")
    again = resumed(config, tmp_path, data)
    assert again.plan.hash == data.plan.hash
    list(again.batches())
    listed = [json.loads(line) for line in again.bad.path.read_text().splitlines()]
    assert sorted((entry["id"], entry["found"]) for entry in listed) == [("r4", "training"), ("r5", "training")]


def test_data_that_was_moved_or_copied_is_the_same(tmp_path: Path) -> None:
    config = stage_config(tmp_path / "data")
    data = begun(config, tmp_path)
    for path in (tmp_path / "data" / "images").iterdir():
        os.utime(path, ns=(5, 5))
    assert resumed(config, tmp_path, data).fingerprint == data.fingerprint  # new times
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere", copy_function=shutil.copyfile)
    shutil.rmtree(tmp_path / "data")
    for field in ("records", "images", "tokenizer"):
        config.data[field] = config.data[field].replace(f"{tmp_path}/data", f"{tmp_path}/elsewhere")
    again = resumed(config, tmp_path, data)
    assert again.plan.hash == data.plan.hash
    ours, theirs = again.fingerprint["sources"][0], data.fingerprint["sources"][0]
    assert {**ours, "name": ""} == {**theirs, "name": ""}


@pytest.mark.parametrize("kind", ["parquet", "tar", "prepared"])
def test_files_that_hold_images_written_anew(kind: str, tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    config.data.images = ""

    def write() -> None:
        if kind == "parquet":
            write_parquet(tmp_path / "a.parquet", samples_of(tmp_path))
        elif kind == "tar":
            write_tar(tmp_path / "a.tar", samples_of(tmp_path))
        else:
            shutil.rmtree(tmp_path / "a.prepared", ignore_errors=True)
            source = (str(tmp_path / "records.jsonl"), str(tmp_path / "images"))
            convert(Conversion(*source, str(tmp_path / "a.prepared"), 5, "headers"))

    config.data.records = str(tmp_path / f"a.{kind}")
    write()
    data = begun(config, tmp_path)
    write()
    assert resumed(config, tmp_path, data).plan.hash == data.plan.hash  # the same again
    kept = (tmp_path / "images" / "5_1.png").read_bytes()
    other_image(tmp_path / "images" / "5_1.png")
    write()
    with pytest.raises(
        UserError, match=rf"images of .*a\.{kind} \(source 1\) are not those of its last checkpoint"
    ) as error:
        resumed(config, tmp_path, data)
    named = r"is in .*a\.prepared/00001\.images; restore" if kind == "prepared" else r"is .*a\..*\(of .*\); restore"
    assert re.search(f"; the first that changed {named}", str(error.value))
    (tmp_path / "images" / "5_1.png").write_bytes(kept)
    edit(tmp_path / "records.jsonl", "Number 4", "Number 9")
    write()
    with pytest.raises(UserError, match=rf"the records of .*a\.{kind} \(source 1\) are not those of its last"):
        resumed(config, tmp_path, data)


def test_images_are_measured_again_before_the_first_checkpoint(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = stage_config(tmp_path)
    gone = tmp_path / "images" / "4_0.png"
    kept = gone.read_bytes()
    gone.unlink()
    first = begun(config, tmp_path)
    assert len(first.lengths.dropped) == 1
    gone.write_bytes(kept)  # the missing image is there now
    second = begun(config, tmp_path)
    assert not second.lengths.dropped
    assert not second.bad.path.read_text()
    assert "4_0.png changed since it was measured: measuring the records again" in capfd.readouterr().err
    Image.new("RGB", (150, 20)).save(tmp_path / "images" / "5_1.png")
    third = begun(config, tmp_path)
    assert third.plan.hash != second.plan.hash
    assert third.lengths.entry_grids(5)[1] == ImageRule.of(config.data).grid(150, 20)
    capfd.readouterr()
    os.utime(gone, ns=(7, 7))
    assert begun(config, tmp_path).plan.hash == third.plan.hash
    assert not capfd.readouterr().err


def test_a_large_data_set_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eve_jax.data.samples.image_changes import changed_images

    data = begun(stage_config(tmp_path), tmp_path)
    assert len(data.lengths.grids) == 12
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    found = changed_images(data.builder.records, data.lengths, most=4)
    assert [Path(change.image).name for change in found] == ["1_0.png", "4_0.png", "7_0.png", "10_0.png"]
    assert all(change.broken for change in found)
    assert np.all(data.lengths.seen.times != 0) if data.lengths.seen else False


def test_bad_records_of_an_earlier_plan_are_not_kept(tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    path = tmp_path / "records.jsonl"
    (tmp_path / "images" / "4_0.png").unlink()
    (tmp_path / "images" / "5_1.png").write_bytes(b"")

    def listed(data: StageData) -> list[tuple[str, str, str]]:
        lines = [json.loads(line) for line in data.bad.path.read_text(encoding="utf-8").splitlines()]
        return [(entry["where"].rpartition(":")[2], entry["id"], entry["found"]) for entry in lines]

    data = begun(config, tmp_path)
    assert listed(data) == [("5", "r4", "planning"), ("6", "r5", "planning")]
    data.bad.report(f"{path}:9", "r8", "8_0.png", "cannot be decoded")
    again = resumed(config, tmp_path, data)
    assert listed(again) == [*listed(data)[:2], ("9", "r8", "training")]
    assert again.bad.count == 1
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[:4] + lines[5:]) + "\n", encoding="utf-8")  # r5 is at the place of r4 now
    assert listed(begun(config, tmp_path)) == [("5", "r5", "planning")]
