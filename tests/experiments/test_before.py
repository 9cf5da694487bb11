"""What a recipe refuses, or prints, before its first stage trains."""

from pathlib import Path
from typing import Any

import pytest

from configs import fig2, fig5, fig8, tree, v1_parts
from eve_jax import recipe
from eve_jax.config import from_hub
from eve_jax.errors import UserError
from tests.experiments.recipes import made, section


def test_a_point_that_a_trained_stage_did_not_keep_is_refused_at_once(tmp_path: Path) -> None:
    """So it is said before anything trains, by the first stage that would start there."""
    config = made(fig8, "tiny,seeds=1,points=2,of=0-0-10")
    (tmp_path / "0-0-10_0_captions" / "checkpoints" / "8").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"^config\.stages\.0-0-10_0_questions_\d\.init=WORKDIR/.*keeps the steps 8\. .*"
    ):
        recipe.run_recipe(config, tmp_path)
    assert not (tmp_path / "data").exists()
    (tmp_path / "0-0-10_0_captions" / "checkpoints" / "4").mkdir()
    recipe._check_starts(config, tmp_path)


@pytest.mark.parametrize(
    ("module", "arg", "stage", "field", "says"),
    [
        (
            fig2,
            "tiny,seeds=1,of=ve",
            "ve_0_stage1",
            "encoder",
            r"encoder=.* is to be a folder of CLIP's: .*config\.json",
        ),
        (
            fig2,
            "tiny,seeds=1,of=dt",
            "dt_0_stage1",
            "data.vision_tokenizer",
            r"data\.vision_tokenizer: .* holds no .*vq=DIR",
        ),
        (v1_parts, "tiny,seeds=1,of=eve", "eve_0_prealign", "teacher", r"teacher=.* is to be a folder of CLIP's: .*"),
    ],
)
def test_what_an_arm_sees_by_is_looked_for_at_once(
    module: Any, arg: str, stage: str, field: str, says: str, tmp_path: Path
) -> None:
    config = module.get_config(arg)
    section, _, name = field.rpartition(".")
    (config.stages[stage][section] if section else config.stages[stage])[name] = str(tmp_path)
    with pytest.raises(UserError, match=rf"^config\.stages\.{stage}\.{says}"):
        recipe.run_recipe(config, tmp_path / "work")
    assert not (tmp_path / "work" / "data").exists()


@pytest.mark.parametrize(
    ("name", "size"),
    [("run1.5b/vicuna-7b", "paper"), ("mistuned7b", "paper"), ("Qwen2.5-1.5B", "1.5b")],
)
def test_the_size_follows_from_the_name_of_the_llm_alone(tmp_path: Path, name: str, size: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    a = tree.read_args("fig8", f"llm={tmp_path / name}", fig8.ARMS, llm="vicuna-7b")
    assert a.size == size
    section = tree.experiment(a, "Mixtures", fig8.ARMS, deviations=())
    assert section.title == f"Mixtures (size {size}, LLM {Path(name).name})"
    assert (tree.SMALL in section.deviations) == (size == "1.5b")


def test_the_cost_is_printed_where_the_hub_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(text: str) -> str:
        if text.startswith("hf:"):
            raise UserError(f"{text}: the hub did not give it")
        return text

    monkeypatch.setattr(from_hub, "local_model", refuse)
    with pytest.raises(UserError, match=r"^hf:Qwen/Qwen2\.5-1\.5B: the hub did not give it; or .* llm=FOLDER"):
        recipe.run_recipe(fig5.get_config("llm=qwen2.5-1.5b"), tmp_path)
    assert "v5e 541, v6e 116, H100 108" in capsys.readouterr().out


def test_a_folder_of_records_that_is_not_given_is_asked_for() -> None:
    experiment = section(made(fig8, "size=1.5b"))
    with pytest.raises(UserError, match=r"^web\.jsonl is in no folder: .* data=FOLDER, or set config\.data\.records"):
        experiment.check_records(made(fig8, "size=1.5b").stages["0-0-10_0_captions"].data.records)
    experiment.check_records(made(fig8, "size=1.5b,data=/records").stages["0-0-10_0_captions"].data.records)
