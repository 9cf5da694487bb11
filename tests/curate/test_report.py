"""Reports of curations and captions: numbers that add up, images that are there, text that cannot do harm."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from eve_jax.curate.report.content import Card, Content, Group, Loss, histogram, spread
from eve_jax.curate.report.curation import curation_content
from eve_jax.curate.report.figure import draw_report
from eve_jax.curate.report.page import page_of
from eve_jax.curate.report.write import write_report
from eve_jax.errors import UserError
from tests.curate.web import curated, plain, scene, tiny, write_web

FOUND = {
    "tags": [{"name": "espresso", "score": 0.94}],
    "boxes": [{"name": "cup", "score": 0.46, "box": [0.2, 0.3, 0.6, 0.8]}],
    "ocr": [{"text": "EXIT <now>", "score": 0.99, "box": [0.1, 0.0, 0.3, 0.1]}],
}


def texts(page: str) -> str:
    """Return all text of a page, which is well-formed."""
    return "\n".join(ElementTree.fromstring(page.replace("<!DOCTYPE html>", "")).itertext())


def made(tmp_path: Path) -> Content:
    image = tmp_path / "a.png"
    Image.new("RGB", (64, 48), "navy").save(image)
    good = Card("r1", image, ("cosine 0.9",), FOUND, "a $5 web <b>caption</b>", "A cup of $5.", "kept")
    bad = Card("r2", None, caption="I cannot help.", verdict="refusal: I cannot help")
    words = histogram("words", np.array([1.0, 2, 3]), 2.0)
    assert words is not None
    return Content(
        "A <title>",
        [("model", "x & y")],
        10,
        [Loss("filter", "short_edge", 4), Loss("check", "refusal", 1)],
        5,
        [words],
        [good],
        [Group("cluster 0: 3 records", [good, Card("gone", tmp_path / "gone.png")])],
        [],
        [Group("check, refusal: 1 record", [bad])],
    )


def test_the_page_shows_everything_and_runs_nothing(tmp_path: Path) -> None:
    page = page_of(made(tmp_path))
    shown = texts(page)
    for text in ("A <title>", "x & y", "a $5 web <b>caption</b>", "EXIT <now>", "espresso 0.94", "cup 0.46", "kept"):
        assert text in shown
    for text in ("4 (40.0%)", "1 (10.0%)", "refusal: I cannot help", "image cannot be shown: missing file", "no image"):
        assert text in shown
    assert "<script" not in page and not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert page.count("data:image/jpeg;base64,") == 2


def test_the_picture_is_drawn_with_and_without_parts(tmp_path: Path) -> None:
    content = made(tmp_path)
    draw_report(content, tmp_path / "all.png")
    draw_report(Content("empty", [], 0, [], 0), tmp_path / "none.png")
    sizes = {}
    for name in ("all", "none"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 10
            sizes[name] = image.size
    assert sizes["all"][1] > sizes["none"][1] + 300


def test_what_is_left_after_each_rule() -> None:
    content = Content("t", [], 10, [Loss("filter", "a", 4), Loss("check", "b", 1)], 5)
    assert content.remaining() == [("records", 10), ("filter: a", 6), ("check: b", 5)]


def test_a_histogram_counts_every_finite_value() -> None:
    values = np.array([1, 10, 100, 1000, np.nan, np.inf, -1])
    log = histogram("x", values, 50, log=True)
    flat = histogram("x", values, 5000)
    one = histogram("x", np.array([7.0, 7.0]))
    assert log is not None and flat is not None and one is not None
    assert sum(log.counts) == 4 and (log.edges[0], log.edges[-1]) == (1, 1000)
    assert sum(flat.counts) == 5 and (flat.edges[0], flat.edges[-1]) == (-1, 5000)  # the threshold is in its range
    assert sum(one.counts) == 2 and one.edges[0] < 7 < one.edges[-1]
    assert histogram("x", np.array([np.nan])) is None
    assert spread(3, 8) == [0, 1, 2] and spread(100, 4) == [0, 25, 50, 75] and spread(0, 4) == []


@pytest.fixture(scope="module")
def curation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curation of 45 records: 40 scenes, a small, a long and a broken image, a near-copy, a caption of two images."""
    folder = tmp_path_factory.mktemp("curation")
    images = [(f"s{n:02d}", scene(n), f"the scene number {n} of a long series of them") for n in range(40)]
    images += [
        ("small", scene(50, (60, 50)), "an image that is too small for anybody"),
        ("long", scene(51, (400, 80)), "an image that is far too long for anybody"),
        ("broken", scene(52), "a file that cannot be read at all"),
        ("copy", scene(3, (110, 83)), "another title of what is shown elsewhere"),
        ("same", scene(53), "the scene number 5 of a long series of them"),
    ]
    source = write_web(folder, images)
    (folder / "images" / "broken.jpg").write_bytes(b"no image")
    with pytest.MonkeyPatch.context() as patch:
        plain(patch)
        curated(tiny(select__rule="nearest:15"), source, folder / "out")
    return folder / "out"


def test_the_report_of_a_curation_adds_up(curation: Path) -> None:
    content = curation_content(curation)
    funnel = json.loads((curation / "funnel.json").read_text())
    assert content.total == funnel["in"] == 45
    assert content.remaining()[-1][1] == content.kept == funnel["kept"]
    counts = {loss.rule: loss.count for loss in content.losses}
    assert counts["image"] == counts["short_edge"] == counts["aspect"] == counts["same_caption"] == 1
    short, long, *_ = content.histograms
    assert (short.title, long.title) == ("short side, pixels", "long side over short")
    assert sum(short.counts) == sum(long.counts) == 44  # but for the file that cannot be read
    assert (short.mark, long.mark) == (64, 3)
    assert len(content.clusters) == 4
    for group in content.clusters:
        cosines = [float(card.about[0].split()[1]) for card in group.cards]
        assert cosines == sorted(cosines, reverse=True) and 0 < len(cosines) <= 9
    titles = [group.title for group in content.rejected]
    assert "filter, short_edge: 1 record" in titles and not any("copy" in title for title in titles)
    assert len(content.samples) == 12 and all(card.alt and card.verdict == "kept" for card in content.samples)


def test_the_report_of_a_curation_shows_copies_next_to_what_is_kept(curation: Path) -> None:
    pairs = {group.title.partition(":")[0]: group for group in curation_content(curation).copies}
    assert {card.id for card in pairs["same_caption"].cards} == {"s05", "same"}
    kept, left_out = pairs["near_copy"].cards
    assert (kept.id, kept.about, left_out.id, left_out.about) == ("s03", ("kept",), "copy", ("left out",))
    assert kept.file is not None and left_out.file is not None
    assert pairs["near_copy"].title == "near_copy: s03 kept, copy left out"


def test_reports_are_written_and_other_folders_refused(curation: Path, tmp_path: Path) -> None:
    page, picture = write_report(curation, to=tmp_path / "shown")
    assert "the scene number 0 of a long series" in texts(page.read_text())
    with Image.open(picture) as image:
        assert image.format == "PNG" and image.width == 1300
    with pytest.raises(UserError, match=r"neither curated\.json of a curation nor caption\.json"):
        write_report(tmp_path)
