"""SentencePiece models (LLaMA-2, Vicuna) behind the interface of `Tokenizer`.

Tokenizes as the slow LlamaTokenizer of transformers does: the text is cut at special tokens, and each piece between
them goes through SentencePiece, which puts a space before it (`legacy`) or before the first piece alone.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken

from eve_jax.data.text.added_tokens import CONFIG_FILE, number_added, read_added, read_settings
from eve_jax.data.text.literal import Span
from eve_jax.data.text.tokenizer import MODEL_FILE, Tokenizer, is_quoted
from eve_jax.errors import UserError, shorten

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how pieces write a space
# Appended to a model: protocol buffers merge it into the model's own normalizer_spec as add_dummy_prefix = false.
_NO_PREFIX = bytes([0x1A, 0x02, 0x18, 0x00])


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model, kept as tokenizer.model; next to it may stand Hugging Face's settings.

    Read from them are `legacy` and `add_bos_token` (both true unless said otherwise) and `bos_token` (by default the
    model's own) of tokenizer_config.json, and the tokens that the files add (see `added_tokens`). Raises `UserError`
    for a broken file, or when they contradict the model.
    """

    def __init__(self, model: bytes, folder: Path | None = None) -> None:
        self.folder = folder
        self._model = model
        try:
            self._prefixed = SentencePieceProcessor(model_proto=model)
            self._bare = SentencePieceProcessor(model_proto=model + _NO_PREFIX)
            pieces = [self._prefixed.id_to_piece(n) for n in range(self._prefixed.vocab_size())]
            first = self._prefixed.id_to_piece(self._prefixed.encode("a")[0])
            self._prefixed.id_to_piece(self._prefixed.unk_id())  # the library loads a model without <unk>, too
        except (RuntimeError, UnicodeDecodeError, IndexError):
            path = folder / MODEL_FILE if folder else "the model"
            raise UserError(f"{path}: not a SentencePiece model, or damaged; copy it again") from None
        config = read_settings(folder, CONFIG_FILE)
        for flag in ("legacy", "add_bos_token"):
            if not isinstance(config.get(flag), bool | None):
                raise UserError(f"{folder}/{CONFIG_FILE}: {flag} is {shorten(repr(config[flag]))}, not true or false")
        self._legacy = config.get("legacy") is not False
        base = len(pieces)
        control = [n for n in range(base) if self._prefixed.is_control(n) or self._prefixed.is_unknown(n)]
        tokens = {n: AddedToken(pieces[n], special=True) for n in control}
        owner = (folder or Path()) / MODEL_FILE
        added = number_added(read_added(folder), self._piece_number, self._prefixed.id_to_piece, base, owner)
        tokens |= {n: one.token(tokens.get(n)) for n, one in added.items()}
        self._special = {token.content: n for n, token in tokens.items()}
        self._kept = {n for n, token in tokens.items() if not token.special}  # text like any other
        self._written = {n: token for token, n in self._special.items()}
        longest_first = sorted(tokens.values(), key=lambda token: len(token.content), reverse=True)
        self._cut = re.compile("|".join(f"({_pattern(token)})" for token in longest_first) or "(?!)")
        self._cut_ids = [self._special[token.content] for token in longest_first]
        self._vocab_size = max([base - 1, *self._special.values()]) + 1
        named = config.get("bos_token")
        named = named.get("content") if isinstance(named, dict) else named
        bos = self._prefixed.bos_id() if named is None else self._special[named]
        self.bos = bos if bos >= 0 and config.get("add_bos_token") is not False else None
        self._adds_prefix = first.startswith(SPACE)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._model, self.folder)

    def encode_with_offsets(self, text: str, quoted: Sequence[Span] = ()) -> tuple[list[int], list[Span]]:
        ids: list[int] = []
        offsets: list[Span] = []
        position = 0
        for id, (start, end) in self._cuts(text, quoted):
            self._encode_part(text, position, start, ids, offsets)
            ids.append(id)
            offsets.append((start, end))
            position = end
        self._encode_part(text, position, len(text), ids, offsets)
        return ids, offsets

    def _cuts(self, text: str, quoted: Sequence[Span]) -> Iterator[tuple[int, Span]]:
        """Yield the tokens that cut `text` and their places, without special ones that are `quoted`."""
        position = 0
        while found := self._cut.search(text, position):
            id = self._cut_ids[(found.lastindex or 0) - 1]
            if quoted and id not in self._kept and is_quoted(found.span(), quoted):
                position = found.start() + 1
                continue
            yield id, found.span()
            position = found.end()

    def _encode_part(self, text: str, begin: int, end: int, ids: list[int], offsets: list[Span]) -> None:
        """Append the tokens of `text` from `begin` to `end`, which holds no special token, and their offsets."""
        if begin == end:
            return
        processor = self._prefixed if begin == 0 or self._legacy else self._bare
        mapping = processor.encode(text[begin:end], return_type="offset_mapping")
        spans = [(begin + start, begin + stop) for start, stop in mapping["offsets"]]
        for n in reversed(range(len(spans))):  # the library gives a character's span to the last of its bytes alone
            if spans[n][0] == spans[n][1] and processor.is_byte(mapping["ids"][n]):
                spans[n] = (spans[n][0], end)
            end = spans[n][1]
        ids += mapping["ids"]
        offsets += spans

    def decode(self, ids: Iterable[int] | np.ndarray, skip_special: bool = True) -> str:
        text = ""
        part: list[int] = []
        first = True
        for id in map(int, ids):
            if id not in self._written:
                part.append(id)
                continue
            text += self._decode_part(part, first)
            if id in self._kept or not skip_special:
                text += self._written[id]
            part, first = [], False
        return text + self._decode_part(part, first)

    def _decode_part(self, ids: list[int], first: bool) -> str:
        pieces = b""
        for id in ids:
            if id >= self._prefixed.vocab_size():
                continue  # of a model's padded vocabulary
            piece = self._prefixed.id_to_piece(id)
            pieces += bytes([int(piece[1:-1], 16)]) if self._prefixed.is_byte(id) else piece.encode()
        text = pieces.decode("utf-8", "replace").replace(SPACE, " ")
        return text.removeprefix(" ") if self._adds_prefix and (first or self._legacy) else text

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    def find(self, token: str) -> int | None:
        return self._special[token] if token in self._special else self._piece_number(token)

    def _piece_number(self, token: str) -> int | None:
        id = self._prefixed.piece_to_id(token)
        return id if self._prefixed.id_to_piece(id) == token else None

    def fingerprint(self) -> str:
        settings = (self._legacy, self.bos, sorted(self._special.items()), sorted(self._kept), self._cut.pattern)
        return f"{hashlib.sha256(self._model).hexdigest()} {settings}"

    def _write(self, folder: Path) -> None:
        (folder / MODEL_FILE).write_bytes(self._model)


def _pattern(token: AddedToken) -> str:
    """The regular expression of `token` in a text, with the white space and the neighbors that its flags speak of."""
    pattern = re.escape(token.content)
    if token.single_word:  # as the slow LlamaTokenizer reads it: between spaces
        pattern = f"(?<![^ ]){pattern}(?![^ ])"
    return (r"\s*" if token.lstrip else "") + pattern + (r"\s*" if token.rstrip else "")
