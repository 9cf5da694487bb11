"""Whatever happens to the files of a checkpoint, its weights are read bit for bit, or one line tells.

Flipped bytes in the weights of a safetensors file are left out: the format has no checksums, so no reader can notice
them.
"""

import hashlib
import io
import json
import struct
from contextlib import redirect_stderr
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from eve_jax.checkpoint.stage_folder import newest_step
from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.weights.open import Checkpoint, open_checkpoint
from tests.mutations import edits as changes
from tests.mutations.edits import ByteEdit, Edit, JsonEdit
from tests.train import stages_on_disk as stages
from tests.weights import folders as hf

Bits = dict[str, tuple[str, tuple[int, ...], str]]
CONFIG, MANIFEST = "stage/config.json", "stage/checkpoints/6/manifest.json"
META, ARRAYS = "stage/checkpoints/6/meta/metadata", "stage/checkpoints/6/params/ocdbt.process_0/d/*"
FILES = (
    *(CONFIG, MANIFEST, META, ARRAYS, "llm/config.json", "llm/checkpoints/5/params/ocdbt.process_0/d/*"),
    *("stage/checkpoints/6/params/_METADATA", "stage/checkpoints/6/params/*", "stage/checkpoints/6/params/d/*"),
)
INDEX, SHARD = "model.safetensors.index.json", "model-00001-of-00002.safetensors"
# Names under which sizes of Hugging Face's config.json are sizes of ours.
# What config.json means where it does not say (docs/convert.md): the defaults of `transformers`, and what follows.
UNSAID = {"rope_theta": 1e4, "rms_norm_eps": 1e-6, "num_kv_heads": 4, "parts": ()}
SAME = {"num_hidden_layers": "num_layers", "num_attention_heads": "num_heads", "num_key_value_heads": "num_kv_heads"}


@dataclass(frozen=True)
class Valid:
    """A valid folder with its sizes, and its weights by step (0 where there are no steps)."""

    folder: Path
    weights: dict[int, Bits] = field(repr=False)
    cfg: ModelConfig = field(repr=False)


def bits(params: Any) -> Bits:
    """Return type, shape and checksum of every weight."""
    arrays = {name: np.asarray(value) for name, value in params.items()}
    return {name: (str(a.dtype), a.shape, hashlib.sha256(a.tobytes()).hexdigest()) for name, a in arrays.items()}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Valid:
    """A folder with a partial stage of steps 5 and 6 and the LLM that it refers to; its weights at each step."""
    folder = tmp_path_factory.mktemp("stage") / "valid"
    stages.write_llm(folder / "llm")
    begin = stages.started(folder / "stage", stages.DAC, "2.1", folder / "llm")
    weights = {step: bits(stages.saved(folder / "stage", begin, step)) for step in (5, 6)}
    moved = changes.copy(folder, folder.parent / "moved")
    (folder / "llm").rename(folder / "llm.gone")  # so that no copy finds it by its absolute path
    return Valid(moved, weights, open_checkpoint(moved / "stage").cfg)


@pytest.fixture(scope="module")
def eve(tmp_path_factory: pytest.TempPathFactory) -> Valid:
    """A Hugging Face folder of golden set A in two shards, and its weights."""
    folder = hf.write_hf(tmp_path_factory.mktemp("hf") / "valid", *hf.golden(), shards=2)
    checkpoint = open_checkpoint(folder)
    return Valid(folder, {0: bits(checkpoint.params())}, checkpoint.cfg)


def check_sizes(now: ModelConfig, before: ModelConfig, said: dict[str, Any]) -> None:
    """Assert that every field is as it was, or what the changed config.json says."""
    for name in (one.name for one in fields(ModelConfig)):
        value, stated = getattr(now, name), said.get(name)
        if value == getattr(before, name):
            continue
        assert value == (UNSAID.get(name) if stated is None else tuple(stated) if name == "rope_scaling" else stated)


def check_stage(stage: Valid, edits: list[Edit]) -> None:
    """Assert that the stage has the weights of the step that it names, or is refused in one line."""
    valid, weights = stage.folder, stage.weights
    folder = changes.copy(valid, valid.parent / "again")
    changes.apply(folder, edits)
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            step = newest_step(folder / "stage")
        checkpoint = open_checkpoint(folder / "stage")
        params = checkpoint.params()
    except UserError as error:
        changes.check_refusal(error)
        return
    assert step == 6 or "taking the checkpoint of step 5 instead" in said.getvalue()
    if (folder / MANIFEST).is_file() and (folder / MANIFEST).read_bytes() == (valid / MANIFEST).read_bytes():
        assert bits(params) == weights[step]  # without its manifest it is taken as it is (docs/faults.md)
    assert params.keys() == weights[step].keys()
    config = json.loads((folder / CONFIG).read_bytes().decode("utf-8-sig"))["model"]
    check_sizes(checkpoint.cfg, stage.cfg, config)


def check_eve(eve: Valid, edits: list[Edit], header: tuple[float, int] | None = None) -> None:
    """Assert that the folder has its weights, or is refused in one line; `header`: a byte of a shard's to change."""
    valid = eve.folder
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
    assert params == eve.weights[0]
    said = json.loads((folder / "config.json").read_bytes().decode("utf-8-sig"))
    check_sizes(checkpoint.cfg, eve.cfg, {SAME.get(name, name): value for name, value in said.items()})


UNCHECKED = ByteEdit(MANIFEST, 0.0, "remove", 0)
FROZEN = (2,)  # the place of `frozen` in a stage's metadata
KNOWN: list[list[Edit]] = [
    [JsonEdit(CONFIG, (1, 7), "rename", None)],
    [JsonEdit(CONFIG, (1, 7), "delete", None)],
    [JsonEdit(CONFIG, (1, 3), "set", 4)],
    [JsonEdit(CONFIG, (1, 10), "set", "x")],
    [JsonEdit(CONFIG, (1, 8), "set", ["a", 1, 2, 3])],
    [JsonEdit(CONFIG, (1, 19), "set", 5)],
    [JsonEdit(CONFIG, (1,), "set", None)],
    [JsonEdit(CONFIG, (2,), "delete", None)],
    [JsonEdit(CONFIG, (2, 3), "rename", None)],
    [JsonEdit(CONFIG, (2, 1), "set", "800")],
    [JsonEdit("llm/config.json", (1, 7), "delete", None)],
    [JsonEdit(MANIFEST, (0,), "set", {"/x": [1, "a"]})],
    [JsonEdit(MANIFEST, (0,), "set", {"": [1, "a"]})],
    [JsonEdit(MANIFEST, (0, 0), "set", 5)],
    [JsonEdit(MANIFEST, (0,), "set", {"../../../config.json": [1, "a"]})],
    [JsonEdit(MANIFEST, (0,), "set", {})],
    [UNCHECKED, JsonEdit(META, FROZEN, "set", "x")],
    [UNCHECKED, JsonEdit(META, FROZEN, "set", [1])],
    [UNCHECKED, JsonEdit(META, FROZEN, "set", None)],
    [UNCHECKED, JsonEdit(META, FROZEN, "delete", None)],
    [UNCHECKED, JsonEdit(META, (*FROZEN, 0, 0), "delete", None)],
    [UNCHECKED, JsonEdit(META, (*FROZEN, 0, 0), "set", None)],
    [UNCHECKED, JsonEdit(META, (*FROZEN, 0, 5), "set", [1])],
    [UNCHECKED, JsonEdit(META, (*FROZEN, 0, 5, 0), "set", 5)],
    [UNCHECKED, JsonEdit(META, (*FROZEN, 0, 5, 0, 0), "set", "x")],
    [UNCHECKED, JsonEdit(META, (*FROZEN, 0, 2), "set", "x")],
    [UNCHECKED, ByteEdit(ARRAYS, 0.5, "cut", 0)],
    [UNCHECKED, ByteEdit(ARRAYS, 0.5, "flip", 1)],
    [UNCHECKED, ByteEdit(FILES[5], 0.0, "empty", 0)],
    [UNCHECKED, ByteEdit(FILES[5], 0.0, "remove", 0)],
    [UNCHECKED, ByteEdit(FILES[7], 0.5, "cut", 0)],
    [UNCHECKED, JsonEdit(FILES[5], (0,), "set", {})],
    [UNCHECKED, JsonEdit(FILES[5], (0, 0), "set", 5)],
]
STAGE_EDITS = changes.lists_of(
    changes.json_edits([CONFIG, CONFIG, MANIFEST, META, "llm/config.json"], [64, 3, "dac", "dense"])
    | changes.byte_edits(FILES)
)
EVE_EDITS = changes.lists_of(
    changes.json_edits(["config.json", "config.json", INDEX], [64, 3, "eve-llama3", "qwen2", SHARD, "mlp"])
    | changes.byte_edits(["config.json", INDEX])
    | changes.byte_edits([SHARD], ["cut", "empty", "remove", "move", "added", "other"])
)


@pytest.mark.parametrize("edits", KNOWN)
def test_known_changes_to_a_stage_folder(stage: Valid, edits: list[Edit]) -> None:
    check_stage(stage, edits)


@changes.profile(40)
@given(edits=STAGE_EDITS)
def test_any_change_to_a_stage_folder(stage: Valid, edits: list[Edit]) -> None:
    check_stage(stage, edits)


@changes.profile(40)
@given(edits=EVE_EDITS)
def test_any_change_to_a_hugging_face_folder(eve: Valid, edits: list[Edit]) -> None:
    check_eve(eve, edits)


@changes.profile(40)
@given(at=changes.st.floats(0, 1, exclude_max=True), flip=changes.st.integers(1, 255))
def test_any_byte_of_a_safetensors_header(eve: Valid, at: float, flip: int) -> None:
    check_eve(eve, [], (at, flip))


@pytest.mark.slow
@changes.profile(40, slow=True)
@given(edits=STAGE_EDITS)
def test_many_changes_to_a_stage_folder(stage: Valid, edits: list[Edit]) -> None:
    check_stage(stage, edits)


@pytest.mark.slow
@changes.profile(40, slow=True)
@given(edits=EVE_EDITS)
def test_many_changes_to_a_hugging_face_folder(eve: Valid, edits: list[Edit]) -> None:
    check_eve(eve, edits)


@pytest.mark.slow
@changes.profile(40, slow=True)
@given(at=changes.st.floats(0, 1, exclude_max=True), flip=changes.st.integers(1, 255))
def test_many_bytes_of_a_safetensors_header(eve: Valid, at: float, flip: int) -> None:
    check_eve(eve, [], (at, flip))
