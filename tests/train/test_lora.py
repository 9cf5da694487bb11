"""Adapters train in place of the weights: what is stored, exact resume, the base, merging."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from configs import stage2_1, stage2_2, stage3
from eve_jax.checkpoint.frozen_weights import origins
from eve_jax.checkpoint.stage_folder import steps_in
from eve_jax.checkpoint.stored import stored_shapes
from eve_jax.compile.abstract import abstract_step, nbytes, plan_work
from eve_jax.config.stage import Config
from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import adapters, of_groups
from eve_jax.model.lora_config import Lora
from eve_jax.model.quantized import is_quantized
from eve_jax.sharding import make_mesh
from eve_jax.train.metrics import TIMED, read_metrics
from eve_jax.train.trainer import train
from eve_jax.weights.import_export import merge_adapters
from eve_jax.weights.open import open_checkpoint
from tests.train.adapters import STEPS, config, make_work, write_base


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_work(tmp_path_factory.mktemp("lora"))


@pytest.fixture(scope="module")
def run(work: Path) -> Path:
    """A run with dropout, and a learning rate for each modality."""
    c = config(work, "run", dropout=0.2)
    c.optim.groups.text = 0.5
    return train(c, work, quiet=True)


def adapted(cfg: ModelConfig) -> Lora:
    """The adapters of a model that has some."""
    assert cfg.lora is not None
    return cfg.lora


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The lines of the steps without what follows the clock."""
    return [{k: v for k, v in line.items() if k not in TIMED} for line in read_metrics(folder)]


def test_the_checkpoint_holds_the_adapters_alone(work, run):
    cfg = open_checkpoint(run).cfg
    assert set(stored_shapes(run, STEPS)) == adapters(cfg)
    assert set(adapted(cfg).groups) == {"text", "vision", "patch_embed"}
    (origin,) = origins(run, STEPS)
    assert (origin.path, set(origin.weights)) == ("../base", set(stored_shapes(work / "base", 1)))
    losses = [line["loss"] for line in numbers(run)]
    assert losses[-1] < losses[0]


def test_resumes_bit_for_bit(work, run):
    again = work / "again" / "run"
    shutil.copytree(run, again)
    for step in steps_in(run)[1:]:
        shutil.rmtree(again / "checkpoints" / str(step))
    c = config(work, "run", dropout=0.2)
    c.optim.groups.text = 0.5
    train(c, again.parent, quiet=True)
    assert numbers(again) == numbers(run)
    before, after = (open_checkpoint(f).params() for f in (run, again))
    for name in before:
        np.testing.assert_array_equal(np.asarray(before[name]), np.asarray(after[name]), err_msg=name)


def test_the_base_is_named_and_compared(work, run):
    """Gone, or with other weights: nobody takes the adapters for those of another model."""
    moved = work / "moved"
    moved.mkdir()
    shutil.copytree(run, moved / "run")
    shutil.copytree(work / "base", moved / "base")
    assert open_checkpoint(moved / "run").params().keys() == open_checkpoint(run).params().keys()
    shutil.rmtree(moved / "base")
    (work / "other").mkdir()
    write_base(work, "other/base", 1)
    (work / "other" / "base").rename(moved / "base")
    for read in (lambda: open_checkpoint(moved / "run").params(), lambda: merge_adapters(moved / "run", work / "m")):
        with pytest.raises(UserError, match=r"run was trained on other weights than .*base now holds"):
            read()
    with pytest.raises(UserError, match=r"config\.init=.* has adapters .*launch\.convert merge"):
        train(config(work, "next", "run"), work, quiet=True)


@pytest.mark.slow
def test_every_choice_of_the_optimizer(work):
    """Muon, 8-bit moments, weights in bfloat16, an average: resumed with the same bits, merged plain and averaged."""
    c = config(work, "choices", dropout=0.1)
    c.optim.update({"rule": "muon", "moments": "int8", "ema": 0.5, "loss_weights": "sqrt", "weight_decay": 0.1})
    c.model.update({"param_dtype": "bfloat16", "routing": "masked"})
    c.eval.update({"records": str(work / "train.jsonl"), "ema": True})
    folder = train(c, work, quiet=True)
    first = numbers(folder)
    assert first[-1]["loss"] < first[0]["loss"]
    for step in steps_in(folder)[1:]:
        shutil.rmtree(folder / "checkpoints" / str(step))
    train(c, work, quiet=True)
    assert numbers(folder) == first
    merged = [merge_adapters(folder, work / f"choices_{a}", quiet=True, average=a) for a in (False, True)]
    plain, average = (open_checkpoint(found).params() for found in merged)
    base = open_checkpoint(work / "base").params()
    name = "layers.mlp.vision.up"
    apart = [np.abs(np.asarray(params[name]) - np.asarray(base[name])).max() for params in (plain, average)]
    assert 0 < apart[1] < apart[0]


@pytest.mark.slow
def test_a_base_in_int8(work):
    """It resumes bit for bit, and is merged into the whole base."""
    c = config(work, "int8", base="int8", on="vision,patches")
    folder = train(c, work, quiet=True)
    first = numbers(folder)
    assert first[-1]["loss"] < first[0]["loss"]
    assert adapted(open_checkpoint(folder).cfg).groups == ("patch_embed", "vision")
    for step in steps_in(folder)[1:]:
        shutil.rmtree(folder / "checkpoints" / str(step))
    train(c, work, quiet=True)
    assert numbers(folder) == first
    cfg, merged = open_checkpoint(merge_adapters(folder, work / "merged", quiet=True)).for_inference()
    base = open_checkpoint(work / "base").params()
    changed = {name for name, value in merged.items() if (np.asarray(value) != np.asarray(base[name])).any()}
    assert changed <= of_groups(cfg, "vision", "patch_embed") and "layers.mlp.vision.up" in changed
    with pytest.raises(UserError, match=r"config\.lora\.rank=4, now it is 8"):
        train(config(work, "int8", base="int8", on="vision,patches", rank=8), work, quiet=True)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["dense", "moe", "rep"])
def test_other_variants_train_and_merge(work, variant):
    write_base(work, f"base_{variant}", 0, variant)
    c = config(work, f"run_{variant}", f"base_{variant}", dropout=0.1)
    c.model.variant, c.data.micro_batches = variant, 2
    folder = train(c, work, quiet=True)
    found = numbers(folder)
    assert found[-1]["loss"] < found[0]["loss"]
    merged = merge_adapters(folder, work / f"merged_{variant}", quiet=True)
    later = config(work, f"again_{variant}", merged.name, rank=0)
    later.model.variant, later.train.steps = variant, 2
    assert open_checkpoint(train(later, work, quiet=True)).cfg.lora is None


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"lora.on": "vison"}, r"config\.lora\.on='vison': unknown 'vison'; expected some of text, vision, patches"),
    ({"lora.rank": 1025}, r"config\.lora\.rank=1025"),
    ({"lora.base": "int4"}, r"config\.lora\.base='int4': expected int8, or nothing"),
    ({"lora.on": "vision", "model.variant": "dense"}, r"config\.lora\.on=vision: the model has no vision matrices"),
    ({"lora.on": "text", "optim.groups.text": 0.0}, r"config\.lora\.on=text, but config\.optim\.groups\.text=0"),
    ({"lora.on": "text", "optim.groups.vision": 2.0}, r"groups\.vision=2, but with config\.lora\.rank=4 nothing of"),
    ({"lora.base": "int8", "train.whole": True}, r"config\.train\.whole=True stores the base"),
    ({"init": "", "data.records": "x"}, r"config\.init is empty, but config\.lora\.rank=4: name the model"),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED)
def test_what_cannot_be_is_one_line(work, changes, says):
    c = config(work, "refused")
    for field, value in changes.items():
        c.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=says):
        Config.of(c).check_data()


def test_which_matrices_have_adapters(work):
    c = config(work, "some")
    c.stage = "2.1"
    assert adapted(Config.of(c).sizes).groups == ("patch_embed", "vision"), "what the stage trains"
    c.lora.on, c.lora.alpha = "text", 3.0
    given = Config.of(c)
    assert (adapted(given.sizes).groups, adapted(given.sizes).scale) == (("text",), 0.75)
    assert {group for group, factor in given.factors.items() if factor} == {"text"}
    c.lora.rank, c.lora.on, c.lora.alpha = 0, "", 0.0
    assert Config.of(c).sizes.lora is None


@pytest.mark.parametrize("arg", ["lora=16", "lora=16,llm=tiny"])
def test_the_argument_of_stages(arg):
    for module in (stage2_1, stage2_2, stage3):
        c = module.get_config(arg)
        assert (c.lora.rank, c.optim.lr) == (16, 2e-4)
    plain = stage3.get_config()
    for none in ("lora=0", "lora=00"):
        assert (stage3.get_config(none).lora.rank, stage3.get_config(none).optim.lr) == (0, plain.optim.lr)
    with pytest.raises(UserError, match="lora=many: expected the rank"):
        stage3.get_config("lora=many")


def test_the_compiled_step_holds_no_state_of_the_base(work):
    """Its arguments are adapters, two moments of each, the base and the batch; what it changes are the former."""
    given = Config.of(config(work, "compiled", base="int8"))
    mesh = make_mesh("fsdp:1", jax.devices()[:1])
    step = abstract_step(given, mesh, plan_work(given, mesh.shape, None, "mixed", rows=2))
    own = nbytes([step.state.trainable])
    assert nbytes([step.state.optimizer]) == pytest.approx(2 * own, abs=16)
    assert is_quantized(step.frozen["layers.mlp.vision.up"]) and nbytes([step.frozen]) > own
    (program,) = step.programs
    found = program.function.lower(*program.arguments).compile().memory_analysis()
    assert found.argument_size_in_bytes <= nbytes([step.state, step.frozen, step.batch]) + 64
    assert found.output_size_in_bytes <= 3 * own + 1024


DAMAGED: list[tuple[str, Any, str]] = [
    ("lora", 5, r"config\.json: lora=5: expected a section"),
    ("lora", {"rank": 4}, r"config\.json: lora\.alpha is missing"),
    ("optim", [], r"config\.json: optim\.groups=None: expected a section"),
    ("optim", {"groups": {"text": "x"}}, r"config\.json: optim\.groups=.*numbers"),
    ("stage", [], r"config\.json: stage=\[\]: expected a text"),
    ("seed", None, r"config\.json: seed=None: expected a whole number"),
]


@pytest.mark.parametrize(("field", "value", "says"), DAMAGED)
def test_a_damaged_config_is_one_line(work, tmp_path, field, value, says):
    c = json.loads(Config.of(config(work, "damaged")).to_json())
    (tmp_path / "config.json").write_text(json.dumps(c | {field: value}))
    with pytest.raises(UserError, match=says):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(c))
    assert open_checkpoint(tmp_path).cfg == Config.of(config(work, "damaged")).sizes
