"""The report of captions: what was kept and rejected, with images, experts and both captions."""

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.caption_server import Asked, ScriptedEndpoint, describe
from eve_jax.caption.write import caption_records
from eve_jax.curate.report.captions import caption_content
from eve_jax.curate.report.write import write_report
from eve_jax.data.sources.records import open_records
from tests.caption.scenes import config_of, write_images
from tests.launcher import launch

EXPERTS = {"boxes": [{"name": "cup", "score": 0.9, "box": [0.1, 0.2, 0.3, 0.4]}]}


def answers(asked: Asked) -> str:
    """A good caption, and for two images a refusal."""
    if "alt 3" in asked.prompt or "alt 4" in asked.prompt:
        return "I am sorry, but I cannot help with that."
    return describe(asked)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder of captions of 10 records, of which two were refused and one has a broken image; the records; images."""
    folder = tmp_path_factory.mktemp("captioned")
    records = write_images(folder, 10, {1: {"experts": EXPERTS}})
    (folder / "5.jpg").write_bytes(b"")
    with ScriptedEndpoint(answers) as endpoint:
        caption_records(config_of(endpoint.url), records, str(folder), folder / "out")
    return folder / "out", records, str(folder)


def test_the_report_of_captions_adds_up(captioned: tuple[Path, str, str]) -> None:
    out, records, images = captioned
    content = caption_content(out, open_records(records, images, texts=False))
    assert (content.total, content.kept, content.remaining()[-1][1]) == (10, 7, 7)
    assert {(loss.stage, loss.rule, loss.count) for loss in content.losses} == {
        ("read", "image", 1),
        ("check", "refusal", 2),
    }
    facts = dict(content.facts)
    assert facts["requests answered"] == "11, 1.100 a record"  # the refused ones were asked twice
    assert "DenseFusion: 87,500 a GPU" in facts["images a day"] and facts["model"] == "m"
    cards = {card.id: card for card in content.samples}
    assert cards["r1"].findings == EXPERTS and cards["r1"].alt == "alt 1" and len(cards["r1"].caption) > 40
    assert all(card.verdict == "kept" and card.file is not None for card in content.samples)
    words, alt = content.histograms
    assert sum(words.counts) == sum(alt.counts) == 7 and words.mark == 8


def test_rejected_captions_have_their_images_where_the_source_is_named(captioned: tuple[Path, str, str]) -> None:
    out, records, images = captioned
    with_images = caption_content(out, open_records(records, images, texts=False)).rejected
    without = caption_content(out).rejected
    for groups, has_image in ((with_images, True), (without, False)):
        (refused,) = (group for group in groups if "refusal" in group.title)
        assert {card.id for card in refused.cards} == {"r3", "r4"}
        for card in refused.cards:
            assert card.caption.startswith("I am sorry") and card.verdict.startswith("refusal: ")
            assert (card.file is not None) == has_image
            assert card.alt == (f"alt {card.id[1]}" if has_image else "")


@pytest.mark.slow
def test_the_command_draws_it_again(captioned: tuple[Path, str, str], tmp_path: Path) -> None:
    out, records, images = captioned
    done = launch(
        "launch.curate", "report", f"--from={out}", f"--to={tmp_path}", f"--records={records}", f"--images={images}"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{tmp_path}/report.html", f"{tmp_path}/report.png"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 9 and "missing file" not in page and "empty file" in page
    with Image.open(tmp_path / "report.png") as image:
        assert image.width == 1300


@pytest.mark.slow
def test_the_command_plans_with_captions_as_a_pilot(captioned: tuple[Path, str, str]) -> None:
    out, records, images = captioned
    given = (f"--from={records}", f"--images={images}", "--config=curate")
    done = launch("launch.curate", "plan", *given, f"--config.plan.pilot={out}", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["records"], found["kept"], found["requests"]) == (10, 9, 11)  # two of nine were asked twice
    assert found["prompt_tokens"] == 700 * 11 and found["storage"]["images"] > 0
    wrong = launch("launch.curate", "plan", f"--from={records}")
    assert (wrong.returncode, wrong.stderr) == (1, "error: --config must be given (see --help)\n")


def test_captions_that_were_all_rejected_have_a_report(tmp_path: Path) -> None:
    records = write_images(tmp_path, 2)
    with ScriptedEndpoint(lambda asked: "I am sorry, but I cannot help with that.") as endpoint:
        caption_records(config_of(endpoint.url), records, str(tmp_path), tmp_path / "out")
    page, _ = write_report(tmp_path / "out")
    assert "check, refusal: 2 records" in page.read_text()
