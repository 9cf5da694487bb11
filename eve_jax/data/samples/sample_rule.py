"""How a record becomes a sample: one object, for measuring, building rows, scoring and prompts alike.

record -> tokens and targets (`encode`), image sizes -> grids of patches -> at most `max_tokens` of both (`fit`)
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from eve_jax.batch import EVE_LAYOUT, Layout
from eve_jax.data.image.codes import Coder, digest_of_tokenizer
from eve_jax.data.image.rule import CODES, MAX_PIXELS, ImageRule
from eve_jax.data.record import BadRecord, Record, Turn
from eve_jax.data.samples.too_long import Grids, check_long, fitted, shrunk
from eve_jax.data.text.encode import Encoded, continuation_ids, encode_chat, prompt_ids
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.templates import check_template, get_template
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import Field, FieldError
from eve_jax.process.at_step import folder_of

Fingerprint = dict[str, Any]
NO_LIMIT = sys.maxsize
VISION_TOKENIZER = "vision_tokenizer"  # folder in that of a model, with the encoder that makes codes of its images


class StageSettings(Protocol):
    """The part of a stage's config that says how records become samples: sections `data` and `model`, and `init`."""

    @property
    def data(self) -> Any: ...

    @property
    def model(self) -> Any: ...

    @property
    def init(self) -> str: ...


@dataclass(frozen=True)
class SampleRule:
    """How a record becomes a sample; picklable.

    template: a name of `eve_jax.data.text.templates`. image_first: the images of a turn go to its front. max_tokens: of
    a sample, image tokens included. too_long: what happens to longer ones, see `eve_jax.data.samples.too_long.fitted`.
    special_text: whether special tokens that stand in the texts of turns are such, or text like any other. layout: what
    rows of the model hold of images. Raises `UserError` for another `too_long`, and where it does not go with the image
    rule.
    """

    tokenizer: Tokenizer
    images: ImageRule
    template: str
    image_first: bool = False
    max_tokens: int = NO_LIMIT
    too_long: str = "drop"
    special_text: bool = False
    layout: Layout = EVE_LAYOUT

    @classmethod
    def of(cls, config: StageSettings) -> Self:
        """Return the rule of the stage `config`, its tokenizer loaded.

        Raises `UserError` when it names no tokenizer, or one that does not fit the template.
        """
        d = config.data
        images = ImageRule.of(d)
        check_long(d.long, images.mode)  # before the tokenizer is loaded
        folder = d.tokenizer or folder_of(config.init)
        if not folder:
            name = Field("data.tokenizer")
            raise FieldError(name, " is empty: name a folder with a tokenizer.json or tokenizer.model")
        tokenizer = load_tokenizer(folder)
        tokenizer.add(get_template(d.template).adds)
        check_template(tokenizer, d.template)
        images = with_vocabulary(images, d.vision_tokenizer or str(Path(folder_of(config.init)) / VISION_TOKENIZER))
        most = min(d.max_tokens, d.row_tokens)
        layout = Layout.of(config.model)
        return cls(tokenizer, images, d.template, d.image_first, most, d.long, d.special_text, layout)

    def __post_init__(self) -> None:
        check_long(self.too_long, self.images.mode)

    def encode(self, record: Record) -> Encoded:
        """Return tokens and targets of a record, however many. Raises `BadRecord` as `encode_chat` does."""
        return encode_chat(record.turns, *self._written(len(record.images)))

    def fit(self, encoded: Encoded, grids: Grids) -> tuple[Encoded, Grids]:
        """Return a sample with images of `grids` (h, w), with its text cut or its images smaller if it is too long.

        Raises `BadRecord` when it stays too long, or an image has more tokens than the model takes.
        """
        fitting = fitted(encoded, grids, self.max_tokens, self.too_long, self.layout)
        if reason := next(filter(None, (self.layout.refuses(h, w) for h, w in fitting[1])), ""):
            raise BadRecord(reason)
        return fitting

    def cut(self, encoded: Encoded, grids: Grids) -> Encoded:
        """Return the sample that `fit` gives for images whose `grids` it gave. Raises `BadRecord` as it does."""
        return self.fit(encoded, grids)[0] if self.too_long == "truncate_text" else encoded

    def shrunk(self, grids: Grids, n_text: int) -> Grids:
        """Return the grids that `fit` gives for a sample of `n_text` text tokens and images of `grids`."""
        if self.too_long != "shrink_image":
            return grids
        return shrunk(grids, self.max_tokens - n_text, self.layout) or grids

    def prompt_ids(self, turns: Sequence[Turn], n_images: int) -> np.ndarray:
        """Return the tokens that ask for the next answer, int32 [n]; see `eve_jax.data.text.encode.prompt_ids`."""
        return prompt_ids(turns, *self._written(n_images))

    def continuation_ids(self, text: str, n_images: int) -> np.ndarray:
        """Return the tokens of a further human turn, int32 [n]; see `eve_jax.data.text.encode.continuation_ids`."""
        return continuation_ids(text, *self._written(n_images))

    def text_ids(self, text: str) -> list[int]:
        """Return the tokens of a text alone, without a template."""
        return self.tokenizer.encode(text, self.special_text)

    def _written(self, n_images: int) -> tuple[Tokenizer, str, int, bool, bool]:
        return self.tokenizer, self.template, n_images, self.image_first, self.special_text

    @property
    def _later(self) -> list[str]:
        """What runs lack of before `special_text` was a setting: special tokens in texts were such."""
        return [] if self.special_text else ["text"]

    @property
    def _layout(self) -> list[Any]:
        """The layout of images where it is not EVE's."""
        return [] if self.layout == EVE_LAYOUT else [self.layout.key]

    @property
    def _limits(self) -> list[int | str]:
        """Limits that decide which records are left out, sizes, and how images are decoded, where not the default."""
        most: list[int | str] = [] if self.images.max_pixels == MAX_PIXELS else [self.images.max_pixels]
        coded = [self.images.vocabulary] if self.images.vocabulary else []
        return [*most, *(["draft"] if self.images.draft else []), *self._area, *coded]

    @property
    def _later_of_images(self) -> dict[str, Any]:
        found = {"draft": self.images.draft, "vocabulary": self.images.vocabulary}
        return {name: value for name, value in found.items() if value}

    @property
    def _area(self) -> list[int]:
        area = list(self.images.area) if any(self.images.area) else []
        return [*area, *([self.images.tokens] if self.images.tokens else [])]

    def table_key(self, version: int) -> str:
        """Return a text that differs whenever the lengths of samples may: part of the names of kept tables."""
        parts = (self.images, self.template, self.image_first, self.max_tokens, self.too_long)
        return repr((version, *parts, self.tokenizer.fingerprint(), *self._later, *self._limits, *self._layout))

    def fingerprint(self) -> Fingerprint:
        """Return what is known of a run's data before any record is read: hashes by name, kept with its checkpoints."""
        coded = {VISION_TOKENIZER: self.images.vocabulary} if self.images.vocabulary else {}
        return coded | {
            "tokenizer": tokenizer_hash(self.tokenizer),
            "template": hash_of(_changed_fields(get_template(self.template))),
            "image_rule": hash_of(_changed_fields(self.images) | self._later_of_images),
            "settings": hash_of(
                [self.image_first, self.max_tokens, self.too_long, *self._later, *self._layout, *self._area]
            ),
        }


def with_vocabulary(images: ImageRule, folder: str | Path, coder: Coder | None = None) -> ImageRule:
    """Return the rule for codes with the vision tokenizer in `folder`, another one itself. Raise UserError."""
    if images.mode != CODES:
        return images
    if not Path(folder, "config.json").is_file():
        name = Field("data.vision_tokenizer")
        raise FieldError(name, f": there is no config.json in {folder}; name the folder of a VQGAN (docs/model.md)")
    return replace(images, vocabulary=digest_of_tokenizer(Path(folder)), coder=coder)


def hash_of(value: Any) -> str:
    """Return a short hash of a JSON value."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def _changed_fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass without those at their default: one that a later version adds changes no hash.

    Nor do those that its repr leaves out.
    """
    found = {f.name: (getattr(value, f.name), f.default) for f in fields(value) if f.repr}
    return {name: own for name, (own, default) in found.items() if default is MISSING or own != default}


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """Return a hash of a tokenizer, whatever version of its library wrote it."""
    text = tokenizer.fingerprint()
    try:
        return hash_of(_without_defaults(json.loads(text)))
    except ValueError:
        return hash_of(text)


def _without_defaults(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_defaults(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {name: _without_defaults(own) for name, own in value.items() if own is not None and own is not False}
    if isinstance(merges := kept.get("merges"), list):  # "a b" of older versions, ["a", "b"] of newer ones
        kept["merges"] = [one if isinstance(one, str) else " ".join(map(str, one)) for one in merges]
    return kept
