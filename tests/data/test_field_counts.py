"""What is said about the fields of records, and the stages that train on images alone."""

import json
from pathlib import Path

import pytest

from configs.base import get_config
from eve_jax.data.field_counts import FieldCounts, check_images, summed
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.prepare.convert import Conversion, convert
from eve_jax.data.record import Fields, UnreadMedia
from eve_jax.data.rows.pipeline import open_stage_data
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from tests.data.synthetic import byte_tokenizer, write_records


def write(path: Path, n: int, **fields: object) -> str:
    path.write_text("\n".join(json.dumps({"text": f"Number {k}.", **fields}) for k in range(n)))
    return str(path)


def counts_of(records: int, images: int) -> FieldCounts:
    counts = FieldCounts()
    for number in range(records):
        counts.add(Fields(("image", "text") if number < images else ("text",), ("width",)), number < images)
    return counts


def test_counts() -> None:
    some, more = counts_of(3, 2), counts_of(2, 2)
    assert some.line("a") == "a: 3 records, 1 text only; fields used: text (3), image (2); not used: width (3)"
    assert more.line("a").startswith("a: 2 records, all with images; ")
    assert counts_of(2, 0).line("a").startswith("a: 2 records, all text only; ")
    assert FieldCounts().line("a") == "a: no record can be used"
    doubtful = FieldCounts()
    for _ in range(3):
        doubtful.add(Fields(("text",), ("url",), ("no image, but a URL in url",)), False)
    assert doubtful.line("a").endswith("; not used: url (3); warning: no image, but a URL in url (3)")
    assert FieldCounts.of_plain(doubtful.plain()) == doubtful
    assert FieldCounts.of_plain([3, 0, {"text": 3}, {"url": 3}]).used == {"text": 3}  # of an earlier version
    (both,) = summed([[some], [more]])
    assert both == counts_of(5, 4) == FieldCounts.of_plain(json.loads(json.dumps(both.plain())))
    many = FieldCounts()
    for number in range(1000):
        many.add(Fields((), (f"key {number}\n\ud800" + "x" * 500,)), False)
    line = many.line("a")
    assert "(others) (950)" in line
    assert len(line) < 6000
    assert "\n" not in line
    line.encode()


@pytest.mark.parametrize(("images", "said"), [(0, "refused"), (1, "warned"), (9, "warned"), (10, ""), (100, "")])
@pytest.mark.parametrize("stage", ["1", "2.1", "2.2", "3", "llm"])
def test_stages_that_train_on_images(stage: str, images: int, said: str) -> None:
    sources = {"a.jsonl": counts_of(60, images if images < 60 else 60), "b.jsonl": counts_of(40, max(images - 60, 0))}
    if stage not in ("1", "2.1") or not said:
        assert check_images(stage, sources) == ""
    elif said == "warned":
        assert f"warning: only {images} of 100 records have an image, and stage {stage}" in check_images(stage, sources)
    else:
        with pytest.raises(
            UserError, match=rf"stage {stage} .*no record has an image \(a\.jsonl: 60 .*not used: width"
        ):
            check_images(stage, sources)


def test_counts_are_kept_with_the_lengths(tmp_path: Path) -> None:
    write_records(tmp_path, 6)
    text = write(tmp_path / "text.jsonl", 4, width=3)
    bad = write(tmp_path / "bad.jsonl", 2, image="gone.png")
    records = open_records(f"{tmp_path}/records.jsonl,{text},{bad}", tmp_path / "images")
    settings = (SampleRule(byte_tokenizer(), ImageRule(max_size=96), "plain", max_tokens=1000), tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    made = measure(records, *settings).fields
    assert made == measure(records, *settings).fields  # of the file
    assert [counts.records for counts in made][1:] == [4, 0]
    assert (made[1].used, made[1].unused) == ({"text": 4}, {"width": 4})

    conversion = Conversion(
        f"{tmp_path}/records.jsonl,{text}", f"{tmp_path}/images", f"{tmp_path}/prepared", 4, "headers"
    )
    summary = convert(conversion)
    assert list(summary["sources"]) == [f"{tmp_path}/records.jsonl", text]
    assert FieldCounts.of_plain(summary["sources"][text]) == made[1]
    prepared = open_records(f"{tmp_path}/prepared,{text}")
    of_prepared, of_text = measure(prepared, *settings).fields
    assert of_text == made[1]
    assert of_prepared.images == sum(
        len(r.images) > 0 for r in open_records(f"{tmp_path}/records.jsonl") if len(r.turns) < 3
    )


def test_media_that_are_not_read_stop_measuring_and_converting(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", 3, photo="x.jpg")
    records = open_records(path)
    with pytest.raises(UnreadMedia, match=r"a\.jsonl:1 .*the field 'photo' looks like an image"):
        measure(records, SampleRule(byte_tokenizer(), ImageRule(), "plain", max_tokens=1000))
    with pytest.raises(UserError, match="the field 'photo' looks like an image"):
        convert(Conversion(path, "", str(tmp_path / "prepared"), 2, "headers"))


def test_stage_1_is_planned_with_images_alone(tmp_path: Path) -> None:
    write_records(tmp_path, 5)
    byte_tokenizer().save(tmp_path / "tokenizer")
    config = get_config("tiny")
    config.stage = "1"
    own = {"images": f"{tmp_path}/images", "tokenizer": f"{tmp_path}/tokenizer", "template": "plain"}
    config.data.update({"row_tokens": 512, "max_tokens": 400, "max_size": 96, **own})

    config.data.records = write(tmp_path / "blind.jsonl", 12, score=3)
    with pytest.raises(
        UserError, match=r"stage 1 .*no record has an image \(.*blind\.jsonl: 12 .*not used: score \(12\)"
    ):
        open_stage_data(config, tmp_path / "blind")
    assert not list((tmp_path / "blind").glob("plan/plan.*"))
    image = next((tmp_path / "images").iterdir()).name
    config.data.records += "," + write(tmp_path / "seen.jsonl", 1, file_name=image)
    notes = open_stage_data(config, tmp_path / "few").notes()
    assert notes == open_stage_data(config, tmp_path / "few").notes()
    assert len(notes) == 3
    assert notes[1].endswith("seen.jsonl: 1 record, all with images; fields used: file_name (1), text (1)")
    assert notes[2].startswith("warning: only 1 of 13 records have an image, and stage 1 ")
    config.stage = "3"
    assert len(open_stage_data(config, tmp_path / "few").notes()) == 2


def test_a_source_without_a_usable_record(tmp_path: Path) -> None:
    write_records(tmp_path, 5)
    byte_tokenizer().save(tmp_path / "tokenizer")
    config = get_config("tiny")
    own = {"images": f"{tmp_path}/images", "tokenizer": f"{tmp_path}/tokenizer", "template": "plain"}
    config.data.update({"row_tokens": 512, "max_tokens": 400, "max_size": 96, **own})
    good = write(tmp_path / "good.jsonl", 6)
    masked = tmp_path / "masked.jsonl"
    masked.write_text('{"text": " "}\n' * 4)
    lost = write(tmp_path / "lost.jsonl", 2, image="gone.png")
    (tmp_path / "empty.jsonl").write_text("")
    for name, why in (
        (str(masked), r"its 4 records were left out; the first, .*masked\.jsonl:1: nothing to learn"),
        (lost, r"its 2 records were left out; the first, .*lost\.jsonl:1: missing file \(.*gone\.png\)"),
        (f"{tmp_path}/empty.jsonl", "it is empty"),
    ):
        for number, names in enumerate((f"{good},{name}", f"{name},{good}", f"{good},{name}")):
            config.data.records, config.data.repeats = names, "1,2" if number else ""
            with pytest.raises(
                UserError, match=rf"{name}: no record can be used \({why}.*remove it from config.data.rec"
            ):
                open_stage_data(config, tmp_path / "refused")
        config.data.repeats = "1,0"
        assert open_stage_data(config, tmp_path / "without").plan.stats["samples"] == 6
