"""Whatever happens to the files of a checkpoint, its weights are read bit for bit, or one line tells.

Flipped bytes in the weights of a safetensors file are left out: the format has no checksums, so no reader can notice
them.
"""

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given

from eve_jax.convert.source import Checkpoint, open_checkpoint
from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.train.checkpoint import newest_step
from tests.convert import folders as hf
from tests.mutations import edits as changes
from tests.mutations.edits import ByteEdit, Edit, JsonEdit
from tests.train import stages_on_disk as stages

Bits = dict[str, tuple[str, tuple[int, ...], bytes]]
CONFIG, MANIFEST = "stage/config.json", "stage/checkpoints/6/manifest.json"
META, ARRAYS = "stage/checkpoints/6/meta/metadata", "stage/checkpoints/6/params/ocdbt.process_0/d/*"
FILES = (
    *(CONFIG, MANIFEST, META, ARRAYS, "llm/config.json", "llm/checkpoints/5/params/ocdbt.process_0/d/*"),
    *("stage/checkpoints/6/params/_METADATA", "stage/checkpoints/6/params/*", "stage/checkpoints/6/params/d/*"),
)
INDEX, SHARD = "model.safetensors.index.json", "model-00001-of-00002.safetensors"
# Names under which sizes of Hugging Face's config.json are sizes of ours.
SAME = {"num_hidden_layers": "num_layers", "num_attention_heads": "num_heads", "num_key_value_heads": "num_kv_heads"}


def bits(params: Any) -> Bits:
    arrays = {name: np.asarray(value) for name, value in params.items()}
    return {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in arrays.items()}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, Bits], ModelConfig]:
    """A folder with a partial stage of steps 5 and 6 and the LLM that it refers to; its weights at each step."""
    folder = tmp_path_factory.mktemp("stage") / "valid"
    stages.write_llm(folder / "llm")
    begin = stages.started(folder / "stage", stages.DAC, "2.1", folder / "llm")
    weights = {step: bits(stages.saved(folder / "stage", begin, step)) for step in (5, 6)}
    moved = changes.copy(folder, folder.parent / "moved")
    (folder / "llm").rename(folder / "llm.gone")  # so that no copy finds it by its absolute path
    return moved, weights, open_checkpoint(moved / "stage").cfg


@pytest.fixture(scope="module")
def eve(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bits, ModelConfig]:
    """A Hugging Face folder of golden set A in two shards, and its weights."""
    folder = hf.write_hf(tmp_path_factory.mktemp("hf") / "valid", *hf.golden(), shards=2)
    checkpoint = open_checkpoint(folder)
    return folder, bits(checkpoint.params()), checkpoint.cfg


def check_sizes(now: ModelConfig, before: ModelConfig, said: dict[str, Any]) -> None:
    """Assert that every field is as it was, or what the changed config.json says."""
    for field in dataclasses.fields(ModelConfig):
        value, name = getattr(now, field.name), field.name
        if value != getattr(before, name):
            stated = said.get(name)
            assert value == (tuple(stated) if isinstance(stated, list) else stated), f"{name} became {value!r}"


def check_stage(stage: tuple[Path, dict[int, Bits], ModelConfig], edits: list[Edit], err: Any) -> None:
    """Assert that the stage has the weights of the step that it names, or is refused in one line."""
    valid, weights, sizes = stage
    folder = changes.copy(valid, valid.parent / "again")
    changes.apply(folder, edits)
    err.readouterr()
    try:
        step = newest_step(folder / "stage")
        checkpoint = open_checkpoint(folder / "stage")
        params = checkpoint.params()
    except UserError as error:
        changes.check_refusal(error)
        return
    assert step == 6 or "taking the checkpoint of step 5 instead" in err.readouterr().err
    if (folder / MANIFEST).is_file() and (folder / MANIFEST).read_bytes() == (valid / MANIFEST).read_bytes():
        assert bits(params) == weights[step]  # without its manifest it is taken as it is (docs/faults.md)
    assert params.keys() == weights[step].keys()
    said = json.loads((folder / CONFIG).read_bytes().decode("utf-8-sig"))["model"]
    check_sizes(checkpoint.cfg, sizes, said)


def check_eve(eve: tuple[Path, Bits, ModelConfig], edits: list[Edit], header: tuple[float, int] | None = None) -> None:
    """Assert that the folder has its weights, or is refused in one line; `header`: a byte of a shard's to change."""
    valid, weights, sizes = eve
    folder = changes.copy(valid, valid.parent / "again")
    changes.apply(folder, edits)
    if header and (folder / SHARD).is_file():
        raw = bytearray((folder / SHARD).read_bytes())
        end = 8 + struct.unpack("<Q", raw[:8])[0] if len(raw) > 8 else 0
        if 0 < end <= len(raw):
            raw[int(header[0] * end)] ^= header[1]
            (folder / SHARD).write_bytes(raw)
    try:
        checkpoint: Checkpoint = open_checkpoint(folder)
        params = bits(checkpoint.params())
    except UserError as error:
        changes.check_refusal(error)
        return
    assert params == weights
    said = json.loads((folder / "config.json").read_bytes().decode("utf-8-sig"))
    check_sizes(checkpoint.cfg, sizes, {SAME.get(name, name): value for name, value in said.items()})


STAGE_EDITS = changes.lists_of(
    changes.json_edits([CONFIG, CONFIG, MANIFEST, META, "llm/config.json"], [64, 3, "dac", "dense"])
    | changes.byte_edits(FILES)
)
EVE_EDITS = changes.lists_of(
    changes.json_edits(["config.json", "config.json", INDEX], [64, 3, "eve-llama3", "qwen2", SHARD, "mlp"])
    | changes.byte_edits(["config.json", INDEX])
    | changes.byte_edits([SHARD], ["cut", "empty", "remove", "move", "beside", "other"])
)


@changes.profile(40)
@given(edits=STAGE_EDITS)
def test_any_change_to_a_stage_folder(stage: Any, edits: list[Edit], capfd: Any) -> None:
    check_stage(stage, edits, capfd)


@changes.profile(40)
@given(edits=EVE_EDITS)
def test_any_change_to_a_hugging_face_folder(eve: Any, edits: list[Edit]) -> None:
    check_eve(eve, edits)


@changes.profile(40)
@given(at=changes.st.floats(0, 1, exclude_max=True), flip=changes.st.integers(1, 255))
def test_any_byte_of_a_safetensors_header(eve: Any, at: float, flip: int) -> None:
    check_eve(eve, [], (at, flip))


@pytest.mark.slow
@changes.profile(40, slow=True)
@given(edits=STAGE_EDITS)
def test_many_changes_to_a_stage_folder(stage: Any, edits: list[Edit], capfd: Any) -> None:
    check_stage(stage, edits, capfd)


@pytest.mark.slow
@changes.profile(40, slow=True)
@given(edits=EVE_EDITS)
def test_many_changes_to_a_hugging_face_folder(eve: Any, edits: list[Edit]) -> None:
    check_eve(eve, edits)


@pytest.mark.slow
@changes.profile(40, slow=True)
@given(at=changes.st.floats(0, 1, exclude_max=True), flip=changes.st.integers(1, 255))
def test_many_bytes_of_a_safetensors_header(eve: Any, at: float, flip: int) -> None:
    check_eve(eve, [], (at, flip))
