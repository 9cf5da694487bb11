"""Rows looked at: what is shown is what the arrays hold, and that is what the records say."""

from base64 import b64decode, b64encode
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs.base import get_config
from eve_jax.batch import RowShape
from eve_jax.data.image.patches import open_image, patchify, resize, unpatchify
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.rows.pipeline import StageData, open_stage_data
from eve_jax.data.view.page import page_of
from eve_jax.data.view.step import rows_of_step, show_step
from eve_jax.data.view.take_apart import PAD, PATCH, SPECIAL, TEXT, Piece, ShownRow, ShownSample
from eve_jax.errors import UserError
from tests.data.synthetic import byte_tokenizer, write_records

RULE = ImageRule("anyratio_ld", max_size=96)


def stage_config(folder: Path) -> ConfigDict:
    config = get_config("tiny")
    byte_tokenizer().save(folder / "tokenizer")
    config.data.update({"records": str(write_records(folder, 30)), "images": str(folder / "images")})
    config.data.update({"tokenizer": str(folder / "tokenizer"), "image_mode": RULE.mode, "max_size": RULE.max_size})
    config.data.update({"max_tokens": 512, "row_tokens": 768, "rows": 3, "max_shapes": 2})
    return config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> StageData:
    folder = tmp_path_factory.mktemp("show")
    return open_stage_data(stage_config(folder), folder / "stage")


def test_patches_become_the_image_again() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 160, 3), np.uint8)
    assert np.array_equal(unpatchify(patchify(pixels), 2, 5), pixels)


def test_samples_are_taken_apart_into_what_they_were_made_of(data: StageData) -> None:
    seen = set()
    records = {record.id: record for record in data.builder.records}
    for step in range(data.plan.steps):
        for row in rows_of_step(data, step, 100):
            for sample in row.samples:
                seen.add(sample.id)
                record = records[sample.id]
                images = [piece.image for piece in sample.pieces if piece.image is not None]
                assert len(images) == len(record.images)
                for image, file in zip(images, record.images, strict=True):
                    assert np.array_equal(image, resize(open_image(file), RULE))
                targets = "".join(piece.text for piece in sample.pieces if piece.target)
                assert targets == " " + record.turns[1].text + "<|im_end|>"
                text = "".join("<image>" if piece.image is not None else piece.text for piece in sample.pieces)
                assert f"USER: {record.turns[0].text} ASSISTANT:{targets}" in text
                assert sample.n_targets == len(record.turns[1].text) + 2
    assert seen == set(records)


def test_counts_add_up(data: StageData) -> None:
    for row in rows_of_step(data, 0, 100):
        for kind, budget in zip((PATCH, SPECIAL, TEXT), row.shape, strict=True):
            own = int((row.kind == kind).sum())
            assert own == sum(sample.counts[kind] for sample in row.samples) <= budget
        assert int((row.kind == PAD).sum()) == row.shape.length - sum(sum(sample.counts) for sample in row.samples)
        assert int(row.target.sum()) == sum(sample.n_targets for sample in row.samples)
        assert sorted(row.slots.tolist()) == list(range(row.shape.length))


def test_rows_are_chosen_from_all_micro_batches(data: StageData) -> None:
    rows = rows_of_step(data, 0, 2)
    assert [row.title for row in rows] == ["row 1 of 3, micro-batch 1 of 2", "row 1 of 3, micro-batch 2 of 2"]
    assert len(rows_of_step(data, 0, 100)) == 6
    with pytest.raises(UserError, match=rf"--step={data.plan.steps}: the plan has {data.plan.steps} steps"):
        rows_of_step(data, data.plan.steps, 2)


def test_a_sample_that_broke_is_said_to_be_masked(data: StageData, tmp_path: Path) -> None:
    data = open_stage_data(stage_config(tmp_path), tmp_path / "stage")
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"broken")
    samples = [sample for row in rows_of_step(data, 0, 100) for sample in row.samples]
    assert any(sample.n_targets == 0 for sample in samples)
    for sample in samples:
        assert (sample.n_targets == 0) == bool(sample.counts.patches)
        assert not any(piece.image.any() for piece in sample.pieces if piece.image is not None)


def parsed(page: str) -> ElementTree.Element:
    """The page, which must be well-formed."""
    return ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def classes(bar: ElementTree.Element, of: set[str]) -> list[str | None]:
    """Which of the classes `of` each token position of a bar has."""
    found: list[str | None] = [None] * int(bar.attrib["viewBox"].split()[2])
    for rect in bar.iter("rect"):
        first, width = int(rect.get("x", 0)), int(rect.attrib["width"])
        for name in of & set(rect.attrib["class"].split()):
            assert found[first : first + width] == [None] * width
            found[first : first + width] = [name] * width
    return found


def test_the_page_shows_what_the_rows_hold(data: StageData) -> None:
    rows = rows_of_step(data, 0, 100)
    page = parsed(page_of(rows, "step 0", "all rows"))
    names = {PATCH: "patch", SPECIAL: "special", TEXT: "text", PAD: "pad"}
    sections = page.findall("section")
    assert len(sections) == len(rows)
    for row, section in zip(rows, sections, strict=True):
        memory, causal = section.findall("figure/div/svg")
        order = np.argsort(row.slots)
        for bar, own in ((memory, order), (causal, np.arange(len(order)))):
            assert classes(bar, set(names.values())) == [names[kind] for kind in row.kind[own].tolist()]
            colors = [f"c{(number - 1) % 8 + 1}" if number else None for number in row.sample[own].tolist()]
            assert classes(bar, {f"c{n}" for n in range(1, 9)}) == colors
            assert classes(bar, {"target"}) == ["target" if one else None for one in row.target[own].tolist()]
        for sample, card in zip(row.samples, section.findall("div/article"), strict=True):
            assert "".join(card[0].itertext()).endswith(f" {sample.id}")
            shown: list[Piece] = []
            for element in card[2]:
                if element.tag == "label":
                    kind, _, image = element.findall("svg/image")[0].attrib["href"].partition(";base64,")
                    assert kind == "data:image/png"
                    shown.append(Piece(np.asarray(Image.open(BytesIO(b64decode(image)))), "", False))
                else:
                    shown.append(Piece(None, (element.text or "").replace("↵", ""), element.tag == "u"))
            for piece, expected in zip(shown, sample.pieces, strict=True):
                assert piece[1:3] == expected[1:3]
                assert (piece.image is None) == (expected.image is None)
                if piece.image is not None and expected.image is not None:
                    assert np.array_equal(piece.image, expected.image)


def test_the_page_is_closed_and_text_in_it_is_text() -> None:
    evil = '</u><script>alert("1")</script>&lt;<img src=x>\x00\r\x85\u202e'
    sample = ShownSample(evil, [Piece(None, evil, True)], RowShape(0, 0, 1), 1)
    one = np.ones(1, np.int32)
    row = ShownRow(evil, RowShape(0, 0, 1), [sample], one, TEXT * one, one > 0, 0 * one)
    text = page_of([row], evil, evil)
    page = parsed(text)
    shown = '</u><script>alert("1")</script>&lt;<img src=x>\u2400\u240d\ufffd\u202e'
    assert [element.text for element in page.iter("u")] == [shown]
    assert [element.text for element in page.iter("bdi")] == [shown]
    assert {page.findtext("title"), page.findtext("h1"), page.findtext("p"), page.findtext("section/h2")} == {shown}
    tags = {element.tag for element in page.iter()}
    assert not tags & {"script", "img", "link", "iframe", "form"}
    assert not any(name == "style" or name.startswith("on") for element in page.iter() for name in element.attrib)
    policy = page.find("meta[@http-equiv]")
    assert policy is not None
    digest = b64encode(sha256((page.findtext("style") or "").encode()).digest()).decode()
    assert policy.attrib["content"].split("; ")[:3] == [
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{digest}'",
    ]


def test_the_page_is_written_to_a_file(tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    out = tmp_path / "new" / "rows.html"
    show_step(config, None, 0, str(out), max_rows=3)
    assert len(parsed(out.read_text(encoding="utf-8")).findall("section")) == 3
    assert [path.name for path in out.parent.iterdir()] == ["rows.html"]
    for name in ("a.png", "a"):
        with pytest.raises(UserError, match=rf"--out=.*{name}: the rows become a page; name a file .* \.html"):
            show_step(config, None, 0, str(tmp_path / name), max_rows=3)
    (tmp_path / "b.html").mkdir()
    with pytest.raises(UserError, match=r"--out=.*b\.html is a folder"):
        show_step(config, None, 0, str(tmp_path / "b.html"), max_rows=3)


def test_the_plan_of_a_training_is_used_and_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = stage_config(tmp_path)
    (tmp_path / "images" / "1_0.png").unlink()
    stage = tmp_path / "stage"
    open_stage_data(config, stage)
    (tmp_path / "images" / "2_0.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in stage.rglob("*")}
    written: list[str] = []

    def note(rows: list[ShownRow], title: str, about: str) -> str:
        written.append(about)
        return ""

    monkeypatch.setattr("eve_jax.data.view.step.page_of", note)
    show_step(config, stage, 0, str(tmp_path / "a.html"), max_rows=1)
    config.data.row_tokens = 1024
    show_step(config, stage, 0, str(tmp_path / "a.html"), max_rows=1)
    show_step(config, None, 0, str(tmp_path / "a.html"), max_rows=1)
    assert {path: path.stat().st_mtime_ns for path in stage.rglob("*")} == before
    assert [about.rpartition("; ")[2] for about in written] == [
        "1 record left out",
        "1 record left out",
        "2 records left out",
    ]
