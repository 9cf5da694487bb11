"""Text to token numbers: one small interface over `tokenizers` and `sentencepiece`, which hides their special cases."""

import itertools
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from eve_jax.data.record import BadRecord
from eve_jax.data.text.added_tokens import ADDED_FILE, CONFIG_FILE, MAP_FILE, number_added, read_added
from eve_jax.data.text.literal import LiteralTokenizer, Span
from eve_jax.errors import UserError

TOKENIZER_FILE = "tokenizer.json"
MODEL_FILE = "tokenizer.model"
# What Hugging Face folders keep next to it; travels along, so that an export is complete.
CHAT_FILE = "chat_template.jinja"
COMPANIONS = (CONFIG_FILE, MAP_FILE, ADDED_FILE, CHAT_FILE, "vocab.json", "merges.txt")
SPECIAL_AS_TEXT = (
    "the text {0!r} is a special token to this tokenizer even as text; remove it, or set config.data.special_text=true"
)


class Tokenizer(ABC):
    """A tokenizer without surprises: it adds no special tokens, never truncates, never pads.

    `bos` is the number of the token that the tokenizer's own settings put before every text, None where they put
    none; `eve_jax.data.text.encode` writes it, once in a conversation. `folder` is where the tokenizer was read.
    """

    bos: int | None = None
    folder: Path | None = None

    def encode(self, text: str, special_text: bool = True) -> list[int]:
        """Token numbers of `text`, in which special tokens are recognized, or with False are text like any other."""
        return self.encode_with_offsets(text, () if special_text else [(0, len(text))])[0]

    @abstractmethod
    def encode_with_offsets(self, text: str, quoted: Sequence[Span] = ()) -> tuple[list[int], list[Span]]:
        """Token numbers of `text` and the characters [start, end) of it that each one stands for.

        Special tokens written in it are recognized, but for those that have a character in one of the spans `quoted`:
        there they are text like any other. Raises `BadRecord` where the tokenizer cannot write one as text.
        """

    @abstractmethod
    def decode(self, ids: Iterable[int] | np.ndarray, skip_special: bool = True) -> str:
        """The text of `ids`, without special tokens unless asked for."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """One more than the largest token number, added tokens included; a model's vocabulary may be padded past it."""

    @abstractmethod
    def find(self, token: str) -> int | None:
        """Number of the token that is written `token`, if there is one."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A text that differs whenever the tokenizer does, for keys of caches."""

    @abstractmethod
    def _write(self, folder: Path) -> None:
        """Writes the tokenizer's own file into `folder`."""

    def add(self, tokens: Sequence[str]) -> None:
        """Give the tokenizer those of the special `tokens` that it lacks, numbered on. Raises `UserError`."""
        if lacking := [token for token in tokens if self.find(token) is None]:
            raise UserError(
                f"{self.folder or 'the tokenizer'}: has no token {lacking[0]!r}, and no tokenizer.json to add it to"
            )

    def token_id(self, token: str) -> int:
        """Number of the token that is written `token`. Raises `UserError` when there is none."""
        id = self.find(token)
        if id is None:
            raise UserError(f"{self.folder or 'the tokenizer'}: has no token {token!r}, which this template needs")
        return id

    def check_vocabulary(self, size: int, what: str) -> None:
        """Raise `UserError` when the tokenizer has tokens past a model's vocabulary of `size` tokens, called `what`."""
        if self.vocab_size > size:
            last = self.decode([self.vocab_size - 1], skip_special=False)
            raise UserError(
                f"{self.folder or 'the tokenizer'}: has {self.vocab_size} tokens, the last of them {last!r}, but "
                f"{what} is {size}: it belongs to another model, or a file there adds tokens that this model lacks"
            )

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer and the companions it was loaded with into `folder`, in place of a tokenizer there."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        if self.folder is None or self.folder.resolve() != target.resolve():
            for name in COMPANIONS:
                source = self.folder / name if self.folder else None
                if source and source.is_file():
                    shutil.copyfile(source, target / name)
                else:
                    (target / name).unlink(missing_ok=True)  # of another tokenizer, it would change the tokens
            for name in (TOKENIZER_FILE, MODEL_FILE):
                (target / name).unlink(missing_ok=True)
        self._write(target)


def is_quoted(span: Span, quoted: Sequence[Span]) -> bool:
    """Whether one of the characters of `span` is in one of the spans `quoted`."""
    return any(start < span[1] and span[0] < end for start, end in quoted)


class FastTokenizer(Tokenizer):
    """A tokenizer of the library `tokenizers`, kept as tokenizer.json.

    The tokens that files in `folder` add (see `added_tokens`) are added to `inner`. Raises `UserError` when they
    contradict it, and when it puts more than one token before a text.
    """

    def __init__(self, inner: tokenizers.Tokenizer, folder: Path | None = None) -> None:
        inner.no_truncation()
        inner.no_padding()
        self.inner = inner
        self.folder = folder
        if folder is not None:
            self._add_tokens(folder)
        # Asked of its post-processor: settings files of models without a bos (Qwen2) name one all the same.
        probe = inner.encode("a")
        before = list(itertools.takewhile(lambda n: probe.special_tokens_mask[n], range(len(probe.ids))))
        if len(before) > 1:
            several = " ".join(probe.tokens[n] for n in before)
            raise UserError(
                f"{folder or 'the tokenizer'}: puts {several} before a text; a single bos token is supported: "
                "change the post_processor of tokenizer.json"
            )
        self.bos = probe.ids[0] if before else None

    def _add_tokens(self, folder: Path) -> None:
        inner = self.inner
        file = next((folder / name for name in (TOKENIZER_FILE, MODEL_FILE) if (folder / name).is_file()), folder)
        size = inner.get_vocab_size(with_added_tokens=True)
        added = number_added(read_added(folder), inner.token_to_id, inner.id_to_token, size, file)
        own = inner.get_added_tokens_decoder()
        tokens = [one.token(own.get(id)) for id, one in added.items()]
        changed = [t for id, t in zip(added, tokens, strict=True) if repr(own.get(id)) != repr(t)]
        for special, group in itertools.groupby(changed, lambda token: token.special):
            (inner.add_special_tokens if special else inner.add_tokens)(list(group))
        for id, one in added.items():
            if inner.token_to_id(one.content) != id:  # a vocabulary whose own numbers leave gaps
                raise UserError(
                    f"{one.place}: {one.content!r} is token {id}, which {file.name} leaves no room for: its own tokens "
                    f"are not numbered from 0 to {size - 1}"
                )

    def add(self, tokens: Sequence[str]) -> None:
        lacking = [tokenizers.AddedToken(token, normalized=False) for token in tokens if self.find(token) is None]
        if lacking:
            self.inner.add_special_tokens(lacking)
            for name in ("_special", "_literal", "vocab_size"):
                self.__dict__.pop(name, None)

    def encode_with_offsets(self, text: str, quoted: Sequence[Span] = ()) -> tuple[list[int], list[Span]]:
        encoding = self.inner.encode(text, add_special_tokens=False)
        ids, offsets = encoding.ids, encoding.offsets
        if not quoted or self._special.isdisjoint(ids):
            return ids, offsets
        special = [(id, span) for id, span in zip(ids, offsets, strict=True) if id in self._special]
        kept = [one for one in special if not is_quoted(one[1], quoted)]
        if len(kept) == len(special):
            return ids, offsets
        ids, offsets = self._literal.encode(text, kept)
        for id, span in zip(ids, offsets, strict=True):
            if id in self._special and is_quoted(span, quoted):
                raise BadRecord(SPECIAL_AS_TEXT.format(text[slice(*span)]))
        return ids, offsets

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(id for id, token in self.inner.get_added_tokens_decoder().items() if token.special)

    @cached_property
    def _literal(self) -> "LiteralTokenizer":
        return LiteralTokenizer(self.inner)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_literal"}

    def decode(self, ids: Iterable[int] | np.ndarray, skip_special: bool = True) -> str:
        return self.inner.decode([int(id) for id in ids], skip_special_tokens=skip_special)

    @cached_property
    def vocab_size(self) -> int:
        return max(self.inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def find(self, token: str) -> int | None:
        return self.inner.token_to_id(token)

    def fingerprint(self) -> str:
        return self.inner.to_str()

    def _write(self, folder: Path) -> None:
        self.inner.save(str(folder / TOKENIZER_FILE))
