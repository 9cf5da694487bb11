"""The recipes of experiments: their trees of stages, what trains, what it costs at every size; nothing is trained."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import fig5, fig5_parts
from eve_jax import recipe
from eve_jax.config.stage import Config
from eve_jax.demo.config import RecipeConfig
from eve_jax.errors import UserError
from eve_jax.experiments.cost import cost_lines, costs


def made(module: Any, arg: str = "") -> RecipeConfig:
    """The recipe with weights and tokenizers of the hub left out, which are not fetched here."""
    config = module.get_config(arg)
    for stage in config.stages.values():
        stage.init = "" if stage.init.startswith("hf:") else stage.init
        stage.data.tokenizer = "" if stage.data.tokenizer.startswith("hf:") else stage.data.tokenizer
    return RecipeConfig.of(config)


def stages(config: RecipeConfig) -> list[Config]:
    return [config.stages[name] for name in config.order]


def test_the_tree_of_fig5() -> None:
    config = made(fig5, "seeds=2,points=3,of=dense+dac")
    trunk, first = config.order[:3], config.order[3:7]
    assert trunk == ("llm", "llm_chat", "stage1")
    assert first == ("dense_0_captions", "dense_0_questions_200", "dense_0_questions_400", "dense_0_questions")
    starts = {stage.name: stage.init for stage in stages(config)}
    assert [starts[name] for name in first] == [
        "WORKDIR/stage1",
        *("WORKDIR/dense_0_captions@200", "WORKDIR/dense_0_captions@400", "WORKDIR/dense_0_captions"),
    ]
    assert config.order[7] == "dac_0_captions" and config.order[11] == "dense_1_captions", "seed by seed"
    captions = config.stages["dac_1_captions"]
    assert (captions.train.save_every, captions.train.keep_every, captions.train.keep) == (200, 200, 1)
    assert [point.scored for point in config.experiment.points[:3]] == list(first[1:])


def test_arms_of_a_seed_differ_in_their_weights_alone() -> None:
    config = made(fig5_parts)
    for kind in ("captions", "questions"):
        each = [json.loads(config.stages[f"{arm}_1_{kind}"].to_json()) for arm in fig5_parts.ARMS]
        assert [c["model"].pop("parts") for c in each] == list(fig5_parts.PARTS.values())
        trained = [c.pop("stage") for c in each]
        assert trained == (["1", *["2.1"] * 7] if kind == "captions" else ["2.2"] * 8)
        for c in each:
            del c["name"], c["init"]
        assert all(c == each[0] for c in each)
        other = json.loads(config.stages[f"dac_2_{kind}"].to_json())
        assert (other["seed"], each[0]["seed"]) == (2, 1)


def test_what_captions_train() -> None:
    found = {one.kind: one for one in costs(made(fig5).experiment, stages(made(fig5))[:3])}
    assert found["stage1"].trainable < found["stage1"].parameters / 5
    by_arm = dict(zip(fig5.ARMS, stages(made(fig5, "seeds=1"))[3::2], strict=True))
    config = made(fig5, "seeds=1")
    trains = {arm: costs(config.experiment, [stage])[0].trainable for arm, stage in by_arm.items()}
    assert trains["dense"] == found["stage1"].trainable, "the patch embedding alone"
    assert trains["dense"] < trains["rep"] < trains["moe"] < trains["dac"]
    assert trains["dense_all"] == found["llm"].parameters


@pytest.mark.parametrize(
    ("module", "arg", "arms", "parameters", "flops"),
    [
        (fig5, "size=1.5b", "dense+dac", (1.551e9, 2.861e9), 6.86e19),
        (fig5, "llm=qwen2.5-1.5b", "dac", (1.551e9, 2.861e9), 4.69e19),
        (fig5, "size=paper", "dense+dac", (7.631e9, 14.157e9), 6.70e20),
        (fig5_parts, "size=paper", "layernorm+self_attn", (7.631e9, 8.453e9), 6.10e20),
    ],
)
def test_parameters_and_cost_of_the_real_sizes(
    module: Any, arg: str, arms: str, parameters: tuple[float, float], flops: float
) -> None:
    config = made(module, f"{arg},of={arms}")
    found = costs(config.experiment, stages(config))
    assert min(one.parameters for one in found) == pytest.approx(parameters[0], rel=1e-3)
    assert max(one.parameters for one in found) == pytest.approx(parameters[1], rel=1e-3)
    assert sum(one.flops for one in found) == pytest.approx(flops, rel=0.01)
    text = "\n".join(cost_lines(config.experiment, stages(config)))
    assert re.search(r"hours of one chip at 40% of its peak: v5e [\d,]+, v6e [\d,]+, H100 [\d,]+;", text)


def test_the_cost_by_arithmetic() -> None:
    """Two FLOPs a token and weight of its own kind, twice where the layers are frozen, three times where they train."""
    layers = 28 * (1536 * (1536 + 2 * 256) + 1536 * 1536 + 3 * 1536 * 8960)
    config = made(fig5, "size=1.5b,of=dac")
    stage1, captions, sft = (one.flops for one in costs(config.experiment, stages(config)))
    vision, text = 4e6 * (625 + 26), 4e6 * 150
    assert stage1 == pytest.approx(2 * layers * 2 * (vision + text), rel=0.1), "the head and attention come to it"
    assert captions == pytest.approx(2 * layers * (3 * vision + 2 * text), rel=0.1)
    assert sft == pytest.approx(2 * layers * 3 * 665e3 * (300 + 16 + 300), rel=0.1)


def test_samples_of_the_real_sizes() -> None:
    for arg, captions in (("size=1.5b", 4e6), ("size=paper", 8e6)):
        config = made(fig5, f"{arg},of=dac")
        found = {one.kind: one for one in costs(config.experiment, stages(config))}
        assert found["captions"].samples == pytest.approx(captions, rel=0.02)
        assert found["sft"].samples == pytest.approx(665e3, rel=0.02)


def test_the_weights_of_a_real_size() -> None:
    config = fig5.get_config("llm=qwen2.5-1.5b,of=dac")
    assert config.stages.stage1.init == config.stages.dac_0_sft.data.tokenizer == "hf:Qwen/Qwen2.5-1.5B"
    assert config.stages.dac_0_captions.init == "WORKDIR/stage1"


@pytest.mark.parametrize(
    ("arg", "says"),
    [
        ("of=dac+v3", "unknown arm 'v3'; known: dense, rep, moe, dac, dense_all"),
        ("size=7b", "size=7b: expected one of demo, 1.5b, paper"),
        ("tiny,size=paper", "tiny does not go with size=paper"),
        ("size=demo,llm=qwen2.5-7b", "llm=qwen2.5-7b does not go with size=demo"),
        ("seeds=0", "seeds=0: expected a number from 1 to 100"),
        ("tiny,points=9", "points=9: there are only 8 steps"),
        ("seed=3", "unknown argument 'seed'"),
    ],
)
def test_wrong_arguments(arg: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        fig5.get_config(arg)


def test_the_cost_is_printed_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = fig5.get_config("tiny,of=dac")
    config.stages.llm.data.records = "nowhere.jsonl"
    with pytest.raises(UserError, match=r"nowhere\.jsonl"):
        recipe.run_recipe(config, tmp_path / "work")
    assert not (tmp_path / "work").exists()
    assert "on 2 free cores about" in capsys.readouterr().out
    config = ConfigDict(config)
    config.stages.llm.train.steps = 0
    with pytest.raises(UserError, match=r"config\.train\.steps=0: the cost"):
        recipe.run_recipe(config, tmp_path / "work")
