"""SentencePiece models (LLaMA-2, Vicuna) behind the interface of `Tokenizer`.

Tokenises as the slow LlamaTokenizer of transformers does: the text is cut at special tokens, and each piece between
them goes through SentencePiece, which puts a space before it (`legacy`) or before the first piece alone.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sentencepiece import SentencePieceProcessor

from eve_jax.data.tokenizer import MODEL_FILE, Tokenizer
from eve_jax.errors import UserError

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how pieces write a space
# Appended to a model: protocol buffers merge it into the model's own normalizer_spec as add_dummy_prefix = false.
_NO_PREFIX = bytes([0x1A, 0x02, 0x18, 0x00])


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model, kept as tokenizer.model; beside it may stand Hugging Face's settings.

    Read from them are `legacy` and `add_bos_token` (both true unless said otherwise) of tokenizer_config.json, and the
    tokens that added_tokens.json or `added_tokens_decoder` add. Raises `UserError` for a broken file.
    """

    def __init__(self, model: bytes, folder: Path | None = None) -> None:
        self.folder = folder
        self._model = model
        try:
            self._prefixed = SentencePieceProcessor(model_proto=model)
            self._bare = SentencePieceProcessor(model_proto=model + _NO_PREFIX)
        except RuntimeError:
            path = folder / MODEL_FILE if folder else "the model"
            raise UserError(f"{path}: not a SentencePiece model, or damaged; copy it again") from None
        config = _read_json(folder, "tokenizer_config.json")
        self._legacy = config.get("legacy") is not False
        base = self._prefixed.vocab_size()
        control = [n for n in range(base) if self._prefixed.is_control(n) or self._prefixed.is_unknown(n)]
        self._special = {self._prefixed.id_to_piece(n): n for n in control}
        self._kept: set[int] = set()  # added tokens that are text like any other
        for token, n, special in _added_tokens(folder, config):
            self._special[token] = n
            if not special:
                self._kept.add(n)
        self._written = {n: token for token, n in self._special.items()}
        longest_first = sorted(self._special, key=len, reverse=True)
        self._cut = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._vocab_size = max([base - 1, *self._special.values()]) + 1
        bos = self._prefixed.bos_id()
        self.bos = bos if bos >= 0 and config.get("add_bos_token") is not False else None
        first = self._prefixed.id_to_piece(self._prefixed.encode("a")[0])
        self._adds_prefix = first.startswith(SPACE)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        position = 0
        for number, part in enumerate(self._cut.split(text)):
            if number % 2:
                ids.append(self._special[part])
                offsets.append((position, position + len(part)))
            elif part:
                part_ids, part_offsets = self._encode_part(part, first=number == 0)
                ids += part_ids
                offsets += [(position + start, position + end) for start, end in part_offsets]
            position += len(part)
        return ids, offsets

    def _encode_part(self, text: str, first: bool) -> tuple[list[int], list[tuple[int, int]]]:
        processor = self._prefixed if first or self._legacy else self._bare
        mapping = processor.encode(text, return_type="offset_mapping")
        ids, offsets = list(mapping["ids"]), list(mapping["offsets"])
        end = len(text)
        for n in reversed(range(len(ids))):  # the library gives a character's span to the last of its bytes alone
            if offsets[n][0] == offsets[n][1] and processor.is_byte(ids[n]):
                offsets[n] = (offsets[n][0], end)
            end = offsets[n][1]
        return ids, offsets

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
        if token in self._special:
            return self._special[token]
        id = self._prefixed.piece_to_id(token)
        return id if self._prefixed.id_to_piece(id) == token else None

    def fingerprint(self) -> str:
        settings = (self._legacy, self.bos, sorted(self._special.items()), sorted(self._kept))
        return f"{hashlib.sha256(self._model).hexdigest()} {settings}"

    def _write(self, folder: Path) -> None:
        (folder / MODEL_FILE).write_bytes(self._model)


def _read_json(folder: Path | None, name: str) -> dict[str, Any]:
    path = folder / name if folder else None
    if not path or not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise UserError(f"{path}: not valid JSON ({e})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object")
    return value


def _added_tokens(folder: Path | None, config: dict[str, Any]) -> Iterator[tuple[str, int, bool]]:
    """The added tokens: how each is written, its number, and whether it is special."""
    try:
        for token, id in _read_json(folder, "added_tokens.json").items():
            yield token, int(id), True
        for id, entry in config.get("added_tokens_decoder", {}).items():
            yield entry["content"], int(id), bool(entry.get("special", True))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{folder}: added_tokens.json or added_tokens_decoder is not as Hugging Face writes it"
        ) from None
