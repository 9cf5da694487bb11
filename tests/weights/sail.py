"""A random SAIL of the golden model's sizes, as a folder."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import processors

from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import init_params
from tests import family as ref
from tests.data.synthetic import byte_tokenizer


def sail_folder(folder: Path) -> tuple[Path, ModelConfig]:
    """A random SAIL with the golden model's sizes and a tokenizer of bytes, which puts `<s>` before a text."""
    tokenizer = byte_tokenizer(("<s>", "</s>", "<vision>", "<vpatch>", "</vision>"))
    inner = tokenizer.inner  # type: ignore[attr-defined]
    first = tokenizer.token_id("<s>")
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", first)])
    folder.mkdir()
    inner.save(str(folder / "tokenizer.json"))
    tokens = {"patch_token": tokenizer.token_id("<vpatch>"), "close_token": tokenizer.token_id("</vision>")}
    cfg = ref.sail(vocab_size=264, **tokens)
    made = ref.by_their_names(cfg, {name: np.asarray(value) for name, value in init_params(cfg, 3).items()})
    save_file({name: np.ascontiguousarray(value) for name, value in made.items()}, folder / "model.safetensors")
    config = ref.facts("sail_meta")["config"] | {"vocab_size": 264, "head_dim": 128}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "torch_dtype"}))
    return folder, cfg
