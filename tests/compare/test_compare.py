"""Comparisons of checkpoints: numbers against other ways to get them, the files, and what is refused."""

import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eve_jax.compare import run
from eve_jax.compare.attention import watch
from eve_jax.compare.cards import marked, read_cards
from eve_jax.compare.filters import filters_of
from eve_jax.compare.kept import FILE, stamp_of_questions
from eve_jax.compare.questions import _row, _sample, _visible, question_losses, read_question
from eve_jax.compare.run import PARTS, Asked, compare
from eve_jax.compare.weights import KINDS, compared_weights, kind_of
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from eve_jax.hf.tensors import HfSource
from eve_jax.infer.api import EVE
from eve_jax.infer.score import ScoreSettings
from eve_jax.model.eve import declared
from eve_jax.weights.import_export import export_checkpoint
from tests.weights.folders import golden, plain, write_hf


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A plain LLM, the EVE with its text weights and others for vision, and an LLM of other sizes."""
    folder = tmp_path_factory.mktemp("compared")
    tensors, config = golden()
    eve = write_hf(folder / "eve", tensors, config | {"max_position_embeddings": 4096})
    llm = export_checkpoint(eve, folder / "llm", text_only=True, quiet=True)
    return llm, eve, write_hf(folder / "other", *plain("qwen2"))


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Questions, a text, and cards with their image."""
    folder = tmp_path_factory.mktemp("asked")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8)).save(folder / f"{name}.png")
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A bus."}]
    lines = [{"id": name, "image": f"{name}.png", "conversations": turns} for name in ("a", "b")]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "text.txt").write_text("One text.\n\nAnother one.\n")
    card = {"image": "a.png", "prompt": "Read it.", "text": "Word of the Day", "paper": "Welcome of the Day"}
    cards = [card | {"marks": [[10, 10, 3]]}, {"image": "b.png", "prompt": "What?"}]
    (folder / "cards.jsonl").write_text("".join(json.dumps(one) + "\n" for one in cards))
    return folder


def test_weights_by_layer_and_kind(folders):
    llm, eve, _ = folders
    before, after = (HfSource(folder) for folder in (llm, eve))
    found = compared_weights(before, after, "eve", quiet=True)
    text, vision = (found["groups"][group] for group in ("text", "vision"))
    assert {kind: one["mean"] for kind, one in text["by_kind"].items()} == dict.fromkeys(text["by_kind"], 0)
    assert {"V", "Q", "O", "Gate", "Down", "K", "Up", "LN1", "LN2", "Emb", "Norm"} <= text["by_kind"].keys()
    old = [np.asarray(piece, np.float64) for piece in before.pieces("layers.mlp.text.up")]
    new = [np.asarray(piece, np.float64) for piece in after.pieces("layers.mlp.vision.up")]
    moved, size = sum(np.abs(b - a).sum() for a, b in zip(old, new, strict=True)), sum(np.abs(a).sum() for a in old)
    assert vision["by_kind"]["Up"]["mean"] == pytest.approx(moved / sum(a.size for a in old), rel=1e-6)
    assert vision["by_kind"]["Up"]["relative"] == pytest.approx(moved / size, rel=1e-6)
    assert len(vision["by_layer"]) == after.cfg.num_layers
    assert any(name.startswith("patch_embed.") for name in found["new"]) and not found["gone"]


def test_a_vision_vocabulary_has_its_kind(folders):
    cfg = replace(HfSource(folders[0]).cfg, patch_embed="vq", codes=300, sub_patch=1)
    assert kind_of(cfg, "patch_embed.table") == "Codes"
    assert {kind_of(cfg, name) for name in declared(cfg)} <= set(KINDS)


def test_losses_are_those_of_scoring(folders, asked):
    _, folder, _ = folders
    eve = EVE.from_pretrained(folder)
    records = open_records(str(asked / "questions.jsonl"), str(asked))
    found = question_losses(eve, records, 0, "eve", quiet=True)
    lines = eve.score(asked / "questions.jsonl", asked).lines
    assert [one["loss"] for one in found["each"]] == pytest.approx([line.loss for line in lines], abs=1e-5)
    assert found["gap"] == pytest.approx(found["blank_loss"] - found["loss"])
    assert abs(found["gap"]) > 1e-4
    assert len(found["attention"]) == eve.engine.cfg.num_layers
    assert all(0 < share < 1 for share in found["attention"])


def test_attention_that_does_not_look_is_the_share_of_tokens(folders, asked):
    """With queries of zero every token gets the same weight."""
    eve = EVE.from_pretrained(folders[1])
    rule = ScoreSettings.of(eve.data, eve.tokenizer).rule
    question = read_question(open_records(str(asked / "questions.jsonl"), str(asked)), 0, rule)
    params = {n: jnp.zeros_like(v) if n.startswith("layers.attn.q.") else v for n, v in eve.engine.params.items()}
    cfg = replace(eve.engine.cfg, dtype="float32")
    batch = _row(cfg, *_sample(replace(rule, layout=cfg.layout), question))
    _, shares = watch(cfg, params, batch)
    counts = batch["loss_weight"][0] > 0
    np.testing.assert_allclose(np.asarray(shares)[:, 0, counts].mean(axis=1), _visible(batch), rtol=1e-5)


@pytest.mark.slow
def test_a_sheet(folders, asked, tmp_path):
    llm, eve, _ = folders
    (tmp_path / "text.txt").write_text("A text of the same name.\n")
    files: dict[str, Any] = {
        "texts": (asked / "text.txt", tmp_path / "text.txt"),
        "questions": str(asked / "questions.jsonl"),
        "images": str(asked),
    }
    cards = asked / "cards.jsonl"
    report = compare(Asked((str(llm), str(eve)), PARTS, **files, cards=cards, max_new_tokens=3), tmp_path / "out", True)
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == report | {
        "eve_jax_version": json.loads((tmp_path / "out" / "compare.json").read_text())["eve_jax_version"]
    }
    losses = [[one["loss"] for one in report["texts"][name].values()] for name in ("llm", "eve")]
    assert losses[0] == pytest.approx(losses[1]) and len(losses[0]) == 2
    assert report["questions"]["llm"] is None and report["cards"]["llm"] is None
    first, second = report["cards"]["eve"]
    assert first["error_rate"] > 0 and second["error_rate"] is None
    paper = {"answer": "Welcome of the Day", "error_rate": 5 / 15}
    assert report["paper"] == [paper, None]
    assert first["tokens"] == 1 + first["grid"][0] * (first["grid"][1] + 1)
    with Image.open(tmp_path / "out" / "compare.png") as image:
        assert image.size[0] > 1000
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "<mark>Welcome</mark>" in page and "[Word]" in page and "takes no images" in page
    assert page.count("<img") == 3 and "character error rate 33.3%" in page


@pytest.fixture
def measured(monkeypatch):
    """What is measured, in order, by stand-ins that are quick; of a checkpoint called as `fails` none can be."""
    done: list[str] = []
    fails: set[str] = set()

    def open_it(name: Any, fit: str) -> Any:
        if name.name in fails:
            raise RuntimeError("broken off")
        return SimpleNamespace(name=name.name, sees=name.name == "eve", fit=fit)

    def text(eve: Any, text: Any, quiet: bool) -> dict[str, float]:
        done.append(f"{eve.name} {text.path.stem}")
        return {"loss": float(len(done)), "tokens": 3, "passages": 1}

    def answers(eve: Any, cards: Any, most: int, *_: Any) -> list[dict[str, Any]]:
        done.append(f"{eve.name} cards of {most}" + (", shrunk" if eve.fit == "shrink" else ""))
        return [{"answer": "A", "grid": [1, 1], "tokens": 3, "error_rate": None} for _ in cards]

    monkeypatch.setattr(run.EVE, "from_pretrained", open_it)
    monkeypatch.setattr(run, "text_loss", text)
    monkeypatch.setattr(run, "answer_cards", answers)
    monkeypatch.setattr(run, "draw", lambda *_: None)
    monkeypatch.setattr(run, "page_of", lambda *_: "")
    return done, fails


def test_a_rerun_measures_what_is_missing(folders, asked, measured, tmp_path, capsys):
    done, fails = measured
    names, parts = (str(folders[0]), str(folders[1])), ("weights", "texts", "cards")
    given = Asked(names, parts, (asked / "text.txt",), cards=asked / "cards.jsonl")
    fails.add("eve")
    with pytest.raises(RuntimeError, match="broken off"):
        compare(given, tmp_path / "out")
    assert done == ["llm text"]
    assert "kept" not in capsys.readouterr().err and not (tmp_path / "out" / "compare.json").exists()
    fails.clear()
    report = compare(given, tmp_path / "out")
    assert done == ["llm text", "eve text", "eve cards of 512"]
    assert f"{tmp_path}/out: 3 of 5 measures kept from before (compare.parts.json)\n" in capsys.readouterr().err
    assert report["cards"]["llm"] is None and report["texts"]["eve"]["text.txt"]["loss"] == 2
    assert compare(given, tmp_path / "out", quiet=True) == report
    assert len(done) == 3
    other = tmp_path / "text.txt"
    other.write_text("Another text.\n")
    compare(replace(given, texts=(other,), max_new_tokens=7), tmp_path / "out", quiet=True)
    assert done[3:] == ["llm text", "eve text", "eve cards of 7"]
    assert len(json.loads((tmp_path / "out" / FILE).read_text())) == 5


def test_what_was_measured_of_other_weights_is_not_kept(folders, asked, measured, tmp_path):
    done, _ = measured
    folder = shutil.copytree(folders[1], tmp_path / "eve")
    given = Asked((str(folder),), ("texts",), (asked / "text.txt",))
    for _ in range(2):
        compare(given, tmp_path / "out", quiet=True)
    assert done == ["eve text"]
    weights = next(folder.glob("*.safetensors"))
    os.utime(weights, ns=(1, 1))
    compare(given, tmp_path / "out", quiet=True)
    assert done == ["eve text"] * 2
    (tmp_path / "out" / FILE).write_text("{")
    with pytest.raises(UserError, match=r"compare\.parts\.json is not valid JSON: .*; remove it, and everything is"):
        compare(given, tmp_path / "out", quiet=True)


def test_a_question_that_cannot_be_read_is_named_before_any_model_is(folders, asked, measured, tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text((asked / "questions.jsonl").read_text() + "{bad\n")
    for name, says in {
        "bad.jsonl": r"^[^:]*/bad\.jsonl:3: not valid JSON",
        "lost.jsonl": r"set --questions to",
    }.items():
        given = Asked(
            (str(folders[1]),), ("texts", "questions"), (asked / "text.txt",), str(tmp_path / name), str(asked)
        )
        with pytest.raises(UserError, match=says):
            compare(given, tmp_path / "out", quiet=True)
    assert measured[0] == []


def test_cards_follow_the_image_rule_that_is_asked_for(folders, asked, measured, tmp_path):
    done, _ = measured
    for fit in ("fill", "shrink", "shrink"):
        compare(Asked((str(folders[1]),), ("cards",), cards=asked / "cards.jsonl", fit=fit), tmp_path, quiet=True)
    assert done == ["eve cards of 512", "eve cards of 512, shrunk"]


def test_questions_with_other_images_are_other_questions(asked, tmp_path):
    folder = shutil.copytree(asked, tmp_path / "asked")
    records = open_records(str(folder / "questions.jsonl"), str(folder))
    before, first = (stamp_of_questions(records, limit) for limit in (0, 1))
    assert before != first
    os.utime(folder / "b.png", ns=(1, 1))
    assert stamp_of_questions(records, 0) != before
    assert stamp_of_questions(records, 1) == first


@pytest.mark.parametrize(
    ("which", "parts", "says"),
    [
        ((0, 2), ("weights",), "cannot be compared weight by weight: hidden_size is"),
        ((1,), ("weights",), "name two"),
        ((0, 1), ("texts",), "name its file by --texts"),
        ((0, 1), ("charts",), "'charts' is none of"),
    ],
)
def test_what_cannot_be_compared(folders, tmp_path, which, parts, says):
    with pytest.raises(UserError, match=says):
        compare(Asked(tuple(str(folders[n]) for n in which), parts), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"prompt": "x"}, "cards.jsonl#1: image is None"),
        ({"image": "a.png"}, "prompt is None"),
        ({"image": "none.png", "prompt": "x"}, "none.png"),
        ({"image": "a.png", "prompt": "x", "text": "\ud800"}, "text: character 1 is .* half of a surrogate pair"),
        ({"image": "a.png", "prompt": "x", "mark": []}, "unknown field 'mark'"),
        ({"image": "a.png", "prompt": "x", "marks": [[1, 2]]}, "expected \\[x, y, whole number\\]"),
        ({"image": "a.png", "prompt": "x", "marks": [[900, 2, 1]]}, "outside of 90 x 70 pixels"),
    ],
)
def test_cards_that_are_none(asked, tmp_path, line, says):
    (tmp_path / "cards.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=says):
        read_cards(tmp_path / "cards.jsonl", str(asked))


def test_marks_are_drawn(asked):
    image = Image.new("RGB", (200, 100))
    assert marked(image, []) is image
    drawn = np.asarray(marked(image, [(50.0, 40.0, 7)]))
    assert drawn[40, 46].max() > 0 and not drawn[90, 150].any() and not np.asarray(image).any()


def test_filters_are_in_the_order_of_pixels(folders):
    found = filters_of(HfSource(folders[1]))
    assert found is not None
    (kernel,) = HfSource(folders[1]).pieces("patch_embed.kernel1")
    first = kernel[:, 0].reshape(16, 16, 3)
    np.testing.assert_allclose(found[0], np.round(255 * (0.5 + 0.5 * first / np.abs(first).max())), atol=1)
    assert filters_of(HfSource(folders[0])) is None
