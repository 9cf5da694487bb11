"""Headers, indexes and configs that no program writes: one line each, and no file outside of the folder."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from eve_jax.errors import UserError
from eve_jax.hf.config import model_config
from eve_jax.hf.safetensors_io import INDEX, SINGLE, open_tensors
from eve_jax.process.files import read_json
from tests.mutations.targets import SIZES


def tensor(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


def write(folder: Path, header: Any) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / SINGLE).write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(8))


HEADERS: dict[str, Any] = {
    "nested": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "no object": [],
    "offsets as text": tensor(data_offsets="08"),
    "three offsets": tensor(data_offsets=[0, 4, 8]),
    "negative offsets": tensor(data_offsets=[-8, 0]),
    "offsets of another kind": tensor(data_offsets=[False, 8]),
    "shape as text": tensor(shape="2"),
    "shape of floats": tensor(shape=[2.0]),
    "negative shape": tensor(shape=[-1, -2]),
    "shape of booleans": tensor(shape=[True, 2]),
    "empty and endless": {**tensor(), "b": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [8, 8]}},
    "many sides": tensor(shape=[1] * 100 + [2]),
    "unhashable type": tensor(dtype=["F32"]),
    "overlap": {**tensor(), "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
    "gap": {**tensor(shape=[1], data_offsets=[4, 8])},
    "rest": tensor(shape=[1], data_offsets=[0, 4]),
    "twice": b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    "endless number": b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,' + b"9" * 5000 + b"]}}",
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers(case: str, tmp_path: Path) -> None:
    write(tmp_path, HEADERS[case])
    with pytest.raises(UserError, match=r"no safetensors file: its header cannot be read|is damaged") as error:
        open_tensors(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["../out.safetensors", "{}/out.safetensors", "sub/x", "..", "", "x" * 300, "a\0", "\ud800"]
)
def test_an_index_names_files_of_its_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder, tensor())
    (folder / SINGLE).rename(tmp_path / "out.safetensors")
    where = {"a": name.format(tmp_path)}
    (folder / INDEX).write_text(json.dumps({"weight_map": where}))
    with pytest.raises(UserError, match="which is no file of its folder"):
        open_tensors(folder)


CONFIGS: dict[str, Any] = {
    "rope_scaling": "x",
    "rope_parameters": [1],
    "rope_theta": "abc",
    "rms_norm_eps": "x",
    "moe_part": 7,
    "eve_jax": [1],
    "head_dim": 31,
    "vocab_size": 2**70,
    "hidden_size": 2**40,
    "num_hidden_layers": 10**9,
    "mm_hidden_size": 10**9,
}


@pytest.mark.parametrize("field", CONFIGS)
def test_configs(field: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"config\.json: .*{'heads of size' if field == 'head_dim' else field}"
    ) as error:
        model_config(SIZES | {field: CONFIGS[field]}, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ['{"a":' * 200_000, "[" * 200_000, '{"a": ' + "9" * 5000 + "}", "\0", "[1]"])
def test_nothing_that_is_json_ends_in_a_traceback(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        read_json(tmp_path / "config.json")
