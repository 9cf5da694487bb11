"""The comparison of two variants at test size: ends with its report, skips what is done."""

import json
from pathlib import Path

import pytest

from configs import variants
from eve_jax.recipe import run_recipe
from eve_jax.train.metrics import read_metrics

pytestmark = pytest.mark.slow  # a minute and a half of compilation


def test_two_variants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = variants.get_config("tiny,of=dense+dac")
    run_recipe(config, tmp_path)
    report = json.loads((tmp_path / "variants.json").read_text())
    assert list(report["variants"]) == ["dense", "dac"]
    for variant in report["variants"].values():
        assert variant["questions"] == 48
        assert set(variant["stages"]) == set(variant["text_loss"]) == {"captions", "questions"}
    llm, dense, dac = report["llm"], report["variants"]["dense"], report["variants"]["dac"]
    assert dac["text_loss"]["captions"] == pytest.approx(llm["text_loss"], rel=1e-6)  # the LLM was frozen
    assert dense["text_loss"]["captions"]["all"] != pytest.approx(llm["text_loss"]["all"], rel=1e-3)
    assert dac["parameters"] > dense["parameters"]
    assert len(dac["weight_change"]) > len(dense["weight_change"])
    assert all(change > 0 for v in (dense, dac) for change in v["weight_change"]["layers.mlp.text.up"])
    assert "EVEv2.0 (dac)" in capsys.readouterr().out
    pictures = [tmp_path / name for name in ("variants.png", "losses.png", "weights.png")]
    assert all(picture.stat().st_size > 10_000 for picture in pictures)

    before = {name: read_metrics(tmp_path / name) for name in config.order}
    pictures[0].unlink()
    run_recipe(config, tmp_path)
    assert {name: read_metrics(tmp_path / name) for name in config.order} == before
    assert json.loads((tmp_path / "variants.json").read_text()) == report
    assert pictures[0].exists()
