"""report.json, report.md and report.html: complete, escaped, bounded, and written whatever failed."""

import io
import json
import re
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from eve_jax.data.image_file import ImageFile, StoredImage
from eve_jax.data.view.thumbnails import SIDE, Thumbnails
from eve_jax.eval import registry
from eve_jax.eval.outcome import Answered, Outcome
from eve_jax.eval.own import OwnQuestions
from eve_jax.eval.report import table_lines, write_reports
from eve_jax.eval.report.sheet import GROUPS, MOST_IMAGES, sheet_of
from eve_jax.eval.report.values import brief, duration, finite, flat, number
from eve_jax.eval.sources.base import Item
from tests.eval.outcomes import ABOUT, outcome_of, recorded, with_protocol

FILES = ("report.html", "report.json", "report.md")
EVIL = "<script>alert('&')</script>\n| a `b` | **c** <img src=x> \x00\x1b[31m \ud800 \ufffe ]]> \u202e"


def written(folder: Path, outcomes: list[Outcome], about: dict[str, Any] = ABOUT) -> tuple[dict[str, Any], str, str]:
    """Return report.json, report.md and report.html of the outcomes."""
    write_reports(folder, outcomes, about)
    assert sorted(path.name for path in folder.iterdir()) == list(FILES)
    page, data, text = (folder.joinpath(name).read_text(encoding="utf-8") for name in FILES)
    return json.loads(data), text, page


def elements(page: str) -> ElementTree.Element:
    """Return the page's tree: it is well-formed."""
    return ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def own(outputs: list[str], images: tuple[ImageFile, ...] = (), **fields: Any) -> Outcome:
    """Return the outcome of questions whose correct answer is "a"."""
    turns = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "a"}]
    rows = [{"id": str(n), "conversations": turns, **fields} for n in range(len(outputs))]
    outcome = outcome_of(OwnQuestions("mine"), rows, outputs)
    return replace(outcome, items=[replace(item, images=images) for item in outcome.items])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, str]:
    """Reports of MME and GQA under both protocols from one set of answers."""
    outcomes = [recorded("mme.lmms"), with_protocol("mme.lmms", "eve"), recorded("gqa.lmms")]
    return written(tmp_path_factory.mktemp("both"), [*outcomes, with_protocol("gqa.lmms", "eve")])


def test_json_holds_what_the_outcomes_hold(both: tuple[dict[str, Any], str, str]) -> None:
    report = both[0]
    assert (report["schema"], report["about"]) == (1, ABOUT)
    assert list(report["tasks"]) == ["mme.lmms", "mme.eve", "gqa.lmms", "gqa.eve"]
    entry, outcome = report["tasks"]["mme.lmms"], recorded("mme.lmms")
    assert entry["aggregate"] == outcome.aggregate and entry["headline"] == outcome.headline
    assert entry["papers"] == {
        **{"EVEv1": 1628, "EVEv2": 1709, "source": "EVEv2 paper, Table 2"},
        "remark": "which sum the papers report is not stated; ours is perception + cognition",
    }
    assert (entry["benchmark"], entry["protocol"], entry["measure"]) == (
        "mme",
        "lmms",
        "perception + cognition, points",
    )
    assert [pair["protocols"] for pair in report["disagreements"]] == [["lmms", "eve"]] * 2


def test_markdown_has_a_row_per_task_next_to_the_papers(both: tuple[dict[str, Any], str, str]) -> None:
    lines = both[1].splitlines()
    (row,) = (line for line in lines if line.startswith("| gqa | lmms |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:] == [
        *("51.1", "35.6 to 66.7", "accuracy, %", "45", "1 (2.2%)", "0", "62.6", "62.9", "22.5 s"),
    ]
    assert "¹ The papers' own figures, not ours." in lines
    assert any(line.startswith("- mme: EVEv2 paper, Table 2; which sum") for line in lines)
    assert sum(line.startswith("| --- ") for line in lines) > 10
    starts = [number for number, line in enumerate(lines) if line.startswith("| ---")]
    for start in starts:
        bars = lines[start].count("|")
        ends = next((n for n in range(start, len(lines)) if not lines[n].startswith("|")), len(lines))
        assert {line.replace(r"\|", "").count("|") for line in lines[start - 1 : ends]} == {bars}


def test_page_is_self_contained_and_shows_images(both: tuple[dict[str, Any], str, str]) -> None:
    tree = elements(both[2])
    sources = [element.attrib["src"] for element in tree.iter("img")]
    assert len(sources) > 20 and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    image = Image.open(io.BytesIO(b64decode(sources[0].partition(",")[2])))
    assert image.size == (48, 32)
    links = [element.attrib["href"] for element in tree.iter("a")]
    ids = {element.attrib["id"] for element in tree.iter() if "id" in element.attrib}
    assert len(links) == 4 and all(link[1:] in ids for link in links)
    assert not list(tree.iter("script")) and "http" not in re.sub(r"http-equiv", "", both[2])
    assert "default-src 'none'" in both[2] and "prefers-color-scheme: dark" in both[2]


def test_page_shows_right_and_wrong_answers_and_disagreements(both: tuple[dict[str, Any], str, str]) -> None:
    text = " ".join("".join(elements(both[2]).itertext()).split())
    outcome = recorded("mme.lmms")
    scores = [(verdict.parsed, verdict.score) for verdict in outcome.scored[1]]
    assert f"6 of {scores.count((True, 1.0))} correct" in text
    assert f"8 of {scores.count((True, 0.0))} wrong" in text
    assert f"6 of {sum(not parsed for parsed, _ in scores)} not parsed, so wrong" in text
    assert "10 of 10 rows on which they disagree" in text and "existence" in text


def test_text_is_escaped(tmp_path: Path) -> None:
    outcome = own([EVIL, "a", EVIL * 2])
    answers = [replace(one, id=EVIL + one.id, prompt=EVIL) for one in outcome.answered]
    items = [replace(item, id=EVIL + item.id, where=EVIL) for item in outcome.items]
    lost = replace(answers[2], answer=None, verdict=None, error=EVIL)
    outcome = replace(outcome, items=items, answered=[*answers[:2], lost], further={EVIL: EVIL}, left_out={EVIL: 3})
    report, text, page = written(tmp_path, [outcome, replace(outcome, error=EVIL)], {EVIL: EVIL, "list": [EVIL]})
    tree = elements(page)
    assert not list(tree.iter("script")) and not [e for e in tree.iter("img") if e.attrib["src"] == "x"]
    assert "<script>alert('&')</script>" in "".join(tree.itertext())
    assert "\x00" not in page and "\x1b" not in page + text and "\ufffe" not in page
    assert report["tasks"]["mine.own"]["left_out"] == {EVIL: 3}
    cells = [line for line in text.splitlines() if "alert" in line]
    assert len(cells) > 5 and not any(re.search(r"(?<!\\)[<>`]", line) for line in cells)


def test_long_texts_are_shortened(tmp_path: Path) -> None:
    long = "x" * 50_000 + "\n" + "y" * 50_000
    outcome = own([long, "a", "b"])
    answers = [replace(one, prompt=long, error="") for one in outcome.answered]
    outcome = replace(outcome, answered=answers)
    write_reports(tmp_path, [outcome, replace(outcome, error=long)], {"checkpoint": "c"})
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 40_000
    assert "...(99,601 characters)..." in (tmp_path / "report.html").read_text()


def test_images_that_fail_get_a_note(tmp_path: Path) -> None:
    def broken() -> Any:
        raise RuntimeError("row group 3 is gone")

    bad: list[ImageFile] = [
        tmp_path / "none.png",
        StoredImage("cell", broken),
        StoredImage("text", lambda: io.BytesIO(b"no image")),
    ]
    page = written(tmp_path / "out", [own(["a", "b", ""], tuple(bad))])[2]
    text = "".join(elements(page).itertext())
    assert text.count("image cannot be shown: missing file") == 3
    assert text.count("image cannot be shown: cannot be read (RuntimeError: row group 3 is gone)") == 3
    assert text.count("image cannot be shown: not an image of a format that is read") == 3


def test_images_are_bounded_in_number_size_and_bytes(tmp_path: Path) -> None:
    Image.effect_noise((1200, 600), 90).save(tmp_path / "noise.png")
    outcome = own(["b"] * 40 + ["a"] * 40, (tmp_path / "noise.png",) * 6)
    shown = sheet_of(outcome)
    assert {name: (total, len(cards)) for name, (total, cards) in shown.items()} == {
        "wrong": (40, GROUPS["wrong"]),
        "correct": (40, GROUPS["correct"]),
    }
    assert [card.id for card in shown["wrong"][1]] == ["0", "5", "10", "15", "20", "25", "30", "35"]
    card = shown["correct"][1][0]
    assert (len(card.images), card.more) == (MOST_IMAGES, 2)
    ((url, about), *_) = Thumbnails().of(card.images)
    image = Image.open(io.BytesIO(b64decode(url.partition(",")[2])))
    assert (image.size, about) == ((SIDE, SIDE // 2), "1200 × 600 pixels")
    full = Thumbnails(2 * len(url))
    assert [bool(url) for url, _ in full.of(card.images)] == [True, True, False, False]
    assert next(iter(full.of(card.images))) == ("", "image left out: the page is full")
    assert "2 more images" in "".join(elements(written(tmp_path / "out", [outcome])[2]).itertext())


def test_whatever_failed_there_is_a_report(tmp_path: Path) -> None:
    gqa = recorded("gqa.lmms")
    lost = [Answered(one.id, one.prompt, None, None, error="image 3: missing file") for one in gqa.answered]
    mme = registry.get("mme", "lmms")
    outcomes = [
        Outcome(mme, error="data/test-00000-of-00001.parquet: was cut off"),
        replace(recorded("seed.lmms"), error="the scorer raised KeyError: 'answer'"),
        replace(gqa, answered=lost, aggregate={}),
        outcome_of(registry.get("gqa", "eve"), [], []),
    ]
    report, text, page = written(tmp_path, outcomes)
    tasks = report["tasks"]
    assert [tasks[name]["headline"] for name in ("mme.lmms", "seed.lmms", "gqa.lmms", "gqa.eve")] == [None] * 4
    assert tasks["mme.lmms"]["error"] == "data/test-00000-of-00001.parquet: was cut off"
    assert (tasks["gqa.lmms"]["n"], len(tasks["gqa.lmms"]["errors"]), tasks["gqa.eve"]["n"]) == (45, 45, 0)
    shown = "".join(elements(page).itertext())
    for line in ("was cut off", "the scorer raised KeyError", "45 questions, 0 scored, 45 errors", "0 questions"):
        assert line in shown and line in text, line
    assert "45 of 45 errors" in shown and "Errors, 20 of 45:" in text
    assert written(tmp_path, [], {})[0]["tasks"] == {}


def test_numbers_that_json_lacks(tmp_path: Path) -> None:
    numbers: dict[Any, Any] = {"loss": float("nan"), 3: {"x": (1, float("inf"), Path("p"))}}
    outcome = replace(own(["a", "b"]), further=numbers)
    assert written(tmp_path, [outcome])[0]["tasks"]["mine.own"]["further"] == {"loss": None, "3": {"x": [1, None, "p"]}}


def test_an_interrupted_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(tmp_path, [own(["a"])])
    monkeypatch.setattr("eve_jax.eval.report.write.page_of", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_reports(tmp_path, [own(["b"])], ABOUT)
    assert (tmp_path / "report.html").read_text() == before[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == list(FILES)


def test_table_for_the_terminal() -> None:
    failed = Outcome(registry.get("mme", "eve"), error="no data")
    lines = table_lines([recorded("gqa.lmms"), recorded("mmbench_en.lmms_static"), failed])
    assert [line.split() for line in lines] == [
        ["task", "protocol", "score", "n", "not", "parsed", "errors", "time"],
        ["gqa", "lmms", "51.1", "±15.6", "45", "1", "(2.2%)", "0", "22.5", "s"],
        ["mmbench_en", "lmms_static", "59.1", "±20.5", "72", "5", "(6.9%)", "0", "36.0", "s"],
        ["mme", "eve", "failed", "0", "0", "0", "0.0", "s"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_values() -> None:
    assert [number(x) for x in (None, 1628, 1628.0, 62.649, 0.0)] == ["–", "1,628", "1,628.0", "62.6", "0.0"]
    assert [duration(x) for x in (0, 59.94, 60, 3599.7, 3661)] == [
        "0.0 s",
        "59.9 s",
        "1:00 min",
        "1:00:00 h",
        "1:01:01 h",
    ]
    assert brief(["yes"] * 7 + ["no"] * 3) == "yes ×7, no ×3"
    assert brief([{"answer": "a"}, {"answer": "a"}]) == "a ×2" and brief(2.5) == "2.5" and brief(None) is None
    assert flat({"a": {"b": 0.5, "c": None, "d": []}, "e": "t", "f": 3}) == [("a.b", "0.5"), ("e", "t"), ("f", "3")]
    assert finite({1: (float("nan"), True)}) == {"1": [None, True]}


def test_items_without_an_answer_do_no_harm() -> None:
    """A task that failed before its questions were asked has items alone."""
    items = [Item("0", {}, (), "data#1")]
    outcome = Outcome(registry.get("mme", "eve"), items, error="the engine stopped")
    assert table_lines([outcome])[1].split()[3] == "1"
