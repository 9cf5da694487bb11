"""generation_config.json of a Hugging Face model: the ids that other servers end, begin and fill up its texts with."""

from pathlib import Path
from typing import Any

from eve_jax.errors import UserError
from eve_jax.process.files import read_json

GENERATION = "generation_config.json"
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
SEVERAL = "eos_token_id"  # may be a list
NO_PAD = -1  # of early LLaMA folders


def check_generation(folder: Path, vocab_size: int) -> None:
    """Check the generation_config.json of `folder`, where there is one, and its ids of tokens; null is none.

    Answers here end as the template has it, but an export carries the file, and servers end answers by it. Raise
    UserError naming the file, and the field whose ids are not among the `vocab_size` of the model.
    """
    file = folder / GENERATION
    if not file.exists():
        return
    found = read_json(file)
    for name in IDS:
        given: Any = found.get(name)
        if name == "pad_token_id" and given == NO_PAD:
            continue
        ids = given if name == SEVERAL and isinstance(given, list) else [] if given is None else [given]
        if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < vocab_size for i in ids):
            kind = "a token id, or several," if name == SEVERAL else "a token id"
            raise UserError(
                f"{file}: {name} is {given!r}: expected {kind} of 0 to {vocab_size - 1}, or null; correct it, or "
                "remove it where there is no such token"
            )
