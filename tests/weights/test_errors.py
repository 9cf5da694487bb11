"""What is wrong with a folder is said in one line, and nothing half-written is left behind."""

import json
import struct

import numpy as np
import pytest

from eve_jax.errors import UserError
from eve_jax.hf.safetensors_io import TensorWriter, check_names, open_tensors
from eve_jax.process.hub import find_folder
from eve_jax.weights import import_export as convert
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from eve_jax.weights.open import open_checkpoint
from tests.weights import folders

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
        lambda f: edit_config(f, rope_scaling={"rope_type": "dynamic", "factor": 8.0}),
        "rope_scaling of type 'dynamic', which eve_jax does not have",
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


def test_a_work_folder_names_its_stages(tmp_path):
    for stage in ("stage3", "stage1"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"it has no config.json; name one of the folders in it: stage1, stage3$"):
        export_checkpoint(str(tmp_path), tmp_path / "out", quiet=True)


def test_names_and_shapes(tmp_path):
    tensors, config = folders.golden()
    changes: dict[str, dict[str, np.ndarray | None]] = {
        f"tensor {UP} is missing (1 such)": {UP: None},
        "tensor model.layers.3.extra is unknown to this model (1 such)": {
            "model.layers.3.extra": np.zeros(3, np.float32)
        },
        f"tensor {UP} has shape (160, 65), the model requires (160, 64)": {UP: np.zeros((160, 65), np.float32)},
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
    with pytest.raises(UserError, match="--dtype=int2"):
        export_checkpoint(ours, tmp_path / "out", "int2", quiet=True)
    with pytest.raises(UserError, match="--weights=int8 goes with --notext_only"):
        export_checkpoint(ours, tmp_path / "out", "int8", text_only=True, quiet=True)
    with pytest.raises(UserError, match="no such folder"):
        find_folder(str(tmp_path / "none"))
    with pytest.raises(UserError, match="hf:nobody/nothing: the hub did not give it"):
        find_folder("hf:nobody/nothing")
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


def edit_header(folder, change, more=b""):
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    header = change(json.loads(raw[8:end]))
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw[end:] + more)


GATE = "model.layers.1.mlp.gate_proj.weight"


def at_one_place(header):
    header[UP]["data_offsets"] = header[GATE]["data_offsets"]
    return header


def shifted(header):
    for name in header.keys() - {"__metadata__"}:
        header[name]["data_offsets"] = [n + 4 for n in header[name]["data_offsets"]]
    return header


def second_name(header):
    """All bytes have an owner, some of them two."""
    return header | {"another": header[UP]}


def named_twice(header):
    return json.dumps(header)[:-1].encode() + f', "{UP}": {json.dumps(header[GATE])}}}'.encode()


@pytest.mark.parametrize(
    ("change", "more", "says"),
    [
        (at_one_place, b"", "is damaged: tensor .* begins at byte .*, the one before it ends at"),
        (shifted, b"abcd", "is damaged: tensor .* begins at byte 4 of the data, the one before it ends at 0"),
        (second_name, b"", "is damaged: tensor .* begins at byte .*, the one before it ends at"),
        (named_twice, b"", "its header cannot be read"),
        (dict, b"x" * 64, "is damaged: 64 bytes after its last tensor"),
    ],
)
def test_tensors_that_overlap_or_leave_gaps(change, more, says, tmp_path):
    """The library of the format refuses all of these; read here, a weight would be another."""
    folder = folders.write_hf(tmp_path / "in", *folders.plain("qwen2"))
    edit_header(folder, change, more)
    with pytest.raises(UserError, match=says):
        open_checkpoint(folder)


@pytest.mark.parametrize("again", ['"rope_theta": 7.0', '"vocab_size": 319', '"tie_word_embeddings": 0'])
def test_a_config_with_two_values_of_a_field(again, tmp_path):
    folder = folders.write_hf(tmp_path / "in", *folders.plain("qwen2"))
    path = folder / "config.json"
    path.write_text(path.read_text()[:-1] + f", {again}}}")
    with pytest.raises(UserError, match=r"config\.json is not valid JSON: .* stands there twice"):
        open_checkpoint(folder)


def test_a_message_is_one_line_however_long_the_values_it_quotes():
    line = str(UserError("a field is " + repr("x" * 5000) + "\nand more"))
    assert "\n" not in line
    assert len(line) < 1600
    assert line.startswith("a field is 'xxx") and line.endswith("and more")


def test_a_bucket_is_no_folder_of_this_machine(tmp_path, monkeypatch):
    """The command fetches and sends; in Python nothing would be sent."""
    monkeypatch.chdir(tmp_path)
    hf = folders.write_hf(tmp_path / "hf", *folders.plain("qwen2"))
    for convert_it in (import_checkpoint, export_checkpoint):
        with pytest.raises(UserError, match=r"^s3:/b/x: .* only the command launch\.convert writes to buckets$"):
            convert_it(str(hf), "s3://b/x", quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
