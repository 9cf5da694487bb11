"""Hugging Face tensors to our parameters, strictly: every name is accounted for or the conversion stops."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from eve_jax.checkpoint.zero_weights import check_zero, is_zero
from eve_jax.data.image.size_rules import GEMMA, NEO, SAIL
from eve_jax.errors import UserError
from eve_jax.hf import gemma
from eve_jax.hf.clip_teacher import one_teacher, sizes_from_tensors
from eve_jax.hf.config import CONFIG, V1, is_plain, model_config
from eve_jax.hf.config_fields import warn_unknown
from eve_jax.hf.conventions import data_settings
from eve_jax.hf.family import SAIL_PATCH, image_tokens, member, plain_part
from eve_jax.hf.generation import check_generation
from eve_jax.hf.llava import is_llava, respelled, text_section, warn_unknown_of_llava
from eve_jax.hf.names import SAIL_TENSOR, Entry, eve_names, plain_llm
from eve_jax.hf.packed import Packed, open_packed, stored_as
from eve_jax.hf.prefixes import without_prefix
from eve_jax.hf.safetensors_io import check_names, open_tensors
from eve_jax.hf.section import stored_teacher, stored_weights
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, abstract_params, declared
from eve_jax.process.files import read_json


class HfSource:
    """The parameters in a Hugging Face folder, read one tensor at a time; of a plain LLM with the fields `patch`.

    Names and shapes are checked when it is made, from the headers of the files. Raises UserError naming the tensor
    that is missing, unknown, in two shards or of the wrong shape, or the file that is missing or truncated.
    """

    def __init__(self, folder: Path, **patch: Any):
        self.config = read_json(folder / CONFIG)
        self.cfg = model_config(self.config, folder, **patch)
        within = is_llava(self.config)
        kind = member(self.config)
        if kind == GEMMA:
            gemma.warn_unknown(self.config, folder / CONFIG)
        else:
            warn_unknown(text_section(plain_part(self.config)), folder / CONFIG)
        if within:
            warn_unknown_of_llava(self.config, folder / CONFIG)
        check_generation(folder, self.cfg.vocab_size)
        self.weights = stored_weights(self.config, folder)
        stored = open_packed(open_tensors(folder, bool(self.weights)), self.weights, folder)
        self.cfg = replace(self.cfg, **image_tokens(self.config, folder))
        self.tensors: dict[str, Any]
        if within:
            self.tensors = respelled(stored, folder)
        elif kind in (NEO, GEMMA):  # prefixes are part of their names
            self.tensors = gemma.without_audio(stored) if kind == GEMMA else stored
        else:
            self.tensors = without_prefix(stored, folder, is_plain(self.config))
        if self.config["model_type"] == V1:
            self.tensors = one_teacher(self.tensors)
            self.cfg = sizes_from_tensors(self.cfg, self.tensors, stored_teacher(self.config, folder))
        table = plain_llm(self.cfg) if is_plain(self.config) else eve_names(self.cfg)
        self.embed = next(entry.theirs for entry in table if entry.ours == "embed")
        norm = next(entry.theirs for entry in table if entry.ours.startswith("norm."))
        self.head = self.embed.replace("model.embed_tokens", "lm_head")
        shapes = abstract_params(self.cfg)
        found = {name: info.shape for name, info in self.tensors.items()}
        if SAIL_TENSOR in found and kind != SAIL:
            raise UserError(f"{folder}: tensor {SAIL_TENSOR} is SAIL's, but config.json has no {SAIL_PATCH}")
        check_names(str(folder), _expected(self.cfg, table, shapes), found, self._is_tied)
        self.data = data_settings(self.config, folder, self.cfg)
        floating = next(self.tensors[n] for n in (self.embed, norm) if not isinstance(self.tensors[n], Packed))
        dtype = "float32" if floating.dtype == np.float32 else "bfloat16"
        self.cfg = replace(self.cfg, dtype=dtype, frozen_dtype=dtype)
        self.entries = {e.ours: e for e in table}
        self.shapes: Params = {}
        for entry in table:
            dtypes = {self.tensors[n].dtype for n in entry.names(self.cfg)}
            if len(dtypes) > 1:
                raise UserError(f"{folder}: {entry.theirs} is of different types in different layers")
            self.shapes[entry.ours] = jax.ShapeDtypeStruct(shapes[entry.ours].shape, dtypes.pop())

    def _is_tied(self, name: str) -> bool:
        """Return True for the head of a model that ties it to the embeddings; raise UserError when it is another."""
        if name != self.head or not self.cfg.tie_embeddings:
            return False
        head, embed = self.tensors[self.head], self.tensors[self.embed]
        if head.shape != embed.shape or not np.array_equal(head.read(), embed.read()):
            raise UserError(
                f"{head.file}: tensor {self.head} is not {self.embed}, though {CONFIG} says tie_word_embeddings; set "
                f"that to false, or remove {self.head}, whichever the model was trained with"
            )
        return True

    def packed(self, name: str) -> bool:
        """Return whether our parameter `name` is stored quantized."""
        return any(isinstance(self.tensors[theirs], Packed) for theirs in self.entries[name].names(self.cfg))

    def quantized_pieces(self, name: str, weights: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Values [D, F] and scales of each layer of our quantized matrix `name`, or those of a table.

        weights: what it is quantized to. Raises UserError when it is not.
        """
        entry, stored = self.entries[name], stored_as(weights)
        for theirs in entry.names(self.cfg):
            tensor = self.tensors[theirs]
            if not isinstance(tensor, Packed) or tensor.kind != stored:
                raise UserError(f"{tensor.file}: tensor {theirs} is not {stored}, as {CONFIG} has it")
            values, scales = tensor.parts()
            yield entry.to_ours(values), entry.to_ours(scales)

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Our parameter `name`: its layers in order when it is stacked, else the one array.

        Raises UserError for one without which there is no answer, and warns of any other that is zero everywhere.
        """
        entry, zero = self.entries[name], []
        for number, theirs in enumerate(entry.names(self.cfg)):
            value = self.tensors[theirs].read()
            zero += [number] if is_zero(value) else []
            yield entry.to_ours(value)
        self.check_zero(name, zero)

    def row_axis(self, name: str) -> int | None:
        """The axis of a piece of parameter `name` that is the rows of their tensor; None when it is only read whole."""
        return self.entries[name].row_axis

    def rows(self, name: str, start: int, stop: int) -> Iterator[np.ndarray]:
        """The pieces of parameter `name`, each with the rows from `start` to before `stop` of their tensor alone."""
        entry = self.entries[name]
        for theirs in entry.names(self.cfg):
            yield entry.to_ours(self.tensors[theirs].read(start, stop))

    def check_zero(self, name: str, pieces: Sequence[int]) -> None:
        """Raise UserError, or warn, about parameter `name`, of which `pieces` (their numbers) are zero everywhere."""
        names = self.entries[name].names(self.cfg)
        zero = {names[number]: self.tensors[names[number]].file for number in pieces}
        check_zero(name, declared(self.cfg)[name].role, zero, len(names))


def _expected(cfg: ModelConfig, table: list[Entry], shapes: Params) -> Iterator[tuple[str, tuple[int, ...]]]:
    for entry in table:
        shape = entry.their_shape(shapes[entry.ours].shape)
        yield from ((name, shape) for name in entry.names(cfg))


def from_hf(cfg: ModelConfig, tensors: Mapping[str, np.ndarray]) -> Params:
    """Our parameters (numpy, dtype of the source) from the tensors of an EVE checkpoint in memory.

    Raises UserError naming a missing or unknown tensor, or one whose shape does not fit `cfg`.
    """
    table = eve_names(cfg)
    found = {name: value.shape for name, value in tensors.items()}
    check_names("checkpoint", _expected(cfg, table, abstract_params(cfg)), found)
    params: Params = {}
    for entry in table:
        parts = [entry.to_ours(tensors[n]) for n in entry.names(cfg)]
        params[entry.ours] = np.stack(parts) if entry.stacked else parts[0]
    return params
