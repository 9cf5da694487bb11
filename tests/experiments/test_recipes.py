"""The recipes of experiments: their trees of stages, what trains, what it costs at every size; nothing is trained."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import fig2, fig5, fig5_parts, fig6, fig7, fig8, fig9, fig10, stage1, tree, v1_parts
from eve_jax import recipe
from eve_jax.data.image.rule import ImageRule
from eve_jax.errors import UserError
from eve_jax.experiments.cost import cost_lines, costs
from launch._configs import stage_named
from tests.experiments.recipes import made, section, stages


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
    assert [point.scored for point in section(config).points[:3]] == list(first[1:])


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
    found = {one.kind: one for one in costs(section(made(fig5)), stages(made(fig5))[:3])}
    assert found["stage1"].trainable < found["stage1"].parameters / 5
    by_arm = dict(zip(fig5.ARMS, stages(made(fig5, "seeds=1"))[3::2], strict=True))
    config = made(fig5, "seeds=1")
    trains = {arm: costs(section(config), [stage])[0].trainable for arm, stage in by_arm.items()}
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
        (fig2, "size=1.5b", "ve", (1.853e9, 1.853e9), 4.35e19),
        (fig2, "size=paper", "ve+dt+eve", (6.756e9, 7.063e9), 4.47e21),
        (fig7, "size=1.5b", "eve_cap+mono_recap+llava_recap+evev2_cap", (1.551e9, 2.861e9), 1.83e20),
        (fig7, "size=paper", "llava_cap+evev2_recap", (7.631e9, 14.157e9), 3.29e21),
        (fig6, "size=1.5b", "laion_raw+los_recap", (1.551e9, 1.551e9), 9.8e19),
        (fig6, "size=paper", "laion_raw", (6.756e9, 6.756e9), 4.8e20),
        (fig8, "size=1.5b", "7-2-1", (1.551e9, 1.551e9), 4.9e19),
        (fig8, "size=paper", "7-2-1+10-0-0", (6.756e9, 6.756e9), 7.5e20),
        (fig9, "size=1.5b", "stage2_2", (1.551e9, 2.861e9), 1.50e21),
        (fig9, "size=paper", "stage1+stage2_1+stage2_2", (7.631e9, 14.157e9), 7.2e21),
        (fig10, "size=1.5b", "hd", (1.551e9, 1.551e9), 1.63e20),
        (v1_parts, "size=1.5b", "eve+no_pal+no_stage1", (1.557e9, 1.877e9), 2.6e19),
        (v1_parts, "size=paper", "eve+no_pal+no_stage1", (6.768e9, 7.115e9), 5.3e20),
        (fig10, "size=paper", "maxl+ld+hd+anyresolution", (6.756e9, 6.756e9), 3.19e21),
    ],
)
def test_parameters_and_cost_of_the_real_sizes(
    module: Any, arg: str, arms: str, parameters: tuple[float, float], flops: float
) -> None:
    config = made(module, f"{arg},of={arms}")
    found = costs(section(config), stages(config))
    assert min(one.parameters for one in found) == pytest.approx(parameters[0], rel=1e-3)
    assert max(one.parameters for one in found) == pytest.approx(parameters[1], rel=1e-3)
    assert sum(one.flops for one in found) == pytest.approx(flops, rel=0.02)
    text = "\n".join(cost_lines(section(config), stages(config)))
    assert re.search(r"hours of one chip at 40% of its peak: v5e [\d,]+, v6e [\d,]+, H100 [\d,]+;", text)


def test_the_cost_by_arithmetic() -> None:
    """Two FLOPs a token and weight of its own kind, twice where the layers are frozen, three times where they train."""
    layers = 28 * (1536 * (1536 + 2 * 256) + 1536 * 1536 + 3 * 1536 * 8960)
    config = made(fig5, "size=1.5b,of=dac")
    first, captions, sft = (one.flops for one in costs(section(config), stages(config)))
    vision, text = 4e6 * (625 + 26), 4e6 * 150
    assert first == pytest.approx(2 * layers * 2 * (vision + text), rel=0.1), "the head and attention come to it"
    assert captions == pytest.approx(2 * layers * (3 * vision + 2 * text), rel=0.1)
    assert sft == pytest.approx(2 * layers * 3 * 665e3 * (300 + 16 + 300), rel=0.1)


def test_samples_of_the_real_sizes() -> None:
    for arg, captions in (("size=1.5b", 4e6), ("size=paper", 8e6)):
        config = made(fig5, f"{arg},of=dac")
        found = {one.kind: one for one in costs(section(config), stages(config))}
        assert found["captions"].samples == pytest.approx(captions, rel=0.02)
        assert found["sft"].samples == pytest.approx(665e3, rel=0.02)


def test_the_weights_of_a_real_size() -> None:
    config = fig5.get_config("llm=qwen2.5-1.5b,of=dac")
    assert config.stages.stage1.init == config.stages.dac_0_sft.data.tokenizer == "hf:Qwen/Qwen2.5-1.5B"
    assert config.stages.dac_0_captions.init == "WORKDIR/stage1"
    config = v1_parts.get_config("size=1.5b")
    begins = {"eve_0_prealign", "no_pal_0_prealign", "no_stage1_0_pretrain"}
    assert {name for name in config.order if config.stages[name].init == "hf:Qwen/Qwen2.5-1.5B"} == begins
    assert all(config.stages[name].init.startswith("WORKDIR/") for name in {*config.order} - begins)


@pytest.mark.parametrize(
    ("module", "arg", "stage"),
    [(fig6, "size=paper", "laion_raw_0_stage1"), (fig8, "size=paper", "stage1"), (v1_parts, "size=paper,of=eve", "")],
)
def test_an_experiment_is_refused_without_the_weights_of_its_llm(
    module: Any, arg: str, stage: str, tmp_path: Path
) -> None:
    config = module.get_config(arg)
    for one in config.stages.values():
        one.data.tokenizer = "somewhere"
    name = stage or "eve_0_prealign"
    with pytest.raises(UserError, match=rf"config\.stages\.{name}\.init is empty: .* llm=FOLDER"):
        recipe.run_recipe(config, tmp_path / "work")


def test_no_arm_starts_where_another_ended() -> None:
    experiment = section(made(fig5, "of=dac"))
    experiment.check_start("stage1", "", first=False)
    with pytest.raises(UserError, match=r"config\.init is empty"):
        experiment.check_start("dac_1_captions", "", first=False)


@pytest.mark.parametrize(
    ("arg", "says"),
    [
        ("of=dac+v3", "unknown arm 'v3'; known: dense, rep, moe, dac, dense_all"),
        ("size=7b", "size=7b: expected one of demo, 1.5b, paper"),
        ("tiny,size=paper", "tiny does not go with size=paper"),
        ("size=demo,llm=qwen2.5-7b", "llm=qwen2.5-7b does not go with size=demo"),
        ("tiny,llm=qwen2.5-7b", "llm=qwen2.5-7b does not go with size=demo"),
        ("data=records", "data=records does not go with size=demo"),
        ("bench=folder", "bench=folder does not go with size=demo"),
        ("seeds=0", "seeds=0: expected a number from 1 to 100"),
        ("tiny,points=9", "points=9: there are only 8 steps"),
        ("seed=3", "unknown argument 'seed'"),
    ],
)
def test_wrong_arguments(arg: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        fig5.get_config(arg)


def test_a_stage_of_a_recipe_is_named() -> None:
    config = fig5.get_config("size=1.5b,of=dac")
    assert stage_named(config, "dac_0_sft") is config.stages.dac_0_sft
    single = stage1.get_config()
    assert stage_named(single, "") is single
    for given, name, says in (
        (config, "", "fig5 is a recipe of several stages: name one, --stage=stage1, dac_0_captions, dac_0_sft"),
        (config, "dac_0_sfft", "--stage=dac_0_sfft is not one of stage1, .*; did you mean dac_0_sft"),
        (single, "sft", "--stage=sft: stage1 is one stage, not a recipe"),
    ):
        with pytest.raises(UserError, match=says):
            stage_named(given, name)


def test_the_cost_is_printed_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = fig5.get_config("tiny,of=dac")
    config.stages.llm.data.records = "nowhere.jsonl"
    with pytest.raises(UserError, match=r"nowhere\.jsonl"):
        recipe.run_recipe(config, tmp_path / "work")
    assert not (tmp_path / "work").exists()
    assert "on one free core about" in capsys.readouterr().out
    config = ConfigDict(config)
    config.stages.llm.train.steps = 0
    with pytest.raises(UserError, match=r"config\.stages\.llm\.train\.steps=0: the cost"):
        recipe.run_recipe(config, tmp_path / "work")


def test_the_mixtures_of_fig8() -> None:
    config = made(fig8, "seeds=1")
    found = {arm: config.stages[f"{arm}_0_captions"].data for arm in fig8.ARMS}
    assert found["7-2-1"].records.split(",") == [
        "WORKDIR/data/captions.jsonl",
        "WORKDIR/data/llm.jsonl",
        "WORKDIR/captions/web.jsonl",
    ]
    assert {arm: data.weights for arm, data in found.items()} == {
        **{"0-0-10": "", "10-0-0": "", "3-7-0": "3:7", "5-5-0": "5:5", "7-3-0": "7:3", "7-2-1": "7:2:1"}
    }
    assert (found["0-0-10"].records, found["10-0-0"].records) == (
        "WORKDIR/captions/web.jsonl",
        "WORKDIR/data/captions.jsonl",
    )
    assert config.demo is not None and config.demo.caption_sets
    assert config.stages["7-2-1_0_captions"].stage == "2.2", "everything trains"


def test_the_sources_of_fig6() -> None:
    config = made(fig6, "seeds=1")
    records = [config.stages[f"{arm}_0_{kind}"].data.records for arm in fig6.DEMO for kind in ("stage1", "captions")]
    assert records == [f"WORKDIR/{file}" for file in fig6.RECORDS.values() for _ in range(2)]
    assert config.stages["web_0_stage1"].init == "WORKDIR/llm_chat"
    assert config.stages["cap_0_questions"].data.records == "WORKDIR/data/questions.jsonl"
    assert tuple(section(made(fig6, "size=1.5b")).arms) == tuple(fig6.REAL)
    with pytest.raises(UserError, match=r"size=demo has no arm 'los_cap'; it has web, cap, recap"):
        fig6.get_config("of=los_cap")


@pytest.mark.parametrize("size", ["demo", "paper"])
def test_the_modes_of_fig10_are_four(size: str) -> None:
    config = made(fig10, f"size={size},seeds=1")
    rules = [ImageRule.of(config.stages[f"{arm}_0_captions"].data) for arm in fig10.ARMS]
    image = (200, 100) if size == "demo" else (1920, 1080)
    assert len({rule.resized(*image) for rule in rules}) == 4
    per_step: dict[str, list[float]] = {}
    for stage in stages(config):
        if (kind := section(config).kind(stage.name)) in ("stage1", "captions", "questions", "sft"):
            cost = costs(section(config), [stage])[0]
            per_step.setdefault(kind, []).append(cost.samples / stage.train.steps)
    assert all(max(found) < 1.5 * min(found) for found in per_step.values()), "as many samples a step in every mode"


def test_fig9_fine_tunes_from_the_stages_of_the_recipe() -> None:
    for size in ("demo", "paper"):
        config = made(fig9, f"size={size},seeds=1")
        assert config.order[-3:] == ("stage1_0_sft", "stage2_1_0_sft", "stage2_2_0_sft")
        assert [config.stages[name].init for name in config.order[-3:]] == [f"WORKDIR/{arm}" for arm in fig9.ARMS]
    assert {point.trained for point in section(config).points} == {""}
    with pytest.raises(UserError, match="leave out points"):
        fig9.get_config("points=3")


def test_every_recipe_says_how_it_is_not_the_papers() -> None:
    for module in (fig2, fig5, fig5_parts, fig6, fig7, fig8, fig9, fig10, v1_parts):
        for size in tree.SIZES:
            config = made(module, f"size={size}")
            assert section(config).deviations
            said = " ".join(section(config).deviations)
            protocol = {"eve": "EVEv1's", "lmms": "lmms-eval's"}[section(config).protocol]
            assert size == "demo" or f"under {protocol} protocol" in said
            for stage in stages(config) if size != "demo" else ():
                assert stage.data.rows % 8 == 0 and stage.data.rows // 8 * stage.data.row_tokens <= 16_384, stage.name
            assert section(config).answers == ("WORKDIR/data/heldout.jsonl" if size == "demo" else "")
            text = re.sub(r"\s+", " ", str(module.__doc__))
            assert "paper" in text and f"--config={config.name}" in text
