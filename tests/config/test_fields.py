"""Every field of a config refuses what it cannot have, in one line that names it, before anything is made."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pytest
from ml_collections import ConfigDict
from ml_collections.config_dict import required_placeholder

from configs import base, demo, demo_v1, engine_demo, evev1, evev2, fig10, stage3, v1_sft, variants
from eve_jax.config import stages
from eve_jax.config.stage import Config
from eve_jax.demo.config import RecipeConfig
from eve_jax.errors import FieldError, UserError
from eve_jax.process.section import section_of, typed_fields
from tests.config.fields import ALIGNED, changed, every_field, out_of_range, sections, values, wrong_types

FIELDS = every_field()
CHOICES = [f for f in FIELDS if f.rule.choices and f.kind is str]


def refused(path: str, value: Any) -> str:
    """The one line about the value at `path`."""
    with pytest.raises(UserError) as error:
        Config.of(ConfigDict(changed(path, value), type_safe=False))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_there_is_no_field_without_a_check() -> None:
    """A number has a range, and the page of fields and the dataclasses have the same fields."""
    assert len(CHOICES) >= 12
    for path, kind, rule in FIELDS:
        one = get_args(kind)[0] if get_origin(kind) is tuple else kind
        assert one is bool or one is str or rule.low > -float("inf"), path
        assert bool(out_of_range(kind, rule)) == (one in (int, float)), path
    page = base.get_config("tiny")
    for section in sections():
        names = {name for name, kind, _ in typed_fields(section) if section_of(kind) is None or section.PATH == ""}
        node = page
        for part in section.PATH.split(".")[:-1]:
            node = node.get(part, {})
        assert not node or set(node) == names, section


@pytest.mark.parametrize("field", FIELDS, ids=[f.path for f in FIELDS])
def test_wrong_types_and_numbers_out_of_range(field: Any) -> None:
    path, kind, rule = field
    for value in wrong_types(kind) + out_of_range(kind, rule):
        line = refused(path, value)
        assert line.startswith(f"config.{path}") and ("expected" in line or "config." in line), line
        assert repr(value) in line, line


def test_what_is_made_as_often_as_a_field_says_has_an_end() -> None:
    """Two thousand million processes, threads or rows would take the machine, not a line."""
    for path in ("data.rows", "data.micro_batches", "data.workers", "data.threads", "eval.rows"):
        assert refused(path, 100_000).startswith(f"config.{path}=100000: expected a whole number from ")


def test_float16_is_not_trained_in() -> None:
    """Gradients vanish in it without the scaling of the loss."""
    for path in ("model.dtype", "model.param_dtype"):
        assert refused(path, "float16").startswith(f"config.{path}='float16': expected one of float32, bfloat16")


def test_max_bad_is_a_share_or_a_number_of_records() -> None:
    assert refused("data.max_bad", 1.5) == (
        "config.data.max_bad=1.5: expected a share of the records (below 1) or a whole number of them"
    )
    for value in (0, 0.01, 1, 1000, 1000.0):
        assert Config.of(ConfigDict(changed("data.max_bad", value), type_safe=False)).data.max_bad == value


def test_texts_that_cannot_be_read() -> None:
    read = [f.path for f in FIELDS if f.rule.reads is not None]
    assert {"name", "mesh", "data.repeats", "data.weights", "profile.steps"} <= set(read)
    for path in read:
        assert refused(path, "?/?").startswith(f"config.{path}='?/?'")


@pytest.mark.parametrize("section", list(sections()), ids=lambda s: s.PATH or "config")
def test_unknown_fields_are_refused_with_the_one_that_is_near(section: Any) -> None:
    for name, kind, _ in typed_fields(section):
        wrong = f"{name}s"
        if wrong in (known for known, _, _ in typed_fields(section)):
            continue
        value: Any = {} if section_of(kind) else 1
        line = refused(section.PATH + wrong, value)
        assert f"there is no field config.{section.PATH}{wrong}; did you mean config.{section.PATH}{name}?" in line


def test_unknown_fields_of_another_section_and_of_groups() -> None:
    assert refused("lr", 1.0) == "there is no field config.lr; did you mean config.optim.lr?"
    line = refused("optim.groups", {"vison": 1.0})
    assert line.startswith("there is no field config.optim.groups.vison: expected one of patch_embed, vision")
    assert line.endswith("did you mean vision?")


def test_missing_fields_are_named() -> None:
    for path in ("seed", "data.rows", "model.remat", "optim.lr", "train", "model.teacher.image_size"):
        found = changed(path, None)
        node = found
        for name in path.split(".")[:-1]:
            node = node[name]
        del node[path.split(".")[-1]]
        with pytest.raises(FieldError, match=rf"config\.{path} is missing; begin with get_config of configs/base\.py"):
            Config.of(ConfigDict(found))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data.long": "shrink_image"}, "config.data.long=shrink_image does not go with config.data.image_mode=square"),
        ({"data.repeats": "1", "data.weights": "1"}, "config.data.repeats and config.data.weights are both set"),
        ({"data.image_mode": "anyratio_ld"}, "config.data.image_mode=anyratio_ld: the aligning loss requires square"),
        ({"data.teacher": (336, 28)}, r"config.data.teacher=\(336, 28\), but config.model.teacher sees \(336, 14\)"),
        ({"data.patch": 32, "data.max_size": 768}, "config.data.patch=32 is not twice config.model.sub_patch=14"),
        ({"data.max_size": 700}, "config.data.max_size: 700 pixels are not a multiple"),
        ({"data.max_aspect": 0.5}, "config.data.max_aspect=0.5: expected 0 or a number of at least 1"),
        ({"stage": "2.1"}, r"the model has none \(config.model.variant=dense\)"),
        ({"optim.groups": dict.fromkeys(stages.NEW, 0.0)}, "config.optim.groups freezes every group"),
        (
            {"model.parts": "mlp,slef_attn"},
            "config.model.parts='mlp,slef_attn': unknown part 'slef_attn'; .*did you mean self_attn",
        ),
        ({"model.parts": "delta,mlp"}, "config.model.parts=.*: delta goes with no other part"),
        ({"model.num_kv_heads": 3}, "config.model.num_heads=4 is not a multiple of config.model.num_kv_heads=3"),
        ({"model.patch_hidden": 12}, "config.model.patch_hidden=12: expected a multiple of the 8 heads"),
        ({"model.teacher.patch_size": 13}, "config.model.teacher.image_size=336 is not a multiple of config.model.t"),
        ({"model.align_width": 8}, "config.model.align_weight is above 0, but"),
        ({"model.rope_scaling": (8.0,)}, r"config.model.rope_scaling=\(8.0,\): expected \(\) or 4 numbers"),
        *(
            ({f"lora.{name}": value}, rf"config.lora.{name}={value} is for adapters, .* give .* as config.lora.rank")
            for name, value in {"alpha": 8.0, "on": "text,vision", "dropout": 0.1, "base": "int8"}.items()
        ),
        ({"lora.rank": 2, "lora.on": "text,text"}, "config.lora.on='text,text' names text more than once"),
        ({"mesh": "fsdp:-1,data:-1"}, "config.mesh='fsdp:-1,data:-1': only one size may be -1"),
        ({"mesh": "fdsp:2"}, "config.mesh='fdsp:2': 'fdsp:2' is not AXIS:SIZE with an axis of data, fsdp, tensor"),
        ({"mesh": "fsdp:2,fsdp:2"}, "config.mesh='fsdp:2,fsdp:2' names fsdp twice"),
    ],
)
def test_fields_that_do_not_go_together(changes: dict[str, Any], says: str) -> None:
    found = ConfigDict(values(), type_safe=False)
    for path, value in changes.items():
        section, _, name = path.rpartition(".")
        node = found
        for part in filter(None, section.split(".")):
            node = node[part]
        node[name] = value
    with pytest.raises(FieldError, match=says):
        Config.of(found)


def test_what_training_needs_beyond_that() -> None:
    config = Config.of(ConfigDict(changed("data.records", " ,")))
    with pytest.raises(FieldError, match=r"config\.data\.records is empty"):
        config.check_data()
    config = Config.of(ConfigDict(changed("data.records", "a.jsonl")))
    with pytest.raises(FieldError, match=r"config\.data\.tokenizer is empty"):
        config.check_data()


def test_values_stay_what_they_are() -> None:
    """config.json is what a ConfigDict writes; NumPy's numbers become Python's."""
    for config in (stage3.get_config("llm=tiny"), v1_sft.get_config(), ConfigDict(values())):
        assert json.loads(Config.of(config).to_json()) == json.loads(config.to_json())
    config = ConfigDict(stage3.get_config("llm=tiny").to_dict(), type_safe=False)
    config.optim.lr, config.data.rows, config.data.max_aspect = 1, np.int64(8), 3
    checked = Config.of(config)
    assert (checked.optim.lr, checked.data.rows, checked.data.max_aspect) == (1, 8, 3)
    assert json.loads(checked.to_json())["data"]["rows"] == 8
    assert Config.of(checked) is checked
    config.data.records = required_placeholder(str)
    with pytest.raises(UserError, match=r"config.data.records must be given: it is a required placeholder"):
        Config.of(config)


@pytest.mark.parametrize("module", [demo, demo_v1, engine_demo, evev1, evev2, fig10, variants])
def test_every_recipe_is_checked_as_a_whole(module: Any) -> None:
    config = module.get_config()
    recipe = RecipeConfig.of(config)
    assert recipe.order == tuple(config.order)
    for name, stage in recipe.stages.items():
        assert json.loads(stage.to_json()) == json.loads(config.stages[name].to_json())
    last = config.order[-1]
    config.stages[last].data.image_mode = "anyratio"
    with pytest.raises(
        UserError, match=rf"config.stages.{last}.data.image_mode='anyratio': expected one of anyratio_ld"
    ):
        RecipeConfig.of(config)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("demo.size", "tinny", "config.demo.size='tinny': expected one of full, tiny; did you mean tiny?"),
        ("demo.answer_batch", 0, "config.demo.answer_batch=0: expected a whole number of at least 1"),
        ("demo.settings", {"kinds": 99}, "config.demo.settings.kinds=99: expected a whole number from 8 to 48"),
        ("demo.settings", {"kind": 9}, "there is no field config.demo.settings.kind; did you mean config.demo.sett"),
        (
            "compare.variants",
            ("dense", "dca"),
            "config.compare.variants=('dense', 'dca'): expected a list, each one of",
        ),
        ("compare.llm", "llm_cat", "config.compare.llm='llm_cat': expected one of llm, llm_chat"),
        ("compare.stages", ("captions", "x"), "config.compare.stages: there is no stage 'dense_x'"),
        ("order", ("stage9",), "config.order names stages that variants does not have: 'stage9'"),
        ("stages", 3, "config.stages=3: expected a section"),
        ("oder", 3, "there is no field config.oder; did you mean config.order?"),
    ],
)
def test_wrong_fields_of_a_recipe(path: str, value: Any, says: str) -> None:
    found = variants.get_config("tiny").to_dict()
    section, _, name = path.rpartition(".")
    (found[section] if section else found)[name] = value
    with pytest.raises(UserError) as error:
        RecipeConfig.of(ConfigDict(found, type_safe=False))
    assert str(error.value).startswith(says)


def named(path: str) -> str:
    """A config that has the field."""
    return "ve:stage=1,llm=tiny" if path.startswith("model.encoder.") else ALIGNED


DOOR = """
import json, os, sys
import eve_jax.config.stage, eve_jax.train.report, eve_jax.train.trainer, launch.train  # once, before all forks
from launch._flags import run

def enter(arguments):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 2)
        sys.argv = ["launch.train", *arguments]
        try:
            run(launch.train.main)
        except SystemExit as end:
            os._exit(end.code or 0)
        os._exit(99)
    os.close(write)
    with open(read) as text:
        said = text.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said, os.path.exists("work")

print(json.dumps([enter(arguments) for arguments in json.load(sys.stdin)]))
"""


def at_the_door(cases: list[list[str]], folder: Path) -> list[tuple[int, str, bool]]:
    """Status, stderr and whether there is a work folder after `launch.train` with each of `cases`, from `folder`."""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DOOR],
        input=json.dumps(cases),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_typo_anywhere_is_one_line_and_leaves_no_folder(tmp_path: Path, every: int) -> None:
    """By `launch.train` itself: every choice, every text that is read, numbers, and some types and names."""
    cases: list[tuple[str, str, tuple[str, ...]]] = [
        (f.path, f"{[*f.rule.choices][-1]}x", (*f.rule.choices,)) for f in CHOICES
    ]
    cases += [(f.path, "?/?", ()) for f in FIELDS if f.rule.reads is not None]
    numbers = [(f.path, str(out_of_range(f.kind, f.rule)[0]), ()) for f in FIELDS if f.kind in (int, float)]
    cases += numbers[::every]
    cases += [("model.parts", "mlp,slef_attn", ("layernorm", "self_attn", "mlp")), ("data.teacher", "(0, 14)", ())]
    cases += [(path, "maybe", ()) for path in ("data.rows", "optim.lr", "data.image_first", "optim.groups.text")]
    cases += [(f"{section.PATH}nonsense", "1", ("there is no field",)) for section in sections()]
    given = [[f"--config={named(path)}", "--workdir=work", f"--config.{path}={value}"] for path, value, _ in cases]
    for (path, value, words), (status, said, made) in zip(cases, at_the_door(given, tmp_path), strict=True):
        assert (status, made, said.count("\n")) == (1, False, 1), (path, value, said)
        assert said.startswith("error: ") and f"config.{path}" in said, said
        assert all(word in said for word in words), said
        assert value in said or path.endswith("nonsense"), said
    assert not list(tmp_path.iterdir())
