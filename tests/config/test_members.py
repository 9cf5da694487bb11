"""Configs of members of the family: what they take of a folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from eve_jax.errors import UserError
from launch._configs import load_config
from tests.data.synthetic import byte_tokenizer
from tests.weights.gemma import GLOBAL, SIZES, VISION

GEMMA = {"model_type": "gemma4_unified", "text_config": SIZES | GLOBAL, "vision_config": VISION}


def written(folder: Path, config: dict[str, Any]) -> Path:
    """A folder with config.json and a tokenizer, which is all that a config reads."""
    byte_tokenizer(("<vision>", "<vpatch>", "</vision>")).save(folder)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"text_config": None}, "text_config is missing: the section with the sizes of the LLM"),
        ({"text_config": SIZES | {"head_dim": None}}, r"text_config\.head_dim=None: expected a whole number above 0"),
        ({"vision_config": {"patch_size": None}}, r"vision_config\.patch_size=None: expected a number of pixels"),
    ],
)
def test_what_the_config_of_a_gemma_lacks(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "gemma", {k: v for k, v in (GEMMA | changes).items() if v is not None})
    with pytest.raises(UserError, match=rf"config\.json: {says}"):
        load_config(f"gemma4_sft:llm={folder}")
