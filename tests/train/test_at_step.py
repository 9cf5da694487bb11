"""`config.init=FOLDER@STEP`: a stage starts from that step of a run, or is told which steps there are."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import variants
from eve_jax.checkpoint.named_step import find_checkpoint
from eve_jax.compare.run import Asked, compare
from eve_jax.demo.config import RecipeConfig
from eve_jax.errors import UserError
from eve_jax.infer.api import EVE
from eve_jax.process.at_step import AtStep, at_step
from eve_jax.train.initial_state import check_origins, open_init
from eve_jax.train.lineage import _origin
from eve_jax.weights.base_config import stored_paths
from eve_jax.weights.import_export import export_checkpoint, make_whole, merge_adapters
from eve_jax.weights.open import open_checkpoint
from eve_jax.weights.peft_folder import export_peft
from tests.train.stages_on_disk import DAC, DENSE, saved, started, write_llm

NAME = "layers.mlp.text.up"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("at step")
    write_llm(folder / "llm", step=5)
    write_llm(folder / "llm", step=7, change=0.5)
    return folder


def test_names(tmp_path: Path) -> None:
    assert at_step("runs/a@b@12") == AtStep("runs/a@b", 12)
    assert at_step("runs/a@b") == AtStep("runs/a@b", None)
    (tmp_path / "a@12").mkdir()
    assert at_step(tmp_path / "a@12") == AtStep(str(tmp_path / "a@12"), None), "a folder of that very name"


@pytest.mark.parametrize(("init", "change"), [("llm@5", 0.0), ("llm@7", 0.5), ("llm", 0.5)])
def test_a_stage_starts_from_the_step(work: Path, tmp_path: Path, init: str, change: float) -> None:
    begun = started(tmp_path / "stage1", DENSE, "1", work / init)
    first = np.asarray(open_checkpoint(work / "llm@5").params()[NAME])
    expected = (first + np.float32(change)).astype(begun.frozen[NAME].dtype)
    np.testing.assert_array_equal(np.asarray(begun.frozen[NAME]), expected)
    assert begun.origins[0]["step"] == (5 if init == "llm@5" else 7)
    stored = saved(tmp_path / "stage1", begun, 3)
    again = started(tmp_path / "stage2_1", DAC, "2.1", tmp_path / "stage1@3")
    np.testing.assert_array_equal(np.asarray(again.frozen[NAME]), np.asarray(stored[NAME]))


def test_other_steps_are_named(work: Path, tmp_path: Path) -> None:
    says = r"llm@6: the folder has no checkpoint of step 6; steps that it has: 5, 7\. A run keeps"
    config: Any = SimpleNamespace(init=f"{work}/llm@6", seed=0, data=SimpleNamespace(tokenizer="t"), teacher="")
    for read in (lambda: started(tmp_path / "a", DENSE, "1", work / "llm@6"), lambda: check_origins(config, DENSE)):
        with pytest.raises(UserError, match=says):
            read()
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        open_checkpoint(tmp_path / "nowhere@6")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(UserError, match=r"hf@6: a Hugging Face folder has no steps; name it without @6"):
        open_checkpoint(tmp_path / "hf@6")


def test_a_damaged_step_is_not_replaced_by_another(work: Path, tmp_path: Path) -> None:
    write_llm(tmp_path / "llm", step=5)
    write_llm(tmp_path / "llm", step=7)
    next((tmp_path / "llm/checkpoints/5/params").rglob("d/*")).unlink()
    with pytest.raises(UserError, match=r"llm@5: the checkpoint is damaged: .* is missing"):
        started(tmp_path / "a", DENSE, "1", tmp_path / "llm@5")
    started(tmp_path / "b", DENSE, "1", tmp_path / "llm@7")


def test_what_follows_from_it(work: Path, tmp_path: Path) -> None:
    def config(init: str) -> ConfigDict:
        values = {"init": init, "teacher": "", "encoder": "", "model": {"llm": ""}}
        return ConfigDict(values | {"data": {"images": "", "tokenizer": "", "vision_tokenizer": "", "records": ""}})

    lineages = {_origin(config(f"{work}/{init}")) for init in ("llm", "llm@5", "llm@7", "llm@6")}
    assert lineages == {"llm", "llm@5", "llm@7", ""}
    assert stored_paths(config(f"{work}/llm@5"), tmp_path)["init"]["absolute"] == str(work / "llm")
    open_init(ConfigDict({"init": f"{work}/llm@5", "seed": 0}), DENSE)


@pytest.mark.parametrize(
    ("step", "every", "says"),
    [(4, 4, ""), (8, 0, ""), (4, 0, "no checkpoint of step 4"), (3, 4, "step 3"), (12, 4, "step 12"), (0, 4, "step 0")],
)
def test_a_recipe_is_refused_before_it_begins(step: int, every: int, says: str) -> None:
    config = variants.get_config("tiny,of=dac")
    config.stages.stage1.train.keep_every = every
    config.stages.stage1.train.save_every = 4
    config.stages.dac_captions.init = f"WORKDIR/stage1@{step}"
    if not says:
        assert json.loads(RecipeConfig.of(config).stages["dac_captions"].to_json())["init"].endswith(f"@{step}")
        return
    with pytest.raises(UserError, match=rf"dac_captions.init=WORKDIR/stage1@{step}: stage1 keeps .*{says}; choose"):
        RecipeConfig.of(config)


def test_what_is_opened_for_answers_and_copies(work: Path, tmp_path: Path) -> None:
    first = np.asarray(open_checkpoint(work / "llm@5").params()[NAME])
    assert find_checkpoint(work / "llm@5") == work / "llm@5" and find_checkpoint(work / "llm") == work / "llm"
    copies = {init: make_whole(work / init, tmp_path / init, quiet=True) for init in ("llm@5", "llm@7", "llm")}
    for init, folder in copies.items():
        copied = np.asarray(open_checkpoint(folder).params()[NAME])
        np.testing.assert_array_equal(copied, first + np.float32(0.0 if init == "llm@5" else 0.5))
    out = tmp_path / "compared"
    found = compare(Asked((f"{work}/llm@5", f"{work}/llm@7"), ("weights",)), out, quiet=True)
    assert [one["name"] for one in found["checkpoints"]] == ["llm@5", "llm@7"]
    assert [one["folder"] for one in found["checkpoints"]] == [f"{work}/llm@5", f"{work}/llm@7"]
    changed = found["weights"]["llm@7"]["groups"]["text"]["by_kind"]["Up"]
    assert changed["mean"] == pytest.approx(0.5, abs=1e-6)


def test_every_way_in_names_the_steps(work: Path, tmp_path: Path) -> None:
    name, says = f"{work}/llm@6", r"llm@6: the folder has no checkpoint of step 6; steps that it has: 5, 7\. A run"
    ways: list[Any] = [
        lambda: EVE.from_pretrained(name),
        lambda: compare(Asked((name,), ("filters",)), tmp_path / "c", quiet=True),
        lambda: make_whole(name, tmp_path / "w", quiet=True),
        lambda: merge_adapters(name, tmp_path / "m", quiet=True),
        lambda: export_checkpoint(name, tmp_path / "e", quiet=True),
        lambda: export_peft(name, tmp_path / "p"),
    ]
    for way in ways:
        with pytest.raises(UserError, match=says):
            way()
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        find_checkpoint(tmp_path / "nowhere@6")


def test_a_damaged_step_is_not_answered_from(tmp_path: Path) -> None:
    write_llm(tmp_path / "llm", step=5)
    next((tmp_path / "llm/checkpoints/5/params").rglob("d/*")).unlink()
    with pytest.raises(UserError, match=r"llm@5: the checkpoint is damaged: .* is missing"):
        EVE.from_pretrained(tmp_path / "llm@5")
