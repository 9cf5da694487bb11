"""`launch.curate plan`: what a sample says of all records, and what captions cost."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.curate import get_config
from eve_jax.curate.config import CurateConfig, PlanConfig
from eve_jax.curate.plan.groups import copies_in_all
from eve_jax.curate.plan.pilot import caption_cost
from eve_jax.curate.plan.plan import lines, plan_of
from eve_jax.curate.plan.sample import Prediction, predict
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from tests.curate.web import curated, plain, scene, tiny, write_web


def settings(**changes: Any) -> PlanConfig:
    return PlanConfig.from_values(get_config().plan.to_dict() | changes)


def pilot_folder(folder: Path, **usage: float) -> str:
    folder.mkdir()
    (folder / "funnel.json").write_text(
        json.dumps({"in": 210, "kept": 190, "rejected": {"read": {"image": 10}}, "again": 20})
    )
    found = {"requests": 230, "prompt_tokens": 161_000, "tokens": 20_000, "busy_seconds": 100.0} | usage
    (folder / "usage.json").write_text(json.dumps(found))
    return str(folder)


def test_a_complete_sample_predicts_the_very_funnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [(f"s{n}", scene(n), f"the scene number {n} of a long series of them") for n in range(30)]
    images += [(f"small{n}", scene(40 + n, (60, 50)), "an image that is too small") for n in range(4)]
    images += [(f"copy{n}", scene(n, (110, 83)), f"another title of what is shown, {n * 7}") for n in range(3)]
    images += [("same", scene(50), "the scene number 5 of a long series of them")]
    source = write_web(tmp_path, images)
    plain(monkeypatch)
    config = tiny(select__rule="all", select__clusters=0, embed__kind="none")
    funnel = curated(config, source, tmp_path / "out")
    found = predict(config, open_records(*source), 1000)
    actual = {(stage["stage"], rule): count for stage in funnel["stages"] for rule, count in stage["rejected"].items()}
    assert found.losses == actual and found.kept == funnel["kept"]
    assert (found.records, found.sampled) == (38, 38)
    assert not found.notes


def test_a_sample_stands_for_all(tmp_path: Path) -> None:
    images = [(f"s{n}", scene(n, (60, 50) if n % 4 == 0 else (120, 90)), f"scene {n} " * 3) for n in range(120)]
    config = tiny(select__rule="all", select__clusters=0, embed__kind="none")
    found = predict(config, open_records(*write_web(tmp_path, images)), 60)
    assert (found.records, found.sampled) == (120, 60)
    assert found.losses["filter", "short_edge"] == pytest.approx(30, abs=10)  # 3 standard deviations of the draw
    assert found.losses["filter", "short_edge"] % 2 == 0  # each of the sample stands for two
    assert found.kept == 120 - sum(found.losses.values())


def test_a_selection_is_predicted_or_bounded(tmp_path: Path) -> None:
    images = [(f"s{n}", scene(n), f"the scene number {n} of a long series of them") for n in range(48)]
    records = open_records(*write_web(tmp_path, images))
    for rule, kept in (("random:10", 10), ("balanced:10", 10), ("random:1000", 48)):
        assert predict(tiny(select__rule=rule), records, 100).kept == kept
    by_cluster = predict(tiny(select__rule="nearest:3"), records, 100)
    assert by_cluster.kept == 12 and not by_cluster.notes
    many = predict(tiny(select__rule="nearest:2", select__clusters=20), records, 100)
    assert many.kept == 40 and "20 clusters need a larger sample" in many.notes[0]
    semantic = predict(tiny(dedup__semantic=0.1), records, 100)
    assert semantic.notes == ["what config.dedup.semantic leaves out is not predicted"]


def test_nothing_left_of_a_sample_is_said(tmp_path: Path) -> None:
    records = open_records(*write_web(tmp_path, [("a", scene(1, (60, 50)), "an image that is too small")]))
    found = predict(tiny(), records, 10)
    assert found.kept == 0 and "nothing of the sample is left" in found.notes[0]


def test_copies_in_a_sample_stand_for_more_of_them() -> None:
    rng = np.random.default_rng(0)
    pairs, records, size = 300, 4000, 1000  # rows 2k and 2k + 1 are copies, for k < pairs
    estimates = []
    for _ in range(200):
        chosen = np.sort(rng.choice(records, size, replace=False))
        spare = np.full(size, -1, np.int64)
        for place in range(1, size):
            if chosen[place] % 2 and chosen[place] < 2 * pairs and chosen[place - 1] == chosen[place] - 1:
                spare[place] = place - 1
        estimates.append(copies_in_all(spare, size / records))
    assert np.mean(estimates) == pytest.approx(pairs, rel=0.05)
    three = np.array([-1, 0, 0, -1, 3, -1])  # a group of three, a pair
    assert copies_in_all(three, 0.5) == 2 / 0.5 + 1 / 0.25
    assert copies_in_all(three, 1.0) == 3


def test_a_pilot_says_what_captions_cost(tmp_path: Path) -> None:
    cost = caption_cost(settings(pilot=pilot_folder(tmp_path / "pilot"), gpus=2.0))
    assert (cost.requests, cost.prompt_tokens, cost.answer_tokens, cost.kept) == (1.15, 805, 100, 0.95)
    assert cost.per_gpu_day == 200 * 864 / 2
    assert "measured on 200 records" in cost.source
    assumed = caption_cost(settings())
    assert (assumed.requests, assumed.answer_tokens, assumed.per_gpu_day) == (1, 250, 87_500)
    assert "assumed" in assumed.source and "config.plan.pilot" in assumed.source


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"funnel\.json: no such file"),
        ({"funnel.json": {"in": 3}, "usage.json": {}}, r"config\.plan\.pilot=.*lacks 'rejected'"),
        (
            {
                "funnel.json": {"in": 2, "kept": 0, "rejected": {"read": {"image": 2}}},
                "usage.json": {"requests": 0, "prompt_tokens": 0, "tokens": 0, "busy_seconds": 0},
            },
            "nothing was captioned there",
        ),
    ],
)
def test_a_folder_that_is_no_pilot_is_refused(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        caption_cost(settings(pilot=str(tmp_path)))


def test_the_plan_multiplies_what_is_left(tmp_path: Path) -> None:
    config = get_config()
    config.embed.kind = "lite0"
    config.plan.pilot = pilot_folder(tmp_path / "pilot")
    config.plan.gpu_hour, config.plan.prompt_price, config.plan.answer_price = 2.0, 0.5, 1.5
    checked = CurateConfig.of(config)
    found = Prediction(1_000_000, 1000, {("filter", "short_edge"): 600_000.0}, 400_000.0, 100_000.0, 400_000.0)
    plan = plan_of(found, caption_cost(checked.plan), checked)
    assert (plan.requests, plan.prompt_tokens, plan.answer_tokens) == pytest.approx((460_000, 322e6, 40e6))
    assert plan.captioned == 380_000 and plan.gpu_days == pytest.approx(400_000 / 172_800)
    assert plan.money == pytest.approx(plan.gpu_days * 48 + 161 + 60)
    assert plan.storage["images"] == 4e10 and plan.storage["features"] == 400_000 * 2 * 1280
    text = "\n".join(lines(plan, checked.plan))
    for part in ("-600,000 filter: short_edge", "400,000 are left", "460,000 requests", "DenseFusion: 87,500", "USD"):
        assert part in text
    assert json.loads(json.dumps(plan.to_dict()))["kept"] == 400_000


def test_without_prices_no_money_is_said() -> None:
    checked = CurateConfig.of(get_config())
    plan = plan_of(Prediction(10, 10, kept=10.0), caption_cost(checked.plan), checked)
    assert "USD" not in "\n".join(lines(plan, checked.plan)) and plan.money == 0


@pytest.mark.slow
def test_a_plan_predicts_requests_within_a_tenth_and_tokens_within_a_fifth(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("httpx")
    from benchmarks.curate_experts import plan

    plain(monkeypatch)
    found = plan(count=3000, sample=1000, pilot=300)
    assert found["requests_off"] <= 0.1 and found["tokens_off"] <= 0.2, found
