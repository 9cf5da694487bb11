"""Texts in which what reads like a special token is text: what people type is not to end an answer or begin one."""

import secrets
from collections.abc import Sequence

import tokenizers

from eve_jax.errors import UserError

Span = tuple[int, int]  # characters [start, end) of a text
PRIVATE = range(0x100000, 0x10FFFE)  # characters without a meaning
LENGTH = 8  # of a stand-in: nobody writes one by chance, and nobody can know it
STAND_INS = 16  # kinds of special tokens in the templates of one text


class LiteralTokenizer:
    """A copy of `inner` that reads no special tokens but those that it is told of.

    The others stay in the text while it is encoded as a whole, so that every token is the one that it would be if their
    characters had no meaning. In place of those that keep theirs stand private characters, which the copy has as tokens
    that are not special.
    """

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self._copy = tokenizers.Tokenizer.from_str(inner.to_str())
        self._copy.encode_special_tokens = True
        self._stand_ins = ["".join(chr(secrets.choice(PRIVATE)) for _ in range(LENGTH)) for _ in range(STAND_INS)]
        tokens = [tokenizers.AddedToken(one, special=False, normalized=False) for one in self._stand_ins]
        self._copy.add_tokens(tokens)
        self._numbers = {self._copy.token_to_id(one): n for n, one in enumerate(self._stand_ins)}

    def encode(self, text: str, kept: Sequence[tuple[int, Span]]) -> tuple[list[int], list[Span]]:
        """Token numbers of `text` and their characters; `kept`: number and place of each special token that is one."""
        kinds = list(dict.fromkeys(id for id, _ in kept))
        if len(kinds) > STAND_INS or any(one in text for one in self._stand_ins):
            raise UserError(f"a template with {len(kinds)} kinds of special tokens: at most {STAND_INS} can be written")
        written: list[str] = []
        places: list[int] = []  # of each character of what is written, in `text`
        end = 0
        for id, (start, stop) in kept:
            stand_in = self._stand_ins[kinds.index(id)]
            written += [text[end:start], stand_in]
            places += [*range(end, start), *[start] * len(stand_in)]
            end = stop
        written.append(text[end:])
        places += range(end, len(text) + 1)
        encoding = self._copy.encode("".join(written), add_special_tokens=False)
        ids: list[int] = []
        offsets: list[Span] = []
        for id, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
            number = self._numbers.get(id)
            ids.append(id if number is None else kinds[number])
            offsets.append((places[start], places[stop]))
        return ids, offsets
