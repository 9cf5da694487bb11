"""Samples of more tokens than the LLM has positions for: refused, since it answers no prompt of that length either."""

from pathlib import Path

import numpy as np

from eve_jax.config.stage import Config
from eve_jax.data.plan.lengths import Lengths
from eve_jax.errors import Field, FieldError, UserError, warn
from eve_jax.weights.base_config import HF_CONFIG, base_config, max_positions

BLOCK = 1 << 20  # entries of the table looked at at a time


def check_positions(config: Config, folder: Path, lengths: Lengths, resumes: bool) -> None:
    """Raise FieldError when a sample is longer than the `max_position_embeddings` of the LLM that training began with.

    folder: of the stage. A run that `resumes` has trained on such samples before: it is warned.
    """
    try:
        positions = max_positions(base_config(folder, config), folder / HF_CONFIG)
    except UserError:  # `keep_base` says that the LLM's config is lost
        return
    d = config.data
    if not positions or min(d.max_tokens, d.row_tokens) <= positions:
        return
    count, longest = _longer(lengths, positions)
    if not count:
        return
    about = (
        f"{count:,} of {len(lengths):,} samples have up to {longest:,} tokens, and the LLM was made for {positions:,}"
    )
    parts = (
        f"{about} positions (max_position_embeddings of its config.json); set ",
        Field("data.max_tokens"),
        f"={positions} (what becomes of longer samples, ",
        Field("data.long"),
        " says)",
    )
    error = FieldError(*parts)
    if not resumes:
        raise error
    warn(f"{error} in a new run")


def _longer(lengths: Lengths, most: int) -> tuple[int, int]:
    """Return how many entries have more than `most` tokens, and the largest number of tokens."""
    count = longest = 0
    for start in range(0, len(lengths), BLOCK):
        part = slice(start, start + BLOCK)
        total = lengths.text[part] + lengths.patches[part] + lengths.specials[part]
        count += int(np.count_nonzero(total > most))
        longest = max(longest, int(total.max()))
    return count, longest
