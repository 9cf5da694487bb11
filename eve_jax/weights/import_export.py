"""Import and export of whole folders: every check first, then the weights one layer at a time, then one rename."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from eve_jax.checkpoint.adapters import without_adapters
from eve_jax.checkpoint.frozen_weights import FROZEN
from eve_jax.checkpoint.named_step import find_checkpoint
from eve_jax.checkpoint.own_tokenizer import own_tokenizer
from eve_jax.checkpoint.stage_folder import CONFIG, newest_step, read_config, read_meta
from eve_jax.checkpoint.streaming import write_checkpoint
from eve_jax.checkpoint.vision_copies import Folded, ParamSource
from eve_jax.data.samples.sample_rule import VISION_TOKENIZER
from eve_jax.data.text.templates import check_template
from eve_jax.data.text.tokenizer import COMPANIONS, MODEL_FILE, TOKENIZER_FILE
from eve_jax.errors import UserError
from eve_jax.hf import export_config
from eve_jax.hf.clip_teacher import without_aligning
from eve_jax.hf.config import INFERENCE_FIT, OURS
from eve_jax.hf.family import exported_member
from eve_jax.hf.names import Entry, eve_names, plain_llm
from eve_jax.hf.packed import SCALE, pack
from eve_jax.hf.packed import specs as packed_specs
from eve_jax.hf.safetensors_io import TensorWriter
from eve_jax.hf.section import WEIGHTS
from eve_jax.hf.vision_tokenizer import carry_vision_tokenizer
from eve_jax.model.config import DELTA, DTYPES, VARIANTS, ModelConfig
from eve_jax.model.family_config import EVE_FIELDS
from eve_jax.model.quantized import QUANTIZED, check_weights
from eve_jax.model.v1_config import OF_PATCHES, V1_SWITCHES
from eve_jax.process.files import folder_in_place_of, read_json, write_json
from eve_jax.process.hub import find_folder
from eve_jax.process.lock import locked
from eve_jax.process.paths import ONE_SLASH
from eve_jax.process.progress import BYTES, ProgressBar
from eve_jax.version import versioned
from eve_jax.weights.base_config import HF_CONFIG, PATHS, carried_config, moved_paths
from eve_jax.weights.base_facts import keep_base_facts
from eve_jax.weights.export_files import GENERATION, has_tokenizer, inference_fit, write_modeling, write_tokens
from eve_jax.weights.llava_export import Llava
from eve_jax.weights.not_finite import Watched, cast
from eve_jax.weights.open import Checkpoint, is_ours, open_checkpoint, stored_source
from eve_jax.weights.quantize import quantized_as, quantized_piece

CARRIED = (TOKENIZER_FILE, *COMPANIONS, MODEL_FILE, GENERATION)


def import_checkpoint(origin: str, target: str | Path, variant: str = "", seed: int = 0, quiet: bool = False) -> Path:
    """Make the stage folder `target` from a Hugging Face folder or hub id; returns it.

    Values keep their bits and dtypes. `variant` adds vision copies as copies of the text weights; a plain LLM gets a
    patch embedding initialized from `seed`. Holds about one layer of one parameter. Raises UserError, with nothing
    left behind, when the source is not exactly a model we know.
    """
    target = Path(target)
    _check_variant(variant)
    folder = find_folder(origin)
    if is_ours(folder):
        raise UserError(f"{folder} is a checkpoint of eve_jax already")
    checkpoint = open_checkpoint(folder, variant, seed)
    assert checkpoint.source is not None
    source = Watched(checkpoint.source)
    with new_folder(target) as temporary, _bar(f"import {folder.name}", _nbytes(source), quiet) as bar:
        write_checkpoint(temporary, source, bar.advance)
        _carry(folder, temporary)
        keep_base_facts(folder, temporary)
        write_json(temporary / HF_CONFIG, read_json(folder / CONFIG))
        write_json(temporary / CONFIG, versioned(export_config.our_config(checkpoint.cfg, checkpoint.data)))
    source.tell(folder)
    return target


def make_whole(folder: str | Path, target: str | Path, quiet: bool = False, average: bool = False) -> Path:
    """Make the stage folder `target` with all weights of the stage folder `folder`, which may refer to other folders.

    Values keep their bits and dtypes; the optimizer is left behind. average: what trains as its moving average, in the
    dtypes of the weights. Raises UserError with nothing left behind.
    """
    checkpoint = open_checkpoint(find_checkpoint(folder))
    if checkpoint.source is not None:
        raise UserError(f"{checkpoint.folder} is a Hugging Face folder, which holds all its weights already")
    return _make_stage(checkpoint, Path(target), "whole", quiet, average)


def _make_stage(checkpoint: Checkpoint, target: Path, verb: str, quiet: bool, average: bool) -> Path:
    """Make the stage folder `target` from another one: with all of its weights, or with its adapters added in."""
    folder = checkpoint.folder
    base, config = carried_config(folder), read_config(folder)
    step = newest_step(folder) if checkpoint.step is None else checkpoint.step
    source: ParamSource = stored_source(folder, step, average)
    if verb == "merge":
        source = without_adapters(source)
        config.pop("lora", None)
        config["model"].pop("lora", None)
    source = watched = Watched(source)
    meta = {k: v for k, v in read_meta(folder, step).items() if k != FROZEN}
    with new_folder(target) as temporary, _bar(f"{verb} {folder.name}", _nbytes(source), quiet) as bar:
        write_checkpoint(temporary, source, bar.advance, meta)
        _carry(folder, temporary)
        write_json(temporary / CONFIG, config, indent=1)
        write_json(temporary / HF_CONFIG, base)
        keep_base_facts(folder, temporary)
        if paths := moved_paths(folder, temporary):
            write_json(temporary / PATHS, paths)
    watched.tell(folder)
    return target


def merge_adapters(folder: str | Path, target: str | Path, quiet: bool = False, average: bool = False) -> Path:
    """Make the stage folder `target` with the weights of the run `folder` and its adapters added into them.

    Their matrices get the wider dtype of base and adapters, so that nothing is rounded; the others keep their bits.
    average: the adapters as their moving average. Raises UserError with nothing left behind.
    """
    checkpoint = open_checkpoint(find_checkpoint(folder))
    if checkpoint.cfg.lora is None:
        raise UserError(f"{checkpoint.folder} has no adapters: it is no run with config.lora.rank above 0")
    return _make_stage(checkpoint, Path(target), "merge", quiet, average)


def export_checkpoint(
    folder: str | Path | Checkpoint,
    target: str | Path,
    dtype: str = "",
    max_shard_gb: float = 5.0,
    text_only: bool = False,
    folded: bool = False,
    aligning: bool = True,
    quiet: bool = False,
) -> Path:
    """Make the Hugging Face folder `target` from a stage folder, another Hugging Face folder or what was opened of one;
    returns it.

    `dtype` float32, float16 or bfloat16 casts every weight, int8 or int4 quantizes the matrices of the layers and keeps
    the others, "" keeps them all bit for bit. `text_only` writes the plain
    LLM of the text weights, without patch embedding and vision copies; else the folder carries modeling files for
    `transformers`. Gated deltas (variant rep) are added into the weights, except on a LLaMA backbone without `folded`,
    for which the original has names for them; adapters always are. Without `aligning`, EVEv1's aligning layer and
    teacher, which only training needs, stay behind. Shards hold `max_shard_gb` (1e9 bytes). Raises UserError with
    nothing left behind.
    """
    target = Path(target)
    if dtype not in ("", *DTYPES, *QUANTIZED):
        raise UserError(f"--dtype={dtype}: expected one of {', '.join(DTYPES)}")
    weights, dtype = (check_weights(dtype, "--weights"), "") if dtype in QUANTIZED else ("", dtype)
    if weights and text_only:
        raise UserError(f"--weights={weights} goes with --notext_only: no other program reads such an LLM")
    checkpoint = folder if isinstance(folder, Checkpoint) else open_checkpoint(find_checkpoint(folder))
    folder = checkpoint.folder
    if kept := getattr(checkpoint.source, "weights", ""):
        raise UserError(f"{folder} has {kept} weights already; export the model that they were made of")
    source = without_adapters(checkpoint.source or stored_source(folder, checkpoint.step))
    if DELTA in source.cfg.parts and (folded or text_only or weights or not export_config.has_deltas(source.cfg)):
        source = Folded(source)
    tokenizer = own_tokenizer(folder) if has_tokenizer(folder) else None
    llava = None if text_only else Llava.of(source.cfg, tokenizer)
    source = source if llava is None else llava.widened(source, weights)
    watched = Watched(source)
    cfg = _text_only(source.cfg) if text_only else source.cfg
    if not aligning:
        cfg, _ = without_aligning(cfg, {})
    if not text_only:
        export_config.check_exported(cfg)
    table, data = plain_llm(cfg) if text_only else eve_names(cfg), checkpoint.data
    dtypes = {e.ours: np.dtype(dtype or source.shapes[e.ours].dtype) for e in table}
    widest = dtype or max(dtypes.values(), key=lambda d: d.itemsize).name
    if tokenizer is not None:
        tokenizer.check_vocabulary(cfg.vocab_size, "the model's vocabulary")
        if not text_only:
            check_template(tokenizer, data["template"])
    carried = carried_config(folder)
    if cfg.patch_embed == "v2" and not text_only:
        data = data | {INFERENCE_FIT: inference_fit(folder, carried)}
    config = export_config.hf_config(cfg, data, carried, widest, text_only)
    kinds = quantized_as(cfg, weights)
    if weights:
        config[OURS][WEIGHTS] = weights
    total = sum(source.shapes[name].size * d.itemsize for name, d in dtypes.items())
    with new_folder(target) as temporary, _bar(f"export {folder.name}", total, quiet) as bar:
        specs = _specs(source, table, dtypes, kinds)
        with TensorWriter(temporary, specs, int(max_shard_gb * 1e9)) as writer:
            for entry in table:
                for name, piece in zip(entry.names(cfg), watched.pieces(entry.ours), strict=True):
                    if entry.ours in kinds:
                        values, scales = quantized_piece(piece, kinds[entry.ours], entry.ours)
                        writer.write(name, pack(entry.to_theirs(values)))
                        writer.write(name + SCALE, entry.to_theirs(scales))
                    else:
                        writer.write(name, entry.to_theirs(cast(piece, dtypes[entry.ours], name)))
                    bar.advance(piece.size * dtypes[entry.ours].itemsize)
        _carry(folder, temporary)
        if llava is not None:
            llava.write(temporary, config)
        own_modeling = text_only or llava is not None or bool(exported_member(cfg))
        write_tokens(temporary, config, data, text_only or bool(exported_member(cfg)))
        write_json(temporary / CONFIG, versioned(config))
        if not own_modeling:
            write_modeling(temporary)
    watched.tell(folder)
    return target


def _text_only(cfg: ModelConfig) -> ModelConfig:
    """The LLM alone of a model `cfg`. Raises UserError where it was trained with parts that no LLM has."""
    if cfg.extra_layers or cfg.rope != "1d":
        name = "extra_layers" if cfg.extra_layers else "rope"
        raise UserError(
            f"model.{name}={getattr(cfg, name)}: what is left without it is not the LLM that was trained; export the "
            "model as it is, with --notext_only"
        )
    for name in ("key_values", "value_norm", "layer_scale", "logit_cap", "wide_head_dim"):
        if (value := getattr(cfg, name)) != EVE_FIELDS[name]:
            raise UserError(f"model.{name}={value}: no LLM alone that eve_jax writes has it; use --notext_only")
    own = {name: V1_SWITCHES[name] for name in OF_PATCHES}
    return replace(cfg, parts=(), encoder=None, codes=0, **EVE_FIELDS, **own)


def _check_variant(variant: str) -> None:
    if variant and variant not in VARIANTS:
        raise UserError(f"--variant={variant}: expected one of {', '.join(VARIANTS)}")


def _specs(
    source: ParamSource, table: list[Entry], dtypes: dict[str, np.dtype], kinds: dict[str, str]
) -> list[tuple[str, np.dtype, tuple[int, ...]]]:
    """Every tensor of the export in the order of the model: embeddings, layer by layer, the rest.

    `kinds`: of those that are quantized (`quantized_as`).
    """
    cfg = source.cfg
    rows: list[tuple[int, str, np.dtype, tuple[int, ...]]] = []
    for entry in table:
        shape = entry.their_shape(source.shapes[entry.ours].shape)
        before = -1 if entry.ours == "embed" else cfg.num_layers
        for i, name in enumerate(entry.names(cfg)):
            kind = kinds.get(entry.ours)
            stored = packed_specs(name, shape, kind) if kind else [(name, dtypes[entry.ours], shape)]
            rows += [(entry.first + i if entry.stacked else before, *spec) for spec in stored]
    return [row[1:] for row in sorted(rows, key=lambda row: row[0])]


def _carry(folder: Path, target: Path) -> None:
    """Copy the tokenizers' and the generation's files; JSON without a byte order mark, which other readers refuse."""
    carry_vision_tokenizer(folder / VISION_TOKENIZER, target / VISION_TOKENIZER)
    for name in CARRIED:
        if (folder / name).is_file():
            data = (folder / name).read_bytes()
            (target / name).write_bytes(data.removeprefix(codecs.BOM_UTF8) if name.endswith(".json") else data)


def _nbytes(source: ParamSource) -> int:
    return sum(s.size * np.dtype(s.dtype).itemsize for s in source.shapes.values())


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder next to `target` that takes its name at the end, or goes when anything fails."""
    if ONE_SLASH.match(str(target)):  # what is left of a URL
        raise UserError(f"{target}: made on this machine; only the command launch.convert writes to buckets")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists already; name a new folder")
    with (
        locked(target.parent, f"making {target.name}", f".{target.name}.lock"),
        folder_in_place_of(target) as temporary,
    ):
        yield temporary


def _bar(title: str, total: int, quiet: bool) -> ProgressBar:
    return ProgressBar(title, total, unit=BYTES, keep=True, off=quiet)
