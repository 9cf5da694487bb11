"""A stage of text alone as the LLM of a model with another patch embedding than its own, which never learned."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import of_groups
from tests.train.stages_on_disk import DENSE, saved, started, write_llm

CODES = replace(DENSE, patch_embed="vq", codes=16)
WINDOWS = replace(DENSE, patch_embed="v1", patch_hidden=16)


def of_text_alone(folder: Path) -> Path:
    """Write two steps of a stage `llm`."""
    write_llm(folder, step=5)
    write_llm(folder, step=7, change=0.5)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"stage": "llm"}))
    return folder


@pytest.mark.parametrize("cfg", [CODES, WINDOWS])
@pytest.mark.parametrize("step", ["", "@5"])
def test_another_patch_embedding_begins_anew(tmp_path: Path, cfg: ModelConfig, step: str) -> None:
    llm = of_text_alone(tmp_path / "llm")
    begun = started(tmp_path / "stage1", cfg, "1", Path(f"{llm}{step}"))
    own = started(tmp_path / "own", DENSE, "1", Path(f"{llm}{step}"))
    text = of_groups(DENSE, "text")
    assert begun.frozen.keys() == text and begun.state.trainable.keys() == of_groups(cfg, "patch_embed", "vocabulary")
    for name in text:
        np.testing.assert_array_equal(np.asarray(begun.frozen[name]), np.asarray(own.frozen[name]))
    assert begun.origins[0]["step"] == (5 if step else 7), "the frozen weights are referred to, not stored again"
    saved(tmp_path / "stage1", begun, 3)
    again = started(tmp_path / "stage1", cfg, "1", Path(f"{llm}{step}"))
    assert again.step == 3
    np.testing.assert_array_equal(np.asarray(again.frozen["embed"]), np.asarray(begun.frozen["embed"]))


def test_one_that_has_seen_images_keeps_its_own(tmp_path: Path) -> None:
    write_llm(tmp_path / "stage1")
    with pytest.raises(UserError, match=r"stage1 has patch_hidden=\d+, config\.model\.patch_hidden is 16"):
        started(tmp_path / "stage2", WINDOWS, "2.2", tmp_path / "stage1")
