"""The engine's demo without training: the web and its captions, the captioner's lessons, the students, the report."""

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs import engine_demo
from eve_jax import recipe
from eve_jax.caption.run import Asking
from eve_jax.config.stage import Config
from eve_jax.data.sources.records import open_records
from eve_jax.demo import engine, engine_report
from eve_jax.demo.config import RecipeConfig
from eve_jax.demo.engine_figure import COLORS, draw_engine
from eve_jax.demo.settings import TINY
from eve_jax.demo.split import Split
from eve_jax.demo.vocabulary import Vocabulary
from eve_jax.demo.web import IMAGES, NOISE, RECORDS, TRUTH, read_truth, write_unseen, write_web
from eve_jax.errors import UserError
from eve_jax.process.files import read_json
from tests.curate.web import plain

WEB = 80


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_web(tmp_path_factory.mktemp("engine") / "web", TINY, "web", WEB, 0.25)


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_web_is_the_same_each_time(web: Path, tmp_path: Path) -> None:
    again = write_web(tmp_path / "web", TINY, "web", WEB, 0.25)
    files = sorted(path.relative_to(web) for path in web.rglob("*") if path.is_file())
    assert len(files) == WEB + 3
    assert all((again / file).read_bytes() == (web / file).read_bytes() for file in files)
    before = (again / RECORDS).stat().st_mtime_ns
    assert write_web(again, TINY, "web", WEB, 0.25) == again and (again / RECORDS).stat().st_mtime_ns == before
    write_web(again, TINY, "web", WEB, 0.25, seed=1)
    assert (again / RECORDS).read_bytes() != (web / RECORDS).read_bytes()
    write_web(again, TINY, "web", WEB - 1, 0.25)
    assert len(lines(again / RECORDS)) == WEB - 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds something else"):
        write_web(tmp_path / "mine", TINY, "web", WEB, 0.25)


def kind_of(file: Path) -> str:
    """What is wrong with an image of the web."""
    try:
        with Image.open(file) as opened:
            image = opened.convert("L")
    except OSError:
        return "cut off"
    if max(image.size) <= 24:
        return "thumbnail"
    if image.width == 640:
        return "banner"
    return "blank" if np.ptp(np.asarray(image)) <= 1 else "none"


def test_bad_images_are_of_four_kinds_and_have_no_truth(web: Path) -> None:
    paths = {line["id"]: line["image"] for line in lines(web / RECORDS)}
    found = Counter(kind_of(web / IMAGES / path) for id, path in paths.items() if id not in read_truth(web))
    assert 10 <= found.total() <= 30 and {*found} == {"cut off", "thumbnail", "banner", "blank"}
    assert {kind_of(web / IMAGES / paths[id]) for id in read_truth(web)} == {"none"}


def test_captions_of_the_web_are_noisy(tmp_path: Path) -> None:
    assert sum(NOISE.values()) == pytest.approx(1)
    folder = write_web(tmp_path / "web", TINY, "web", 400, 0.0)
    truths, vocabulary = read_truth(folder), Vocabulary(TINY)
    texts = {line["id"]: line["conversations"][0]["value"] for line in lines(folder / RECORDS)}
    agreement = vocabulary.agreement(texts, truths, truths)
    assert 0.25 < agreement.recall < 0.5 and 0.5 < agreement.precision < 0.85 and 0.05 < agreement.exact < 0.2
    assert sum(texts[id] == truths[id] for id in truths) == pytest.approx(NOISE["dense"] * 400, abs=25)
    assert any(text.startswith("#") for text in texts.values())
    assert {json.loads(line)["id"] for line in (folder / TRUTH).read_text().splitlines()} == {*texts}


def test_names_of_a_caption() -> None:
    vocabulary = Vocabulary(TINY)
    assert vocabulary.names_in("Two cats and a car on the left.") == {"two", "cat", "car", "left"}
    assert vocabulary.names_in("A red sign that reads STOP.") == {"red", "STOP"}
    assert vocabulary.names_in("concatenate the category") == set()
    texts = {"a": "A cat.", "b": "A cat and a car."}
    truths = {"a": "A cat.", "b": "Two cats."}
    found = vocabulary.agreement(texts, truths, ["a", "b"])
    assert (found.recall, found.precision, found.exact) == (2 / 3, 2 / 3, 1 / 2)
    for seed in range(20):
        wrong = vocabulary.with_an_error("The image shows two cats and a car.", Random(seed))
        assert len(vocabulary.names_in(wrong) & {"two", "cat", "car"}) == 2, wrong


def test_students_differ_in_captions_and_seeds_alone() -> None:
    c = engine_demo.get_config()
    config = RecipeConfig.of(c)
    assert config.loop is not None and config.loop.seeds == 3
    each: dict[str, Any] = {}
    for captions in engine_demo.SETS:
        for seed in range(3):
            for name in engine_demo.STUDENT:
                own = json.loads(c.stages[f"{captions}_{seed}_{name}"].to_json())
                assert own.pop("seed") == seed and own.pop("name") == f"{captions}_{seed}_{name}"
                records = own["data"].pop("records")
                pretrains = name == "pretrain"
                assert records == (engine_demo.SOURCES[captions] if pretrains else "WORKDIR/data/questions.jsonl")
                assert each.setdefault(name, own) == own
                assert own["init"] == ("WORKDIR/llm_chat" if pretrains else "")
    after = list(c.order)[list(c.order).index("captioner") + 1 :]
    assert len(after) == 18 and all(
        after[n + 1] == after[n].replace("pretrain", "questions") for n in range(0, len(after), 2)
    )


def test_the_demo_s_own_model_captions(tmp_path: Path) -> None:
    folder = tmp_path / "stage3"
    folder.mkdir()
    c = engine_demo.get_config(f"tiny,captioner={folder}")
    assert list(c.order)[:4] == ["llm", "llm_chat", "captioner", "raw_0_pretrain"]
    assert c.stages.captioner.init == str(folder) and c.stages.captioner.data.tokenizer == ""
    Config.of(c.stages.captioner)


def test_sections_that_do_not_go_together() -> None:
    def changed(**fields: object) -> None:
        c = engine_demo.get_config("tiny")
        for name, value in fields.items():
            node = c
            *sections, field = name.split("__")
            for section in sections:
                node = node[section]
            node[field] = value
        RecipeConfig.of(c)

    with pytest.raises(UserError, match=r"config.loop.captioner='stage9': expected one of llm"):
        changed(loop__captioner="stage9")
    with pytest.raises(UserError, match=r"has no stage 'raw_2_pretrain' after captioner"):
        changed(loop__seeds=3)
    with pytest.raises(UserError, match=r"config.loop.curate.select.rule='best'"):
        changed(loop__curate__select__rule="best")
    with pytest.raises(UserError, match=r"config.loop.caption.prompt.text has \{blok\}"):
        changed(loop__caption__prompt__text="Say it.\n{blok}")
    with pytest.raises(UserError, match=r"loop.caption.prompt.text has no variable such as"):
        changed(loop__caption__prompt__text="Say it.")


def test_a_package_that_is_missing_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None if name == "rapidocr" else "there")
    config = engine_demo.get_config("tiny")
    with pytest.raises(UserError, match=r"requires rapidocr: pip install.*or go without OCR: --config.loop.curate"):
        recipe.run_recipe(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config.loop.curate.experts.run = ""
    loop = RecipeConfig.of(config).loop
    assert loop is not None
    engine.check_installed(loop)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with the web curated, and the captioner's lessons, without Daft and OCR."""
    workdir = tmp_path_factory.mktemp("prepared")
    c = engine_demo.get_config("tiny")
    c.loop.curate.experts.run = ""
    config = RecipeConfig.of(c)
    assert config.loop is not None and config.demo is not None
    with pytest.MonkeyPatch.context() as patch:
        plain(patch)
        patch.setattr(engine, "write_report", lambda folder: None)
        engine.prepare(config.loop, config.demo, workdir)
    return workdir


def test_lessons_have_the_prompts_that_are_asked(prepared: Path) -> None:
    loop = RecipeConfig.of(engine_demo.get_config("tiny")).loop
    assert loop is not None
    records = open_records(str(prepared / "looked" / "records"))
    learned = [
        (one["conversations"][0]["value"], one["conversations"][1]["value"]) for one in lines(prepared / "taught.jsonl")
    ]
    truths = read_truth(prepared / "taught")
    assert len(records) == loop.taught and len(learned) == 2 * loop.taught
    for number, prompt in ((0, engine.alone(loop.caption)), (1, loop.caption)):
        asked = [Asking(prompt, records).question(index).prompt.text for index in range(len(records))]
        assert [f"<image>\n{text}" for text in asked] == [text for text, _ in learned[number::2]]
        assert [truths[record.id] for record in records] == [answer for _, answer in learned[number::2]]
    assert all(text == "<image>\nDescribe the image." for text, _ in learned[::2])
    assert all("World knowledge: " in text for text, _ in learned[1::2])


def test_curation_leaves_no_bad_image(prepared: Path) -> None:
    records = open_records(str(prepared / "curated" / "records"))
    assert len(records) == 80 and {record.id for record in records} <= {*read_truth(prepared / "web")}
    rejected = Counter(one["stage"] for one in lines(prepared / "curated" / "rejected.jsonl"))
    assert rejected["filter"] + rejected["measure"] == 120 - len(read_truth(prepared / "web"))
    assert len(open_records(str(prepared / "unseen" / RECORDS), prepared / "unseen" / IMAGES)) == 12


def test_unseen_images_are_of_held_out_compositions(tmp_path: Path) -> None:
    folder = write_unseen(tmp_path / "unseen", TINY, 20)
    split, vocabulary = Split(TINY), Vocabulary(TINY)
    found = lines(folder / RECORDS)
    assert len(found) == 20 and all((folder / IMAGES / one["image"]).is_file() for one in found)
    for one in found:
        names = vocabulary.names_in(one["conversations"][-1]["value"])
        words = [word for word in split.words if word in names]
        kinds = [kind for kind in split.kinds if kind.name in names]
        assert split.any_held(kinds) or any(split.held_color(word) in names for word in words), one


def made_up() -> dict:
    """A report such as `compare_captions` writes, of students that nobody trained."""
    scores = {"raw": [0.3, 0.34], "captioned": [0.5, 0.52], "recaptioned": [0.6, 0.6]}
    return {
        "captions": {n: {"count": 80, "recall": 0.4, "precision": 0.6, "exact": 0.1} for n in scores},
        "accuracy": {
            name: {
                task: {"mean": sum(own) / 2, "error": engine_report.standard_error(own), "seeds": own}
                for task in ("all", "count", "read")
            }
            for name, own in scores.items()
        },
        "unseen_loss": {name: {"steps": [2, 4], "losses": [[3.0, 2.0], [3.2, 2.2]]} for name in scores},
        "students": {},
        "verdict": engine_report.verdicts(scores),
    }


def test_verdicts() -> None:
    said = engine_report.verdicts({"raw": [0.30, 0.34], "captioned": [0.59, 0.63], "recaptioned": [0.60, 0.60]})
    assert said == {
        "raw": "recaptioned is 28.0 points above raw, more than two standard errors of the difference (2.0 points) "
        "over 2 seeds; seed by seed +30.0, +26.0: +28.0 ± 2.0 points.",
        "captioned": "recaptioned is 1.0 points below captioned, within two standard errors of the difference (2.0 "
        "points) over 2 seeds; seed by seed +1.0, -3.0: -1.0 ± 2.0 points.",
    }


def test_students_of_a_seed_are_compared_with_each_other() -> None:
    """All of them vary more by the seed than they differ: pairs show it."""
    found = engine_report.differences({"raw": [0.2, 0.5, 0.8], "recaptioned": [0.23, 0.54, 0.82]})
    assert found.keys() == {"raw"}
    assert found["raw"]["seeds"] == pytest.approx([0.03, 0.04, 0.02])
    assert found["raw"]["mean"] == pytest.approx(0.03) and found["raw"]["error"] == pytest.approx(0.01 / 3**0.5)
    said = engine_report.verdicts({"raw": [0.2, 0.5, 0.8], "recaptioned": [0.23, 0.54, 0.82]})
    assert "3.0 points above raw, within two standard errors" in said["raw"] and "+3.0 ± 0.6 points" in said["raw"]


def test_table_and_image(tmp_path: Path) -> None:
    head, *rows = engine_report.table_rows(made_up())
    assert rows[0] == [
        "raw: web captions",
        "80",
        "40.0%",
        "60.0%",
        "10.0%",
        "2.100 ± 0.100",
        "32.0% ± 2.0%",
        "30.0%, 34.0%",
    ]
    assert all(len(row) == len(head) for row in rows)
    draw_engine(made_up(), tmp_path / "engine_demo.png")
    with Image.open(tmp_path / "engine_demo.png") as image:
        assert image.width > 1200
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 24) or []}
    assert {tuple(bytes.fromhex(color[1:])) for color in COLORS.values()} <= colors


@pytest.mark.slow
def test_the_whole_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe from the web to the image, once more, and after all answers of a set were lost."""
    for package in ("daft", "rapidocr", "uvicorn"):
        pytest.importorskip(package)
    config = engine_demo.get_config("tiny")
    recipe.run_recipe(config, tmp_path)
    report = read_json(tmp_path / "engine_demo.json")
    assert {name: one["count"] for name, one in report["captions"].items()}["raw"] == 80
    assert all(report["captions"][name]["count"] >= 40 for name in ("captioned", "recaptioned"))
    assert all(len(own["seeds"]) == 2 for one in report["accuracy"].values() for own in one.values())
    blocks = [one.kept["experts"] for one in open_records(str(tmp_path / "recaptioned"))]
    assert any(json.loads(one)["ocr"] for one in blocks), "OCR read the signs"
    files = {
        path: path.stat().st_mtime_ns
        for name in ("captioned", "recaptioned", "recaptioned_1_questions", "answers")
        for path in (tmp_path / name).rglob("*")
        if path.is_file() and not path.name.startswith((".", "report.", "losses", "paths.json"))
    }
    monkeypatch.setattr(engine, "_endpoint", None)  # nothing is asked again
    recipe.run_recipe(config, tmp_path)
    assert report == read_json(tmp_path / "engine_demo.json")
    changed = [path for path, made in files.items() if path.stat().st_mtime_ns != made and path.suffix != ".lock"]
    assert not changed
