"""Settings of tokenizer_config.json that change tokens in transformers and are not followed.

The tokenizer's own file decides. A setting that says otherwise is named in a warning, as a model whose training
followed it had other tokens. What only changes decoded text (`clean_up_tokenization_spaces`) is passed over.
"""

from pathlib import Path
from typing import Any

from eve_jax.data.text.added_tokens import CONFIG_FILE, read_settings
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import UserError, shorten, warn

SPACES = ("\N{LOWER ONE EIGHTH BLOCK}", "\u0120")  # a space as pieces of SentencePiece and of byte-level BPE write it
FLAGS = ("do_lower_case", "strip_accents", "add_prefix_space", "add_bos_token", "add_eos_token", "split_special_tokens")


def check_settings(tokenizer: Tokenizer, folder: Path) -> None:
    """Warn of settings in `folder` that the tokenizer loaded from there does not follow.

    Raises `UserError` for one of FLAGS that is neither true nor false.
    """
    path = folder / CONFIG_FILE
    config = read_settings(folder, CONFIG_FILE)
    for name in FLAGS:
        if not isinstance(config.get(name), bool | None):
            raise UserError(f"{path}: {name} is {shorten(repr(config[name]))}, not true or false")
    done = _done(tokenizer)
    for name in FLAGS:
        if config.get(name) is not None and name in done and config[name] is not done[name][0]:
            said = str(config[name]).lower()
            warn(
                f"{path}: {name} is {said}, but {done[name][1]}, which is kept; a model trained with the setting had "
                "other tokens"
            )
    if sampled := _sampling(config.get("sp_model_kwargs")):
        warn(f"{path}: sp_model_kwargs has {sampled}, which is not followed; every text has one way to be tokens")


def _done(tokenizer: Tokenizer) -> dict[str, tuple[bool, str]]:
    """Return whether the tokenizer does what each of FLAGS says, and that in words."""
    lower, bare = (_read(tokenizer, text) == plain for text, plain in (("A", "a"), ("\u00e9", "e")))
    first = next(iter(tokenizer.encode("a")), None)
    spaced = first is not None and first in {tokenizer.find(space + rest) for space in SPACES for rest in ("a", "")}
    bos = tokenizer.bos is not None
    return {
        "do_lower_case": (lower, f"the tokenizer {'makes' if lower else 'does not make'} letters lower case"),
        "strip_accents": (bare, f"the tokenizer {'removes' if bare else 'keeps'} accents"),
        "add_prefix_space": (spaced, f"the tokenizer puts {'a' if spaced else 'no'} space before a text"),
        "add_bos_token": (bos, f"the tokenizer puts {'a' if bos else 'no'} bos token before a text"),
        "add_eos_token": (False, "the template alone ends an answer"),
        "split_special_tokens": (False, "special tokens in a text are read as such"),
    }


def _read(tokenizer: Tokenizer, text: str) -> str:
    return tokenizer.decode(tokenizer.encode(text)).strip()


def _sampling(given: Any) -> str:
    """Return the settings of SentencePiece that choose tokens at random, "" for none."""
    names = ("enable_sampling", "nbest_size", "alpha")
    return ", ".join(name for name in names if isinstance(given, dict) and given.get(name))
