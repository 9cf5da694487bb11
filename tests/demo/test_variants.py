"""The comparison of variants: its tree of stages, held-out texts, table and images, without training."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from configs import variants
from eve_jax import recipe
from eve_jax.config.stage import Config
from eve_jax.config.stages import trainable_names
from eve_jax.demo.dataset import read_records
from eve_jax.demo.language import chat_text
from eve_jax.demo.settings import settings_of
from eve_jax.demo.variants import write_texts
from eve_jax.demo.variants_report import COLORS, draw_changes, draw_curves, draw_table, markdown, table_rows
from eve_jax.errors import UserError
from eve_jax.eval.text_loss import TextLoss
from eve_jax.model.config import VARIANTS, ModelConfig
from eve_jax.model.eve import abstract_params


def test_every_variant_starts_from_the_shared_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = variants.get_config()
    del config.demo, config.compare
    starts = {}

    def train(c, workdir):
        starts[c.name] = c.init
        return workdir / c.name

    monkeypatch.setattr(recipe, "train_stage", train)
    recipe.run_recipe(config, tmp_path)
    assert list(starts) == list(config.order)
    shared = {"llm": "", "llm_chat": f"{tmp_path}/llm", "stage1": f"{tmp_path}/llm_chat"}
    own = {f"{v}_captions": f"{tmp_path}/stage1" for v in VARIANTS}
    assert starts == shared | own | {f"{v}_questions": f"{tmp_path}/{v}_captions" for v in VARIANTS}


def test_variants_differ_in_their_weights_alone() -> None:
    stages = variants.get_config().stages
    for name in ("captions", "questions"):
        each = [json.loads(stages[f"{v}_{name}"].to_json()) for v in VARIANTS]
        assert [c["model"].pop("variant") for c in each] == list(VARIANTS)
        assert [c.pop("stage") for c in each] == (["2.2", "2.1", "2.1", "2.1"] if name == "captions" else ["2.2"] * 4)
        assert [c.pop("name") for c in each] == [f"{v}_{name}" for v in VARIANTS]
        assert all(c == each[0] for c in each)


@pytest.mark.parametrize(("variant", "llm_trains"), [("dense", True), ("rep", False), ("moe", False), ("dac", False)])
def test_what_captions_train(variant: str, llm_trains: bool) -> None:
    c = variants.get_config("tiny").stages[f"{variant}_captions"]
    trains = trainable_names(ModelConfig.from_dict(c.model.to_dict()), Config.of(c).factors)
    assert "patch_embed.kernel1" in trains
    assert ("layers.attn.q.text.kernel" in trains) == ("embed" in trains) == llm_trains
    assert any(re.search(r"vision|delta", name) for name in trains) != llm_trains


def test_choice_of_variants() -> None:
    c = variants.get_config("tiny,of=dac+dense")
    assert c.compare.variants == ("dac", "dense")
    assert c.order[3:] == ("dac_captions", "dac_questions", "dense_captions", "dense_questions")
    with pytest.raises(UserError, match=r"unknown variant 'v3'; known: dense, rep, moe, dac"):
        variants.get_config("of=dac+v3")


def chat_of(record: dict) -> str:
    """A record of a chat in plain text."""
    values = [turn["value"] for turn in record["conversations"]]
    return chat_text(list(zip(values[::2], values[1::2], strict=True)))


def test_held_out_texts(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(tiny)
    files = write_texts(tmp_path, settings_of("tiny"), 0, 30)
    assert list(files) == ["documents", "chats"]
    learned = {
        "documents": {r["conversations"][0]["value"] for r in read_records(tiny / "llm.jsonl")},
        "chats": {chat_of(r) for r in read_records(tiny / "llm_chat.jsonl")},
    }
    for kind, old in learned.items():
        new = [passage for _, passage in TextLoss(files[kind]).passages()]
        assert len(set(new)) == 30
        assert not old & set(new)
        assert kind != "chats" or all(text.endswith("<|im_end|>") for text in new)
    before = {kind: file.read_bytes() for kind, file in files.items()}
    assert {kind: f.read_bytes() for kind, f in write_texts(tmp_path, settings_of("tiny"), 0, 30).items()} == before


def made_up() -> dict:
    """A report such as `compare` writes, of models that nobody trained."""
    report: dict = {"llm": {"text_loss": {"documents": 1.0, "chats": 0.5, "all": 0.8}}, "variants": {}}
    for i, variant in enumerate(VARIANTS):
        cfg = ModelConfig(32, 8, 12, 3, 2, 1, 4, parts=VARIANTS[variant], patch_hidden=4)
        weights = [n for n in abstract_params(cfg) if n.startswith("layers.") and "delta" not in n]
        report["variants"][variant] = {
            "name": f"EVE {i}",
            "accuracy": 0.5 + i / 10,
            "blind_accuracy": 0.125,
            "questions": 12,
            "per_task": {task: {"n": 6, "accuracy": 0.5, "blind_accuracy": 0.1} for task in ("count", "read")},
            "text_loss": {s: {"documents": 2.0, "chats": 1.0, "all": 1.5 + i} for s in ("captions", "questions")},
            "stages": {},
            "parameters": 1_500_000,
            "weight_change": {name: [0.0, 0.01, 0.002] for name in weights},
        }
    return report


def test_table() -> None:
    head, *rows = table_rows(made_up())
    assert head[-3:] == ["text loss: LLM", "after captions", "after questions"]
    assert rows[1] == ["EVE 1 (rep)", "1.5 M", "60.0%", "12.5%", "0.8000", "2.5000", "2.5000"]
    lines = markdown([head, *rows]).splitlines()
    assert (len(lines), lines[1]) == (6, "|" + " --- |" * 7)


def test_images(tmp_path: Path) -> None:
    folders = {v: {s: tmp_path / f"{v}_{s}" for s in ("captions", "questions")} for v in VARIANTS}
    for i, own in enumerate(folders.values()):
        for folder in own.values():
            folder.mkdir()
            lines = [{"step": k + 1, "loss": 3.0 / (k + 1 + i)} for k in range(6)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_curves(folders, tmp_path / "losses.png")
    draw_table(made_up(), tmp_path / "variants.png")
    draw_changes(made_up(), tmp_path / "weights.png")
    for name in ("losses.png", "variants.png", "weights.png"):
        assert (tmp_path / name).stat().st_size < 300_000
        with Image.open(tmp_path / name) as image:
            assert image.width > 900
            colors = {color for _, color in image.convert("RGB").getcolors(1 << 24) or []}
        if name != "weights.png":
            assert {tuple(bytes.fromhex(color[1:])) for color in COLORS.values()} <= colors
