"""Fields of `config.optim` that do not go together are refused in one line, before anything is made."""

import json
from typing import Any

import pytest

from configs import stage1, stage2_1, stage3
from eve_jax.config.optim import LATER_OPTIM
from eve_jax.config.stage import Config
from eve_jax.data.config import LATER_DATA
from eve_jax.errors import FieldError
from eve_jax.train.lineage import _settings


def checked(module: Any = stage3, arg: str = "llm=tiny", **fields: Any) -> Config:
    """The stage with other fields; those with a dot's place as `__`."""
    config = module.get_config(arg)
    for name, value in fields.items():
        section, _, field = name.rpartition("__")
        config[section or "optim"][field] = value
    return Config.of(config)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"warmup_steps": 5}, "config.optim.warmup=0.03 and config.optim.warmup_steps=5 are both set"),
        ({"min_lr": 1e-4}, "config.optim.min_lr=0.0001 is above the peak, config.optim.lr=1e-05"),
        (
            {"min_lr": 1e-6, "schedule": "constant"},
            "config.optim.min_lr=1e-06 goes with config.optim.schedule=cosine",
        ),
        ({"decay": 0.1}, "config.optim.decay=0.1 goes with config.optim.schedule=wsd alone, not with cosine"),
        ({"decay_shape": "sqrt", "schedule": "constant"}, "config.optim.decay_shape=sqrt goes with config.optim.sched"),
        ({"schedule": "wsd", "decay_shape": "exponential"}, "config.optim.decay_shape=exponential never reaches 0"),
        ({"schedule": "wsd", "warmup": 0.5, "decay": 0.6}, "are together more than all steps"),
        ({"momentum": 0.9}, "config.optim.momentum=0.9 goes with config.optim.rule=muon alone, not with adamw"),
        ({"warmup": 0.0, "warmup_steps": 9, "train__steps": 8}, "config.optim.warmup_steps=9: the run has 8 steps$"),
        (
            {"warmup": 0.0, "warmup_steps": 7, "train__steps": 8, "schedule": "wsd"},
            "config.optim.warmup_steps=7: the run has 8 steps, of which 2 are the decay's",
        ),
        (
            {"eval__ema": True, "eval__records": "a.jsonl"},
            "config.eval.ema=True, but no average of the weights",
        ),
        ({"eval__ema": True, "ema": 0.9}, "config.eval.ema=True, but there is nothing to evaluate"),
    ],
)
def test_fields_that_do_not_go_together(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(FieldError, match=says) as error:
        checked(**fields)
    assert "\n" not in str(error.value)


def test_muon_needs_a_matrix_of_the_layers() -> None:
    for module, arg in ((stage1, "llm=tiny"), (stage2_1, "llm=tiny,variant=rep")):
        with pytest.raises(FieldError, match="rule=muon is for matrices of the layers, and"):
            checked(module, arg, rule="muon")
    checked(stage2_1, rule="muon", momentum=0.9)
    with pytest.raises(FieldError, match=r"and config\.lora\.on=patches trains none"):
        checked(arg="llm=tiny,lora=4", rule="muon", lora__on="patches")
    checked(arg="llm=tiny,lora=4", rule="muon", lora__on="vision,patches")


def test_what_goes_together() -> None:
    checked(warmup=0.0, warmup_steps=6, train__steps=8, schedule="wsd", decay=0.25, decay_shape="cosine", min_lr=1e-6)
    checked(ema=0.999, eval__ema=True, eval__records="a.jsonl", moments="int8", loss_weights="sqrt", rule="muon")


def test_a_run_that_began_before_these_fields_goes_by_the_same_settings() -> None:
    """Their defaults are what was done before, so neither its settings nor its lineage change."""
    now = json.loads(checked().to_json())
    before = json.loads(checked().to_json())
    for section, later in (("optim", LATER_OPTIM), ("data", LATER_DATA)):
        assert now[section] == now[section] | dict(later)
        before[section] = {name: value for name, value in before[section].items() if name not in later}
    assert _settings(now) == _settings(before)
    assert "optim.moments" in _settings(json.loads(checked(moments="int8").to_json()))
