"""Samples of more tokens than the LLM has positions for are refused before anything trains on them."""

import json
from pathlib import Path

import pytest

from configs import base
from eve_jax.config.stage import Config
from eve_jax.errors import UserError
from eve_jax.train import trainer
from eve_jax.train.positions import check_positions
from tests.data.synthetic import lengths_of


def stage(folder: Path, positions: object, **data: int) -> Config:
    (folder / "llm").mkdir(exist_ok=True)
    (folder / "llm" / "config.json").write_text(json.dumps({"max_position_embeddings": positions}))
    c = base.get_config("tiny")
    c.init = str(folder / "llm")
    c.data.update(data)
    return Config.of(c)


def test_too_long_for_the_llm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lengths = lengths_of([[40, 5, 20], [40, 5, 19], [0, 0, 200]])
    about = (
        r"2 of 3 samples have up to 200 tokens, and the LLM was made for 64 positions \(max_position_embeddings of its "
        r"config\.json\); set config\.data\.max_tokens=64"
    )
    with pytest.raises(UserError, match=about):
        check_positions(stage(tmp_path, 64), tmp_path / "stage", lengths, resumes=False)
    check_positions(stage(tmp_path, 64), tmp_path / "stage", lengths, resumes=True)
    assert "2 of 3 samples have up to 200 tokens" in capsys.readouterr().err
    for positions in (200, None):
        check_positions(stage(tmp_path, positions), tmp_path / "stage", lengths, resumes=False)
    check_positions(stage(tmp_path, 64, max_tokens=64), tmp_path / "stage", lengths, resumes=False)
    check_positions(Config.of(base.get_config("tiny")), tmp_path / "stage", lengths, resumes=False)


def test_training_checks_it() -> None:
    assert trainer.check_positions is check_positions
