"""A generation_config.json that is broken is refused when the folder is opened, in a line of its file and field."""

import json
from pathlib import Path

import pytest

from eve_jax.errors import UserError
from eve_jax.hf.generation import GENERATION, check_generation
from eve_jax.hf.tensors import HfSource
from tests.weights.folders import golden, write_hf


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "is not valid JSON"),
        ("[]", "does not hold a JSON object"),
        ('{"top_p": 0.8, "top_p": 0.9}', "stands there twice"),
        ('{"eos_token_id": 99999}', "eos_token_id is 99999: expected a token id, or several, of 0 to 319"),
        ('{"eos_token_id": [7, 320]}', r"eos_token_id is \[7, 320\]"),
        ('{"eos_token_id": true}', "eos_token_id is True"),
        ('{"bos_token_id": [7]}', r"bos_token_id is \[7\]: expected a token id of 0 to 319"),
        ('{"pad_token_id": -2}', "pad_token_id is -2"),
        ('{"bos_token_id": -1}', "bos_token_id is -1"),
        ('{"pad_token_id": "7"}', "pad_token_id is '7'"),
    ],
)
def test_a_broken_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / GENERATION).write_text(text)
    with pytest.raises(UserError, match=rf"{GENERATION}.*{said}"):
        check_generation(tmp_path, 320)


def test_a_sound_file_and_none(tmp_path: Path) -> None:
    check_generation(tmp_path, 320)
    for given in (
        {},
        {"eos_token_id": None, "pad_token_id": 0},
        {"pad_token_id": -1},
        {"eos_token_id": [7, 319], "bos_token_id": 319},
    ):
        (tmp_path / GENERATION).write_text(json.dumps(given))
        check_generation(tmp_path, 320)


def test_opening_a_folder_reads_it(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "hf", *golden())
    HfSource(folder)
    (folder / GENERATION).write_text('{"eos_token_id": 99999}')
    with pytest.raises(UserError, match=f"{GENERATION}: eos_token_id is 99999"):
        HfSource(folder)
