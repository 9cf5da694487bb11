"""What is wrong with a folder is said in one line, and nothing half-written is left behind."""

import json
import struct

import numpy as np
import pytest

from eve_jax.convert import convert
from eve_jax.convert.convert import export_checkpoint, find_folder, import_checkpoint
from eve_jax.convert.source import open_checkpoint
from eve_jax.convert.tensors import TensorWriter, check_names, open_tensors
from eve_jax.errors import UserError
from tests.convert import folders

UP = "model.layers.1.mlp.up_proj.weight"


def truncate(folder):
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])


def truncate_in_the_header(folder):
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:200])


def no_shard(folder):
    sorted(folder.glob("*.safetensors"))[1].unlink()


def garbage(folder):
    sorted(folder.glob("*.safetensors"))[1].write_bytes(b"x" * 4096)


def edit_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def twice(folder):
    first, second = sorted(folder.glob("*.safetensors"))
    second.write_bytes(first.read_bytes())


def edit_config(folder, **fields):
    path = folder / "config.json"
    config = {k: v for k, v in (json.loads(path.read_text()) | fields).items() if v != "drop"}
    path.write_text(json.dumps(config))


def retyped(folder):
    shard = sorted(folder.glob("*.safetensors"))[0]
    raw = shard.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    shard.write_bytes(raw[:8] + raw[8 : 8 + length].replace(b'"F32"', b'"I32"') + raw[8 + length :])


BROKEN = {
    "truncated": (truncate, "model-00002-of-00002.safetensors is truncated"),
    "truncated in the header": (truncate_in_the_header, "model-00002-of-00002.safetensors is truncated"),
    "missing shard": (no_shard, "shard model-00002-of-00002.safetensors is missing"),
    "garbage": (garbage, "model-00002-of-00002.safetensors is no safetensors file"),
    "two shards": (twice, "is in two shards"),
    "not in the index": (lambda f: edit_index(f, lambda m: m.pop(UP)), f"tensor {UP} is here, but not according to"),
    "not in the shard": (
        lambda f: edit_index(f, lambda m: m.update(extra=min(m.values()))),
        "tensor extra is in model.safetensors.index.json, but not in shard model-00001",
    ),
    "integers": (retyped, "is of type I32"),
    "model_type": (lambda f: edit_config(f, model_type="gpt2"), "model_type 'gpt2' is unknown; known: eve, eve-llama3"),
    "field": (lambda f: edit_config(f, hidden_size="drop"), "has no field 'hidden_size'"),
    "parts": (lambda f: edit_config(f, moe_part="mlp-norm"), "moe_part 'mlp-norm'"),
    "fewer parts": (lambda f: edit_config(f, moe_part="mlp"), "is unknown to this model (27 such)"),
    "rope_scaling": (
        lambda f: edit_config(f, rope_scaling={"rope_type": "yarn", "factor": 8.0}),
        "rope_scaling of type 'yarn', which eve_jax does not have",
    ),
    "rope_scaling's fields": (
        lambda f: edit_config(f, rope_scaling={"rope_type": "llama3", "factor": 8.0}),
        "rope_scaling of type llama3 has no field 'low_freq_factor'",
    ),
    "no heads": (lambda f: edit_config(f, num_attention_heads=0), "num_attention_heads is 0: expected a whole number"),
    "sizes": (lambda f: edit_config(f, intermediate_size=96), "has shape"),
    "gated deltas": (
        lambda f: edit_config(f, model_type="eve-llama3", moe_part=None),
        "tensor model.layers.0.mlp.moe_up_proj is missing",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "no model": (lambda f: (f / "config.json").write_text("{}"), "is of no model"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folder(tmp_path, name):
    hf = folders.write_hf(tmp_path / "hf", *folders.golden(), shards=2)
    breaks, message = BROKEN[name]
    breaks(hf)
    for convert_it in (import_checkpoint, export_checkpoint):
        with pytest.raises(UserError) as error:
            convert_it(str(hf), tmp_path / "out", quiet=True)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_names_and_shapes(tmp_path):
    tensors, config = folders.golden()
    changes: dict[str, dict[str, np.ndarray | None]] = {
        f"tensor {UP} is missing (1 such)": {UP: None},
        "tensor model.layers.3.extra is unknown to this model (1 such)": {
            "model.layers.3.extra": np.zeros(3, np.float32)
        },
        f"tensor {UP} has shape (160, 65), the model wants (160, 64)": {UP: np.zeros((160, 65), np.float32)},
        "tensor lm_head.weight has shape (64,)": {"lm_head.weight": np.zeros(64, np.float32)},
    }
    for i, (message, change) in enumerate(changes.items()):
        changed = {k: v for k, v in {**tensors, **change}.items() if v is not None}
        hf = folders.write_hf(tmp_path / str(i), changed, config)
        with pytest.raises(UserError) as error:
            import_checkpoint(str(hf), tmp_path / "out", quiet=True)
        assert message in str(error.value)
        assert not (tmp_path / "out").exists()


def test_a_table_that_names_a_tensor_twice():
    with pytest.raises(ValueError, match="has a twice"):
        check_names("here", [("a", (1,)), ("a", (1,))], {"a": (1,)})


def test_layers_of_different_types(tmp_path):
    tensors, config = folders.golden()
    tensors = tensors | {UP: tensors[UP].astype(np.float16)}
    with pytest.raises(UserError, match="different types in different layers"):
        open_checkpoint(folders.write_hf(tmp_path / "hf", tensors, config))


def test_failure_half_way_leaves_nothing(tmp_path, monkeypatch):
    hf = folders.write_hf(tmp_path / "hf", *folders.golden())

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(convert, "_carry", fail)  # after the weights
    for convert_it in (import_checkpoint, export_checkpoint):
        with pytest.raises(OSError, match="disk full"):
            convert_it(str(hf), tmp_path / "out", quiet=True)
        assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_targets_and_origins(tmp_path):
    hf = folders.write_hf(tmp_path / "hf", *folders.golden())
    ours = import_checkpoint(str(hf), tmp_path / "ours", quiet=True)
    with pytest.raises(UserError, match="exists already"):
        import_checkpoint(str(hf), ours, quiet=True)
    with pytest.raises(UserError, match="is a checkpoint of eve_jax already"):
        import_checkpoint(str(ours), tmp_path / "out", quiet=True)
    with pytest.raises(UserError, match="would be dropped"):
        import_checkpoint(str(hf), tmp_path / "out", "moe", quiet=True)
    with pytest.raises(UserError, match="--variant=rap"):
        import_checkpoint(str(hf), tmp_path / "out", "rap", quiet=True)
    with pytest.raises(UserError, match="--dtype=int8"):
        export_checkpoint(ours, tmp_path / "out", "int8", quiet=True)
    with pytest.raises(UserError, match="no such folder"):
        find_folder(str(tmp_path / "none"))
    with pytest.raises(UserError, match="nobody/nothing is no folder here, and the hub did not give it"):
        find_folder("nobody/nothing")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pytorch_model.bin").touch()
    with pytest.raises(UserError, match="save it again as safetensors"):
        open_tensors(tmp_path / "bin")
    (ours / "checkpoints" / "0").rename(ours / "0")
    with pytest.raises(UserError, match="holds no finished checkpoint"):
        export_checkpoint(ours, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_writer_wants_every_tensor_once(tmp_path):
    specs = [("a", np.dtype(np.float32), (2, 3)), ("b", np.dtype(np.float32), (4,))]
    with (
        pytest.raises(ValueError, match="1 tensors were never written, b first"),
        TensorWriter(tmp_path, specs, 10**9) as w,
    ):
        w.write("a", np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="in the place of"), TensorWriter(tmp_path, specs, 10**9) as w:
        w.write("a", np.zeros((3, 2), np.float32))
