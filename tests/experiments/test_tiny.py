"""Every recipe of an experiment at its tiny setting, with some arms: ends with its report, skips what is done."""

import importlib
import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from eve_jax.checkpoint.stage_folder import steps_in
from eve_jax.eval.report.compare import compare_lines
from eve_jax.experiments.score import FOLDER, VALUES
from eve_jax.recipe import run_recipe
from eve_jax.train.metrics import read_metrics

pytestmark = pytest.mark.slow  # minutes each, most of them of compilation

RECIPES = {
    "fig2": "tiny,seeds=1,of=ve+dt",
    "fig7": "tiny,seeds=1,of=eve_cap+llava_recap",
    "fig5": "tiny,points=2,of=rep+dac",
    "fig5_parts": "tiny,seeds=1,of=layernorm+self_attn_mlp",
    "fig6": "tiny,seeds=1,of=web+cap",
    "fig8": "tiny,seeds=1,of=0-0-10+7-2-1",
    "fig9": "tiny,seeds=1,of=stage1+stage2_2",
    "fig10": "tiny,seeds=1,of=hd+anyresolution",
    "image_rules": "tiny,seeds=1,of=dac_image+neo",
    "v1_parts": "tiny,seeds=1,of=no_stage1+next_patch",
}


@pytest.mark.parametrize("name", RECIPES)
def test_tiny(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = importlib.import_module(f"configs.{name}").get_config(RECIPES[name])
    run_recipe(config, tmp_path)
    said = capsys.readouterr().out
    assert said.index("on one free core about") < said.index("[1/"), "what it will take comes first"
    content = json.loads((tmp_path / f"{name}.json").read_text())
    assert tuple(content["arms"]) == tuple(config.experiment.arms)
    for arm in content["arms"].values():
        for point in arm["points"]:
            assert 0 <= point["accuracy"]["mean"] <= 1
            assert point["answer_loss"]["mean"] > 0 and point["text_loss"]["mean"] > 0
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    assert ("weights" in content) == bool(config.experiment.weights)
    if "weights" in content:
        assert {*content["weights"]["arms"]} == {*config.experiment.labels.values()}
        assert (tmp_path / f"{name}_weights.png").stat().st_size > 10_000
    assert "Not as in the paper" in (tmp_path / f"{name}.md").read_text()
    runs = [name for name in config.order if (tmp_path / FOLDER / name / "report.json").exists()]
    assert len(compare_lines([tmp_path / FOLDER / run for run in runs[:2]])) == 3, "evaluations like any other"

    before = {name: read_metrics(tmp_path / name) for name in config.order}
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob(f"{FOLDER}/*/{VALUES}")}
    run_recipe(config, tmp_path)
    assert {name: read_metrics(tmp_path / name) for name in config.order} == before
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob(f"{FOLDER}/*/{VALUES}")} == kept
    assert json.loads((tmp_path / f"{name}.json").read_text()) == content
    if name == "fig5":
        _adds_what_is_missing(tmp_path, config, content)


def _adds_what_is_missing(workdir: Path, config: ConfigDict, content: dict) -> None:
    """Ask again a point whose scores are of something else, and one whose scores were lost: to the same end."""
    assert steps_in(workdir / "dac_1_captions") == [4, 8], "the step of the point, and the last"
    first, second = (workdir / FOLDER / f"dac_{seed}_questions" / VALUES for seed in (0, 1))
    changed = json.loads(first.read_text())
    changed["of"]["lineage"] = "another"
    changed["values"]["scores"] = {}
    first.write_text(json.dumps(changed))
    second.unlink()
    run_recipe(config, workdir)
    assert json.loads((workdir / "fig5.json").read_text()) == content
