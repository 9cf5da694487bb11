"""What is poisoned: of each kind a folder of valid files, and what is done with it when it is somebody else's."""

import io
import json
import random
import struct
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.data.image.patches import image_size, open_image
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.image_file import BadImage
from eve_jax.data.plan.lengths import Lengths, kept_table
from eve_jax.data.plan.plan import PlanSettings, build_plan
from eve_jax.data.plan.table_check import ARRAYS
from eve_jax.data.record import BadRecord
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from eve_jax.data.text.load import load_tokenizer
from eve_jax.hf.safetensors_io import INDEX, SINGLE, open_tensors
from tests.data.synthetic import PLAN_SETTINGS, byte_tokenizer, write_records
from tests.mutations.other_bytes import mutated

N, MAX_TOKENS = 9, 1000
MODEL = Path(__file__).parents[1] / "golden" / "F_v1_spm.model"
SIZES = {
    "model_type": "eve-qwen2",
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": False,
    "mm_hidden_size": 32,
    "mm_vision_tower": "openai/eve-anyratio-res800-patch16",
    "add_moe": True,
    "moe_part": "layernorm-self_attn-mlp",
    "eve_jax": {"image_mode": "anyratio_ld", "max_size": 800, "max_aspect": 8.0, "template": "qwen2", "fit": "shrink"},
}
SCALED, LOCAL = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}, {"rope_type": "default", "rope_theta": 1e4}
TWO = ["sliding_attention", "full_attention"]
PLAIN: dict[str, dict[str, Any]] = {  # model_type of other bases, and what their config.json states
    "qwen3": {"rope_parameters": {**SCALED, "original_max_position_embeddings": 64, "beta_fast": 16.0}, "head_dim": 16},
    "mistral": {"sliding_window": 5, "layer_types": TWO[:1] * 2, "rope_theta": 1e4},
    "smollm3": {"no_rope_layers": [1, 0], "no_rope_layer_interval": 2},
    "gemma3_text": {
        "rope_parameters": {TWO[1]: LOCAL | {"rope_theta": 1e6}, TWO[0]: LOCAL},
        "layer_types": TWO,
        "sliding_window": 5,
        "query_pre_attn_scalar": 24,
        "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh",
    },
}
Use = Callable[[Path], object]


@dataclass(frozen=True)
class Target:
    """files: of the kind's folder, that are mutated. make: writes them. open: gives what uses the folder.

    mutate: a mutation of its own in place of one of any bytes.
    """

    files: tuple[str, ...]
    make: Callable[[Path], object]
    open: Callable[[Path], Use]
    mutate: Callable[[bytes, random.Random], bytes] | None = None


def _rule() -> SampleRule:
    return SampleRule(byte_tokenizer(), ImageRule("anyratio_ld", max_size=96), "qwen2", max_tokens=MAX_TOKENS)


def _make_table(folder: Path) -> None:
    measure(open_records(str(write_records(folder, N)), folder / "images"), _rule()).save(folder / "table.npz")


def _plan(folder: Path) -> object:
    table = kept_table(folder / "table.npz", N, MAX_TOKENS)
    if table is None:
        return None
    entries = [(table.entry(number), table.entry_seen(number)) for number in range(len(table))]
    return entries, build_plan(table, PlanSettings(**PLAN_SETTINGS | {"row_tokens": 1024}))


def _other_numbers(data: bytes, rng: random.Random) -> bytes:
    """A table with other numbers in its arrays and the digest that belongs to them, or with other bytes."""
    if rng.random() < 0.3:
        return mutated(data, rng)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "table.npz").write_bytes(data)
        table = Lengths.load(Path(folder) / "table.npz")
    values = (-(2**31), -1, 0, 1, 3, 999, 2**29, 2**30, 2**31 - 1, rng.randrange(-(2**31), 2**31))
    changed: dict[str, Any] = {}
    for _ in range(rng.choice((1, 2, 5))):
        name = rng.choice(ARRAYS)
        array = changed.get(name, np.array(getattr(table, name)))
        kind = rng.randrange(8)
        if kind == 0:
            array = array[rng.randrange(len(array) + 1) :]
        elif kind == 1:
            array = array.astype(rng.choice(("<i8", "<f4", ">i4")))
        elif array.size:
            array.reshape(-1)[rng.randrange(array.size)] = rng.choice(values)
        changed[name] = array
    with tempfile.TemporaryDirectory() as folder:
        replace(table, **changed).save(Path(folder) / "table.npz")
        return (Path(folder) / "table.npz").read_bytes()


def _safetensors(tensors: dict[str, int]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in tensors.items():
        header[name] = {"dtype": "F32", "shape": [size, 2], "data_offsets": [end, end + 8 * size]}
        end += 8 * size
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(end)


def _header(data: bytes, rng: random.Random) -> bytes:
    """A mutated header, as a rule with the length that it then has."""
    if rng.random() < 0.2:
        return mutated(data, rng)
    (length,) = struct.unpack("<Q", data[:8])
    header = mutated(data[8 : 8 + length], rng)
    stated = len(header) if rng.random() < 0.9 else rng.choice((0, 1, length, 2**63, 100_000_000))
    return struct.pack("<Q", stated) + header + data[8 + length :]


def _read_tensors(folder: Path) -> object:
    return [info.read() for info in open_tensors(folder).values()]


def _make_tensors(folder: Path) -> None:
    (folder / SINGLE).write_bytes(_safetensors({"a": 1, "b": 0, "c": 40}))


def _make_index(folder: Path) -> None:
    names = {f"model-0000{n}-of-00002.safetensors": {f"t{n}{k}": n + k for k in range(3)} for n in (1, 2)}
    for name, tensors in names.items():
        (folder / name).write_bytes(_safetensors(tensors))
    where = {tensor: name for name, tensors in names.items() for tensor in tensors}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))


def _make_configs(folder: Path) -> None:
    from configs import stage3
    from eve_jax.config.stage import Config

    (folder / "config.json").write_text(json.dumps(SIZES))
    (folder / "stage").mkdir()
    (folder / "stage" / "config.json").write_text(Config.of(stage3.get_config("llm=tiny")).to_json())


def _configs(folder: Path) -> Use:
    from eve_jax.hf.config import model_config
    from eve_jax.hf.config_fields import warn_unknown
    from eve_jax.hf.conventions import data_settings
    from eve_jax.hf.names import eve_names
    from eve_jax.hf.section import stored_teacher, stored_weights
    from eve_jax.model.eve import abstract_params
    from eve_jax.process.files import read_json
    from eve_jax.weights.stage_config import stage_config

    def use(folder: Path) -> object:
        hf = read_json(folder / "config.json")
        cfg = model_config(hf, folder)
        warn_unknown(hf, folder / "config.json")
        found = (data_settings(hf, folder, cfg), stored_teacher(hf, folder), stored_weights(hf, folder))
        return found, abstract_params(cfg), eve_names(cfg)[:1], stage_config(folder / "stage")

    return use


def _make_plain(folder: Path) -> None:
    shared = {name: value for name, value in SIZES.items() if name[:3] not in ("add", "eve", "mm_", "moe", "rop")}
    for kind, own in PLAIN.items():
        (folder / kind).mkdir()
        (folder / kind / "config.json").write_text(json.dumps(shared | {"model_type": kind, **own}))


def _plain_configs(folder: Path) -> Use:
    from eve_jax.hf.config import model_config
    from eve_jax.hf.config_fields import warn_unknown
    from eve_jax.hf.conventions import data_settings
    from eve_jax.model.eve import abstract_params
    from eve_jax.process.files import read_json

    def use(folder: Path) -> None:
        for kind in PLAIN:
            hf = read_json(folder / kind / "config.json")
            warn_unknown(hf, folder / kind / "config.json")
            cfg = model_config(hf, folder / kind)
            data_settings(hf, folder / kind, cfg)
            abstract_params(cfg)

    return use


def _make_records(kind: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        from tests.data.source_files import samples_of, write_parquet, write_tar

        write_records(folder, N)
        (write_parquet if kind == "parquet" else write_tar)(folder / f"a.{kind}", samples_of(folder))

    return make


def _read_records(name: str) -> Callable[[Path], Use]:
    def use(folder: Path) -> object:
        found = []
        for index in range(len(records := open_records(str(folder / name), folder / "images"))):
            try:
                record = records[index]
                found += [(image_size(image), open_image(image)) for image in record.images]
            except (BadRecord, BadImage):
                continue
            if index > 50:
                break
        return found

    return lambda folder: use


def _tokenizer(folder: Path) -> object:
    tokenizer = load_tokenizer(folder)
    with suppress(BadRecord):
        tokenizer.encode("<|im_end|>a</s>", special_text=False)
    return tokenizer.decode(tokenizer.encode("Hello, 图 😀<|im_end|>")), tokenizer.vocab_size


def _make_spm(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(MODEL.read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({"legacy": True, "bos_token": "<s>"}))


def _make_fast(folder: Path) -> None:
    byte_tokenizer().save(folder)
    config = {"added_tokens_decoder": {"256": {"content": "<|im_end|>", "special": True}}, "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def quiet(use: Use) -> Use:
    """`use` without its warnings, of which each mutation has one."""

    def used(folder: Path) -> object:
        with redirect_stderr(io.StringIO()):
            return use(folder)

    return used


KINDS = {
    "lengths": Target(("table.npz",), _make_table, lambda _: quiet(_plan), _other_numbers),
    "safetensors": Target((SINGLE,), _make_tensors, lambda _: quiet(_read_tensors), _header),
    "index": Target((INDEX,), _make_index, lambda _: quiet(_read_tensors)),
    "config": Target(("config.json", "stage/config.json"), _make_configs, lambda f: quiet(_configs(f))),
    "plain": Target(tuple(f"{kind}/config.json" for kind in PLAIN), _make_plain, lambda f: quiet(_plain_configs(f))),
    "parquet": Target(("a.parquet",), _make_records("parquet"), lambda f: quiet(_read_records("a.parquet")(f))),
    "tar": Target(("a.tar",), _make_records("tar"), lambda f: quiet(_read_records("a.tar")(f))),
    "tokenizer": Target(("tokenizer.json", "tokenizer_config.json"), _make_fast, lambda _: quiet(_tokenizer)),
    "sentencepiece": Target(("tokenizer.model", "tokenizer_config.json"), _make_spm, lambda _: quiet(_tokenizer)),
}
