"""Text to token numbers: a thin layer over `tokenizers`, which hides its special cases."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tokenizers

from eve_jax.errors import UserError

TOKENIZER_FILE = "tokenizer.json"
# What Hugging Face folders keep beside it; travels along, so that an export is complete.
COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")


class Tokenizer:
    """A tokenizer without surprises: it adds no special tokens, never truncates, never pads."""

    def __init__(self, inner: tokenizers.Tokenizer, folder: Path | None = None) -> None:
        inner.no_truncation()
        inner.no_padding()
        self.inner = inner
        self.folder = folder

    def encode(self, text: str) -> list[int]:
        """Token numbers of `text`; special tokens written in it are recognised."""
        return self.inner.encode(text, add_special_tokens=False).ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token numbers of `text` and the characters [start, end) of it that each one stands for."""
        encoding = self.inner.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: Iterable[int] | np.ndarray, skip_special: bool = True) -> str:
        """The text of `ids`, without special tokens unless asked for."""
        return self.inner.decode([int(id) for id in ids], skip_special_tokens=skip_special)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; a model's vocabulary may be padded past it."""
        return self.inner.get_vocab_size(with_added_tokens=True)

    def find(self, token: str) -> int | None:
        """Number of the token that is written `token`, if there is one."""
        return self.inner.token_to_id(token)

    def token_id(self, token: str) -> int:
        """Number of the token that is written `token`. Raises `UserError` when there is none."""
        id = self.find(token)
        if id is None:
            raise UserError(f"{self.folder or 'the tokenizer'}: has no token {token!r}, which this template needs")
        return id

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json, and the companions it was loaded with, into `folder`."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        self.inner.save(str(target / TOKENIZER_FILE))
        for name in COMPANIONS:
            source = self.folder / name if self.folder else None
            if source and source.is_file() and source.resolve() != (target / name).resolve():
                shutil.copyfile(source, target / name)

    def fingerprint(self) -> str:
        """A text that differs whenever the tokenizer does, for keys of caches."""
        return self.inner.to_str()


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer in `folder` (its tokenizer.json). Raises `UserError` when there is none or it is broken."""
    path = Path(folder) / TOKENIZER_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such file; set config.data.tokenizer to a folder with a {TOKENIZER_FILE}")
    try:
        return Tokenizer(tokenizers.Tokenizer.from_file(str(path)), Path(folder))
    except Exception as e:  # the library raises plain Exception
        raise UserError(f"{path}: not a tokenizer that `tokenizers` can read ({' '.join(str(e).split())})") from None
