"""What an export in LLaVA's layout has that our models do not: a token that stands for an image, and a processor."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from eve_jax.checkpoint.vision_copies import ParamSource
from eve_jax.data.text.added_tokens import ADDED_FILE
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import UserError
from eve_jax.hf.llava import IMAGE_ID, IMAGE_TOKEN
from eve_jax.hf.preprocessor import PIXELS, PREPROCESSOR
from eve_jax.model.clip_config import EncoderConfig
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params
from eve_jax.process.files import read_json, write_json

MULTIPLE = 64  # of a vocabulary that grows
TABLES = ("embed", "head")


def image_token(cfg: ModelConfig, tokenizer: Tokenizer | None) -> int:
    """Return the number of the token that stands for a patch of an image: the tokenizer's, or the next free one.

    LLaVA's layout needs one, whose embedding is never read; our models have none.
    """
    if tokenizer is None:
        return cfg.vocab_size
    found = tokenizer.find(IMAGE_TOKEN)
    return tokenizer.vocab_size if found is None else found


class Widened:
    """`source` with a vocabulary that has the token number `token`, `source` itself where it has it already.

    New rows of the word embedding and of the head are the mean of the others, so that a new token is never more
    probable than all of those.
    """

    def __init__(self, source: ParamSource, token: int):
        self.source = source
        size = source.cfg.vocab_size
        self.more = 0 if token < size else -(-(token + 1) // MULTIPLE) * MULTIPLE - size
        self.cfg = replace(source.cfg, vocab_size=size + self.more)
        self.shapes: Params = dict(source.shapes)
        for name in TABLES:
            if name in self.shapes:
                rows, width = self.shapes[name].shape
                self.shapes[name] = jax.ShapeDtypeStruct((rows + self.more, width), self.shapes[name].dtype)

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Parameter `name`: its layers in order when it is stacked, else the one array."""
        for piece in self.source.pieces(name):
            if name not in TABLES or not self.more:
                yield piece
                continue
            mean = piece.astype(np.float32).mean(axis=0, keepdims=True).astype(piece.dtype)
            yield np.concatenate([piece, np.repeat(mean, self.more, axis=0)])


@dataclass(frozen=True)
class Llava:
    """What the export of a model with an encoder adds. token: the number of the one that stands for a patch."""

    encoder: EncoderConfig
    tokenizer: Tokenizer | None
    token: int

    @classmethod
    def of(cls, cfg: ModelConfig, tokenizer: Tokenizer | None) -> "Llava | None":
        """Return that of a model; None without an encoder."""
        return None if cfg.encoder is None else cls(cfg.encoder, tokenizer, image_token(cfg, tokenizer))

    def widened(self, source: ParamSource, weights: str) -> ParamSource:
        """Return `source` with a place for the token. Raises UserError for quantized `weights`."""
        if weights:
            raise UserError(f"--weights={weights}: no other program reads a LLaVA with such weights; leave it out")
        return Widened(source, self.token)

    def write(self, target: Path, config: dict[str, Any]) -> None:
        """Enter the token into the tokenizer's files in `target` and into `config`, and write the processor."""
        config[IMAGE_ID] = self.token
        if self.tokenizer is not None and self.tokenizer.find(IMAGE_TOKEN) is None:
            file = target / ADDED_FILE
            write_json(file, (read_json(file) if file.is_file() else {}) | {IMAGE_TOKEN: self.token})
        write_processor(target, self.encoder)


def write_processor(target: Path, encoder: EncoderConfig) -> None:
    """Write the settings of transformers' `LlavaProcessor`: images padded to a square, a token for each patch."""
    side = encoder.image_size
    steps: dict[str, Any] = {
        "image_processor_type": "LlavaImageProcessor",
        "processor_class": "LlavaProcessor",
        "do_convert_rgb": True,
        "do_pad": True,
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        **{name: list(values) for name, values in PIXELS.items()},
    }
    write_json(target / PREPROCESSOR, steps)
    processor = {
        "processor_class": "LlavaProcessor",
        "image_token": IMAGE_TOKEN,
        "patch_size": encoder.patch_size,
        "num_additional_image_tokens": 1,  # the class token, which the strategy takes off again
        "vision_feature_select_strategy": "default",
    }
    write_json(target / "processor_config.json", processor)
