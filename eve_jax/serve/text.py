"""Tokens to text as they come: whole characters, stop strings, the bytes of a token."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import NamedTuple

from eve_jax.data.text.tokenizer import FastTokenizer, Tokenizer
from eve_jax.infer.messages import HALF_CHARACTER
from eve_jax.infer.stopping import before_stop

WINDOW = 64  # tokens that are decoded anew with each further one
CONTEXT = 8  # of them stay when the window moves: what a token's text is may depend on those before it
BYTE = re.compile(r"<0x([0-9A-F]{2})>")

Decode = Callable[[Sequence[int]], str]


class Detokenizer:
    """The text of tokens in pieces of whole characters that add up to the text of all of them.

    `before`: tokens before the first, whose text is not given.
    """

    def __init__(self, decode: Decode, before: Iterable[int] = ()):
        self._decode = decode
        self._ids = list(before)
        self._given = len(decode(self._ids).rstrip(HALF_CHARACTER))  # characters of the window's text

    def push(self, ids: Sequence[int], last: bool = False) -> str:
        """The further text of further tokens; with `last` also half of a character."""
        self._ids += ids
        text = self._decode(self._ids)
        sure = text if last else text.rstrip(HALF_CHARACTER)
        piece = sure[self._given :]
        self._given = max(self._given, len(sure))
        if len(self._ids) > WINDOW and len(sure) == len(text):
            kept = self._decode(self._ids[-CONTEXT:])
            if HALF_CHARACTER not in kept:
                self._ids, self._given = self._ids[-CONTEXT:], len(kept)
        return piece


class StopStrings:
    """Text up to the first of `stops`; what may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]):
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def push(self, piece: str, last: bool = False) -> str:
        """The text that may be given after a further piece; `found` is then the stop string that ended it, if any."""
        if self.found is not None:
            return ""
        text = self._held + piece
        given, self.found = before_stop(text, self._stops, last)
        self._held = text[len(given) :]
        return given


class Stripped:
    """Text without white space at its ends, in pieces."""

    def __init__(self) -> None:
        self._begun = False
        self._held = ""

    def push(self, piece: str, last: bool = False) -> str:
        """The further text."""
        text = self._held + piece
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        sure = text.rstrip()
        self._held = "" if last else text[len(sure) :]
        return sure


class Spelled(NamedTuple):
    """A token as log probabilities show it: its text, and its bytes where they are known."""

    text: str
    bytes: list[int] | None


def spelled(tokenizer: Tokenizer, token: int) -> Spelled:
    """The text and bytes of one token; parts of a character have bytes, too, and the text has U+FFFD for them."""
    text = tokenizer.decode([token], skip_special=False)
    if HALF_CHARACTER not in text:
        return Spelled(text, list(text.encode()))
    piece = tokenizer.inner.id_to_token(token) if isinstance(tokenizer, FastTokenizer) else None
    if piece is None:
        return Spelled(text, None)
    if found := BYTE.fullmatch(piece):
        return Spelled(text, [int(found[1], 16)])
    known = _byte_level()
    return Spelled(text, [known[letter] for letter in piece] if all(letter in known for letter in piece) else None)


@cache
def _byte_level() -> dict[str, int]:
    """The byte of each letter that byte-level vocabularies are written in (GPT-2): printable Latin-1 is itself, the
    others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
