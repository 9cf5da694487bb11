"""Text to token numbers: one small interface over `tokenizers` and `sentencepiece`, which hides their special cases."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tokenizers

from eve_jax.errors import UserError

TOKENIZER_FILE = "tokenizer.json"
MODEL_FILE = "tokenizer.model"
# What Hugging Face folders keep beside it; travels along, so that an export is complete.
COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")


class Tokenizer(ABC):
    """A tokenizer without surprises: it adds no special tokens, never truncates, never pads.

    `bos` is the number of the token that the tokenizer's own settings put before every text, None where they put
    none; `eve_jax.data.chat` writes it, once in a conversation. `folder` is where the tokenizer was read.
    """

    bos: int | None = None
    folder: Path | None = None

    def encode(self, text: str) -> list[int]:
        """Token numbers of `text`; special tokens written in it are recognised."""
        return self.encode_with_offsets(text)[0]

    @abstractmethod
    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token numbers of `text` and the characters [start, end) of it that each one stands for."""

    @abstractmethod
    def decode(self, ids: Iterable[int] | np.ndarray, skip_special: bool = True) -> str:
        """The text of `ids`, without special tokens unless asked for."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; a model's vocabulary may be padded past it."""

    @abstractmethod
    def find(self, token: str) -> int | None:
        """Number of the token that is written `token`, if there is one."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A text that differs whenever the tokenizer does, for keys of caches."""

    @abstractmethod
    def _write(self, folder: Path) -> None:
        """Writes the tokenizer's own file into `folder`."""

    def token_id(self, token: str) -> int:
        """Number of the token that is written `token`. Raises `UserError` when there is none."""
        id = self.find(token)
        if id is None:
            raise UserError(f"{self.folder or 'the tokenizer'}: has no token {token!r}, which this template needs")
        return id

    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer, and the companions it was loaded with, into `folder`."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        self._write(target)
        for name in COMPANIONS:
            source = self.folder / name if self.folder else None
            if source and source.is_file() and source.resolve() != (target / name).resolve():
                shutil.copyfile(source, target / name)


class FastTokenizer(Tokenizer):
    """A tokenizer of the library `tokenizers`, kept as tokenizer.json."""

    def __init__(self, inner: tokenizers.Tokenizer, folder: Path | None = None) -> None:
        inner.no_truncation()
        inner.no_padding()
        self.inner = inner
        self.folder = folder
        # Asked of its post-processor: settings files of models without a bos (Qwen2) name one all the same.
        probe = inner.encode("a")
        self.bos = probe.ids[0] if probe.ids and probe.special_tokens_mask[0] else None

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = self.inner.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: Iterable[int] | np.ndarray, skip_special: bool = True) -> str:
        return self.inner.decode([int(id) for id in ids], skip_special_tokens=skip_special)

    @property
    def vocab_size(self) -> int:
        return self.inner.get_vocab_size(with_added_tokens=True)

    def find(self, token: str) -> int | None:
        return self.inner.token_to_id(token)

    def fingerprint(self) -> str:
        return self.inner.to_str()

    def _write(self, folder: Path) -> None:
        self.inner.save(str(folder / TOKENIZER_FILE))


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer in `folder`: its tokenizer.json, else its tokenizer.model.

    The latter is a SentencePiece model (LLaMA-2, Vicuna) or LLaMA-3's file of token ranks. Raises `UserError` when
    there is neither or it is broken.
    """
    from eve_jax.data.ranks import is_ranks, llama3_from_ranks  # these modules build on this one
    from eve_jax.data.spm import SentencePieceTokenizer

    folder = Path(folder)
    path = folder / TOKENIZER_FILE
    if path.is_file():
        try:
            return FastTokenizer(tokenizers.Tokenizer.from_file(str(path)), folder)
        except Exception as e:  # the library raises plain Exception
            reason = " ".join(str(e).split())
            raise UserError(f"{path}: not a tokenizer that `tokenizers` can read ({reason})") from None
    path = folder / MODEL_FILE
    if not path.is_file():
        raise UserError(
            f"{folder}: no {TOKENIZER_FILE} and no {MODEL_FILE}; set config.data.tokenizer to a folder with one of them"
        )
    data = path.read_bytes()
    if is_ranks(data):
        return FastTokenizer(llama3_from_ranks(data, path), folder)
    return SentencePieceTokenizer(data, folder)
