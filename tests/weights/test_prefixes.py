"""Names and files of checkpoints as others leave them: wrappers' prefixes, tables next to the weights, adapters."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from eve_jax.errors import UserError
from eve_jax.hf.prefixes import without_prefix
from eve_jax.hf.tensors import HfSource
from eve_jax.weights.import_export import export_checkpoint, import_checkpoint
from eve_jax.weights.open import open_checkpoint
from tests.weights import folders

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def opened(folder: Path) -> folders.Tensors:
    """Every tensor that the folder's model takes, by the names without wrappers."""
    return {name: info.read() for name, info in HfSource(folder).tensors.items()}


def renamed(tensors: folders.Tensors, body: str, head: str) -> folders.Tensors:
    return {head + n if n == HEAD else body + n.removeprefix("model."): v for n, v in tensors.items()}


WRAPPED = {
    "DDP": ("module.model.", "module."),
    "torch.compile": ("_orig_mod.model.", "_orig_mod."),
    "both": ("module._orig_mod.model.", "module._orig_mod."),
    "twice": ("module.module.model.", "module.module."),
    "multimodal": ("language_model.model.", "language_model."),
    "multimodal of newer releases": ("model.language_model.", ""),
    "PEFT": ("base_model.model.model.", "base_model.model."),
    "without model": ("", ""),
    "DeepSpeed": ("_forward_module.model.", "_forward_module."),
    "a trainer's": ("student.model.", "student."),
    "doubled": ("model.model.", "model."),
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("tied", [False, True])
def test_one_prefix_is_taken_off(tmp_path, kind, tied):
    tensors, config = folders.plain("qwen2", tied)
    hf = folders.write_hf(tmp_path / "hf", renamed(tensors, *WRAPPED[kind]), config, shards=2)
    folders.same(opened(hf), tensors)


@pytest.mark.parametrize("kind", ["DDP", "torch.compile", "both"])
def test_of_eve(tmp_path, kind):
    tensors, config = folders.golden()
    hf = folders.write_hf(tmp_path / "hf", renamed(tensors, *WRAPPED[kind]), config)
    folders.same(opened(hf), tensors)


LAYER = r"(layers\.\d+)\."
INSIDE: dict[str, tuple[str, str]] = {
    "compiled layers": (LAYER, r"\1._orig_mod."),
    "one compiled layer": (r"(layers\.0)\.", r"\1._orig_mod."),
    "compiled parts": (r"(mlp|self_attn|vision_tower)\.", r"\1._orig_mod."),
    "compiled leaves": (r"\.(weight|bias)$", r"._orig_mod.\1"),
    "sharded and checkpointed layers": (LAYER, r"\1._fsdp_wrapped_module._checkpoint_wrapped_module."),
    "layers of DDP": (LAYER, r"\1.module."),
}


@pytest.mark.parametrize("outside", ["", "module.", "_fsdp_wrapped_module."])
@pytest.mark.parametrize("kind", INSIDE)
def test_prefixes_inside_names_are_taken_off(kind, outside):
    for tensors, is_plain in ((folders.plain("qwen2")[0], True), (folders.golden()[0], False)):
        inside = {outside + re.sub(*INSIDE[kind], name): v for name, v in tensors.items()}
        assert inside.keys() != {outside + name for name in tensors}
        folders.same(without_prefix(inside, Path("F"), is_plain), tensors)


def test_a_model_of_compiled_layers_opens(tmp_path):
    tensors, config = folders.golden()
    inside = {re.sub(*INSIDE["compiled layers"], name): v for name, v in tensors.items()}
    folders.same(opened(folders.write_hf(tmp_path / "hf", inside, config, shards=2)), tensors)


@pytest.mark.parametrize(
    ("pattern", "wrapped"),
    [
        (r"layers\.0\.mlp", "layers.0._orig_mod.mlp"),
        (r"layers\.1\.mlp\.up_proj", "layers.1.mlp._orig_mod.up_proj"),
    ],
)
def test_prefixes_inside_some_names_of_a_module_are_named(pattern, wrapped):
    tensors, _ = folders.plain("qwen2")
    inside = {re.sub(pattern, wrapped, name): v for name, v in tensors.items()}
    with pytest.raises(UserError, match=r"^F: tensors have names of two kinds, as (\S+) and (\S+); give all") as error:
        without_prefix(inside, Path("F"), plain=True)
    assert wrapped in str(error.value) and "save the model without wrappers" in str(error.value)


def test_import_and_export_have_the_names_without(tmp_path):
    tensors, config = folders.plain("llama")
    hf = folders.write_hf(tmp_path / "hf", renamed(tensors, *WRAPPED["DDP"]), config)
    ours = import_checkpoint(str(hf), tmp_path / "ours", quiet=True)
    out = export_checkpoint(ours, tmp_path / "out", text_only=True, quiet=True)
    folders.same(folders.read_hf(out), tensors)


def mixed(tensors: folders.Tensors, name: str, new: str) -> folders.Tensors:
    return {new if n == name else n: v for n, v in tensors.items()}


@pytest.mark.parametrize(
    ("name", "new"),
    [
        (EMBED, "module.model.embed_tokens.weight"),
        ("model.layers.1.mlp.up_proj.weight", "layers.1.mlp.up_proj.weight"),
        ("model.norm.weight", "model.model.norm.weight"),
        (HEAD, "module.lm_head.weight"),
    ],
)
def test_two_kinds_are_named(tmp_path, name, new):
    tensors, _ = folders.plain("qwen2")
    with pytest.raises(UserError, match="names of two kinds") as error:
        without_prefix(mixed(tensors, name, new), tmp_path, plain=True)
    assert new in str(error.value)


@pytest.mark.parametrize("prefix", ["ema", "net.ema_model", "0"])
def test_a_prefix_that_is_not_known_is_named(tmp_path, prefix):
    tensors, _ = folders.plain("qwen2")
    with pytest.raises(UserError, match=rf"{prefix}\.model\..+ has one behind {prefix}\.; save the model without"):
        without_prefix({f"{prefix}.{name}": value for name, value in tensors.items()}, tmp_path, plain=True)


def test_wrapped_layers_with_a_bare_head(tmp_path):
    tensors, _ = folders.plain("qwen2")
    with pytest.raises(UserError, match=r"two kinds, as module\.model\..+ and lm_head\.weight"):
        without_prefix(renamed(tensors, "module.model.", ""), tmp_path, plain=True)


def test_eve_whose_vision_has_another_prefix(tmp_path):
    tensors, _ = folders.golden()
    wrapped = {n if "vision_tower" in n else f"module.{n}": v for n, v in tensors.items()}
    with pytest.raises(UserError, match=r"model\.vision_tower\.\S+ has not the prefix module\.model\."):
        without_prefix(wrapped, tmp_path, plain=False)


@pytest.mark.parametrize("beside", ["vision_tower.patch.weight", "model.visual.blocks.0.weight"])
def test_multimodal_model_of_another_family(tmp_path, beside):
    tensors, config = folders.plain("qwen2")
    wrapped = renamed(tensors, "model.language_model.", "") | {beside: np.ones(2, np.float32)}
    hf = folders.write_hf(tmp_path / "hf", wrapped, config)
    with pytest.raises(UserError, match="multimodal model of another family; save its language model"):
        open_checkpoint(hf)


def test_adapters(tmp_path):
    tensors, config = folders.plain("qwen2")
    lora = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": np.ones((2, 48), np.float32)}
    beside = folders.write_hf(tmp_path / "beside", tensors, config)
    save_file(lora, beside / "adapter_model.safetensors")
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "adapter_config.json").write_text("{}")
    within = folders.write_hf(tmp_path / "within", tensors | lora, config)
    layer = {"model.layers.0.mlp.up_proj.base_layer.weight": tensors["model.layers.0.mlp.up_proj.weight"]}
    layered = folders.write_hf(tmp_path / "layered", tensors | layer, config)
    for folder in (beside, alone, within, layered):
        with pytest.raises(UserError, match=r"PEFT adapter.*merge it into its base model first"):
            import_checkpoint(str(folder), tmp_path / "out", quiet=True)


BUFFERS: folders.Tensors = {
    "model.rotary_emb.inv_freq": np.ones(8, np.float32),
    "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32),
    "model.layers.1.self_attn.rotary_emb.cos_cached": np.ones((4, 8), np.float32),
    "model.embeddings.position_ids": np.arange(8)[None],
    "model.layers.0.attn.bias": np.ones((1, 1, 4, 4), np.bool_),
    "model.layers.0.attn.masked_bias": np.array(-1e9, np.float64),
}


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_tables_beside_the_weights(tmp_path, shards, prefix):
    tensors, config = folders.plain("llama")
    every = {prefix + n: v for n, v in (tensors | BUFFERS).items()}
    folders.same(opened(folders.write_hf(tmp_path / "hf", every, config, shards)), tensors)


def test_head_of_a_tied_model(tmp_path):
    tensors, config = folders.plain("qwen2", tied=True)
    same = folders.write_hf(tmp_path / "same", tensors | {HEAD: tensors[EMBED]}, config)
    assert "head" not in open_checkpoint(same).params()
    for i, other in enumerate((tensors[EMBED] + 1, tensors[EMBED][:-1])):
        hf = folders.write_hf(tmp_path / str(i), tensors | {HEAD: other}, config)
        with pytest.raises(UserError, match=r"lm_head\.weight is not model\.embed_tokens\.weight, though config\.json"):
            open_checkpoint(hf)


def test_byte_order_marks(tmp_path):
    """In every JSON file of the folder; an export has none, since other readers refuse them."""
    tensors, config = folders.plain("qwen2")
    hf = folders.write_hf(tmp_path / "hf", tensors, config, shards=2)
    (hf / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "model.safetensors.index.json"):
        (hf / name).write_bytes(b"\xef\xbb\xbf" + (hf / name).read_bytes())
    ours = import_checkpoint(str(hf), tmp_path / "ours", quiet=True)
    out = export_checkpoint(ours, tmp_path / "out", text_only=True, quiet=True)
    folders.same(folders.read_hf(out), tensors)
    for file in (*ours.glob("*.json"), *out.glob("*.json")):
        json.loads(file.read_text())
    assert json.loads((out / "config.json").read_text())["max_position_embeddings"] == 128


def test_files_beside_the_weights(tmp_path, capsys):
    tensors, config = folders.plain("qwen2")
    hf = folders.write_hf(tmp_path / "hf", tensors, config, shards=2)
    (hf / "pytorch_model.bin").write_bytes(b"x")
    (hf / "consolidated.safetensors").write_bytes(b"x")
    (hf / "original").mkdir()
    (hf / "original" / "model.safetensors").write_bytes(b"x")
    folders.same(opened(hf), tensors)
    assert capsys.readouterr().err == ""
    (hf / "model-00003-of-00003.safetensors").write_bytes(b"x")
    folders.same(opened(hf), tensors)
    assert "model-00003-of-00003.safetensors is not read" in capsys.readouterr().err
    (hf / "model.safetensors").write_bytes((hf / "model-00001-of-00002.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"has both model\.safetensors and model\.safetensors\.index\.json"):
        opened(hf)


def retyped(hf: Path, code: bytes) -> None:
    file = hf / "model.safetensors"
    raw = file.read_bytes()
    file.write_bytes(raw.replace(b'"dtype":"F32"', b'"dtype":"' + code + b'"', 1))


def test_weights_of_other_types_and_empty_files(tmp_path):
    tensors, config = folders.plain("qwen2")
    for code in ("I32", "U32"):
        hf = folders.write_hf(tmp_path / code, tensors, config)
        retyped(hf, code.encode())
        with pytest.raises(UserError, match=rf"tensor \S+ is of type {code}; known: F32, F16, BF16"):
            opened(hf)
    hf = folders.write_hf(tmp_path / "f8", tensors, config)
    header = {EMBED: {"dtype": "F8_E4M3", "shape": [320, 48], "data_offsets": [0, 320 * 48]}}
    text = json.dumps(header).encode()
    (hf / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(320 * 48))
    with pytest.raises(UserError, match=r"embed_tokens\.weight is of type F8_E4M3"):
        opened(hf)
    (hf / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is no safetensors file: it is empty"):
        opened(hf)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]},
        {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0]},
        {"dtype": "F32", "shape": [2], "data_offsets": "08"},
        ["F32"],
    ],
)
def test_headers_that_say_nothing(tmp_path, entry):
    hf = folders.write_hf(tmp_path / "hf", *folders.plain("qwen2"))
    text = json.dumps({EMBED: entry}).encode()
    (hf / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    with pytest.raises(UserError, match="its header cannot be read"):
        opened(hf)


@pytest.mark.parametrize("index", ["[]", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "{"])
def test_index_that_is_none(tmp_path, index):
    hf = folders.write_hf(tmp_path / "hf", *folders.plain("qwen2"), shards=2)
    (hf / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match=r"index\.json (is no index|is not valid JSON|does not hold a JSON object)"):
        opened(hf)
