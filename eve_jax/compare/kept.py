"""What a comparison has measured, kept in its folder at once, so that a rerun measures what is missing alone.

Each measure is kept under a hash of all that it follows from. Of files, that is name, size and modification time, since
whoever reads all weights to see whether they are the same could measure them as well.
"""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from eve_jax.checkpoint.stage_folder import CHECKPOINTS, CONFIG
from eve_jax.compare.cards import Card
from eve_jax.compare.questions import named
from eve_jax.data.image_file import ImageFile
from eve_jax.data.record import BadRecord, digest_of
from eve_jax.data.samples.image_stamps import files_hash
from eve_jax.data.samples.sample_rule import VISION_TOKENIZER
from eve_jax.data.sources.records import Records
from eve_jax.data.text.tokenizer import COMPANIONS, MODEL_FILE, TOKENIZER_FILE
from eve_jax.errors import UserError
from eve_jax.process.files import read_json, write_json
from eve_jax.weights.base_config import HF_CONFIG
from eve_jax.weights.open import Checkpoint

FILE = "compare.parts.json"
OF_STAGE = (CONFIG, HF_CONFIG, TOKENIZER_FILE, MODEL_FILE, *COMPANIONS)


class Kept:
    """The measures in the folder `out`, by their keys. Raises UserError for a file of them that cannot be read."""

    def __init__(self, out: Path):
        self._path = out / FILE
        try:
            self._found = read_json(self._path) if self._path.exists() else {}
        except UserError as error:
            raise UserError(f"{error}; remove it, and everything is measured again") from None

    def count(self, keys: Iterable[str]) -> int:
        """Return how many of `keys` were measured before."""
        return sum(key in self._found for key in keys)

    def measured(self, key: str, measure: Callable[..., Any], *of: Any) -> Any:
        """Return what is kept under `key`, or what `measure(*of)` gives, as JSON has it, which is kept from now on."""
        if key not in self._found:
            self._found[key] = json.loads(json.dumps(measure(*of)))
            write_json(self._path, self._found, sort_keys=False)
        return self._found[key]

    def drop_others(self, keys: Collection[str]) -> None:
        """Keep those of `keys` alone."""
        if self._found.keys() - set(keys):
            self._found = {key: value for key, value in self._found.items() if key in keys}
            write_json(self._path, self._found, sort_keys=False)


def stamp_of(model: Checkpoint) -> str:
    """Return a hash of the files of a model: where they are, their sizes and times; and of the step that is named."""
    files = [model.folder / name for name in OF_STAGE] if model.source is None else list(model.folder.iterdir())
    for name in (CHECKPOINTS, VISION_TOKENIZER):
        files += (model.folder / name).rglob("*")
    found = sorted(path for path in files if path.is_file())
    return digest_of([str(model.name.resolve()), *map(str, found), str(files_hash(found))])


def stamp_of_questions(records: Records, limit: int) -> str:
    """Return a hash of the first `limit` records, 0 for all, and of the sizes and times of their images.

    Raises UserError naming the first record that cannot be read.
    """
    images: list[ImageFile] = []
    for index in range(min(limit or len(records), len(records))):
        try:
            images.extend(records[index].images)
        except BadRecord as error:
            raise UserError(named(records.where(index), error)) from error
    return digest_of([records.fingerprint(), str(limit), str(files_hash(images))])


def stamp_of_cards(cards: Sequence[Card]) -> str:
    """Return a hash of what is asked of each card, and of the text that answers are measured by."""
    return digest_of(
        part for card in cards for part in (card.prompt, card.text, str(card.image.size), card.image.tobytes())
    )
