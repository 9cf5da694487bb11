"""Checkpoint folders with one change: the same weights as before, bit for bit, or one line.

Not changed are the weights' own bytes in a safetensors file, which has no checksums: nothing could notice that.
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from eve_jax.convert.source import open_checkpoint
from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params
from tests.convert import folders
from tests.mutations.folders import byte_changes, change_bytes, change_json, files_of, json_changes, one_line
from tests.train.stages_on_disk import write_llm

CONFIG = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# Fields of a Hugging Face config that say what the model is, and what `ModelConfig` has of them.
MEANS = {
    "rope_theta": "rope_theta",
    "rms_norm_eps": "rms_norm_eps",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "torch_dtype": "dtype",
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage folder of ours, of one checkpoint."""
    folder = tmp_path_factory.mktemp("stage") / "llm"
    write_llm(folder)
    return folder


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of an EVEv2 model, in two shards."""
    tensors, config = folders.golden()
    return folders.write_hf(tmp_path_factory.mktemp("hf") / "eve", tensors, config, shards=2)


def read(folder: Path) -> tuple[ModelConfig, Params]:
    checkpoint = open_checkpoint(folder)
    return checkpoint.cfg, checkpoint.params()


def same(a: Params, b: Params) -> bool:
    return a.keys() == b.keys() and all(np.asarray(a[n]).tobytes() == np.asarray(b[n]).tobytes() for n in a)


def copy_of(whole: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(whole, folder))


@CONFIG
@given(data=st.data(), change=byte_changes())
def test_a_changed_file_of_a_stage(tmp_path: Path, stage: Path, data: st.DataObject, change: tuple) -> None:
    name = data.draw(st.sampled_from(files_of(stage)))
    folder = copy_of(stage, tmp_path / "changed")
    change_bytes(folder / name, change)
    try:
        _, params = read(folder)
    except UserError as error:
        one_line(error)
    else:
        assert same(params, read(stage)[1])


@CONFIG
@given(change=json_changes())
@example(change=("drop", 577, None))  # was a TypeError
def test_a_changed_size_of_a_stage(tmp_path: Path, stage: Path, change: tuple[str, int, Any]) -> None:
    folder = copy_of(stage, tmp_path / "changed")
    change_json(folder / "config.json", change, ("model",))
    try:
        _, params = read(folder)
    except UserError as error:
        one_line(error)
    else:
        assert same(params, read(stage)[1])


@CONFIG
@given(change=json_changes())
@example(change=("replace", 0, None))
def test_a_changed_field_of_a_config(tmp_path: Path, hf: Path, change: tuple[str, int, Any]) -> None:
    folder = copy_of(hf, tmp_path / "changed")
    field = change_json(folder / "config.json", change)
    try:
        cfg, params = read(folder)
    except UserError as error:
        one_line(error)
        return
    whole, expected = read(hf)
    assert same(params, expected)
    differs = {name for name, value in asdict(cfg).items() if value != asdict(whole)[name]}
    assert differs <= {MEANS.get(field, "")}, f"{field} changed {differs}"


@CONFIG
@given(data=st.data(), change=byte_changes())
def test_a_changed_file_of_a_hugging_face_folder(
    tmp_path: Path, hf: Path, data: st.DataObject, change: tuple[str, float, int]
) -> None:
    name = data.draw(st.sampled_from([n for n in files_of(hf) if "token" not in n and not n.startswith("generation")]))
    folder = copy_of(hf, tmp_path / "changed")
    kind, share, byte = change
    if name.endswith(".safetensors") and kind in ("flip", "insert"):  # in the header, not the weights
        header = 8 + int.from_bytes((folder / name).read_bytes()[:8], "little")
        share *= header / (folder / name).stat().st_size
    if name == "config.json" and kind in ("flip", "insert"):
        kind = "cut"  # a field of another value is the test before
    change_bytes(folder / name, (kind, share, byte))
    try:
        cfg, params = read(folder)
    except UserError as error:
        one_line(error)
    else:
        assert same(params, read(hf)[1])
        assert cfg == read(hf)[0]
