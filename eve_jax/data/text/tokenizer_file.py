"""What tokenizer.json says and the library `tokenizers` passes over without a word: checked when it is read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from eve_jax.data.text.added_tokens import read_settings
from eve_jax.errors import UserError, shorten, warn

_BOM = b"\xef\xbb\xbf"
_PIECES = ("\u0120", "\N{LOWER ONE EIGHTH BLOCK}", "\u00c3", "<0x")  # of tokens, which a decoder makes into text
LAST_TOKEN = 1 << 24
_PROBE = "a é图\U0010fffd\x00"  # characters that a vocabulary has, and one that it lacks


def read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """Return the tokenizer in the file `path`, a tokenizer.json.

    Raise `UserError` when the library cannot read it or cannot encode a text with it, and for what the library would
    pass over: a token that gets another number than the file gives it, a number of two tokens, a post-processor whose
    tokens are not the vocabulary's, merges left out at random, a decoder that leaves tokens as they are.
    Warn of bytes without a token, whose text it drops.
    """
    try:
        inner = tokenizers.Tokenizer.from_buffer(path.read_bytes().removeprefix(_BOM))
    except BaseException as error:
        raise _unreadable(path, error) from None
    said = read_settings(path.parent, path.name)
    _check_numbers(path, said, inner)
    for part in _parts(said.get("post_processor")):
        _check_template(path, part, inner)
    if said["model"].get("dropout"):
        raise UserError(f"{path}: model.dropout is {said['model']['dropout']}: merges are random; set it to null")
    try:
        decoded = inner.decode(inner.encode(_PROBE, add_special_tokens=False).ids)
    except BaseException as error:
        raise _unreadable(path, error) from None
    left = next((piece for piece in _PIECES if piece in decoded), None)
    if left is not None:
        kind = (said.get("decoder") or {}).get("type")
        raise UserError(
            f"{path}: decoder is {kind or 'null'}, which leaves {left!r} of tokens in answers; copy the file again, "
            "or set the decoder that belongs to its pre_tokenizer"
        )
    _warn_of_lost_bytes(path, said, inner)
    return inner


def _unreadable(path: Path, error: BaseException) -> UserError:
    """Return the error to raise for one of the library, which raises plain Exception, or BaseException in a panic."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        raise error
    return UserError(f"{path}: not a tokenizer that `tokenizers` can read ({shorten(str(error))})")


def _check_numbers(path: Path, said: dict[str, Any], inner: tokenizers.Tokenizer) -> None:
    for token in said.get("added_tokens") or []:
        content, id = token["content"], token["id"]
        if inner.token_to_id(content) != id:
            raise UserError(
                f"{path}: added_tokens has {shorten(repr(content))} as token {id}, but the rest of the file makes it "
                f"{inner.token_to_id(content)}: tokens are missing or have other numbers; copy the file again"
            )
    vocabulary = inner.get_vocab(with_added_tokens=True)
    if (last := max(vocabulary.values(), default=0)) > LAST_TOKEN:  # the library counts up to it to write it
        raise UserError(f"{path}: numbers a token {last}, which is past any vocabulary; copy the file again")
    if len(set(vocabulary.values())) < len(vocabulary):
        first: dict[int, str] = {}
        token, id = next((t, n) for t, n in vocabulary.items() if first.setdefault(n, t) != t)
        both = " and ".join(sorted(shorten(repr(t)) for t in (first[id], token)))
        raise UserError(f"{path}: {both} are both token {id}; copy the file again")


def _parts(entry: Any) -> Iterator[dict[str, Any]]:
    """The settings of a post-processor or pre-tokenizer, of each one of a sequence."""
    if isinstance(entry, dict):
        yield entry
        for name in ("processors", "pretokenizers"):
            for part in entry.get(name) or []:
                yield from _parts(part)


def _check_template(path: Path, part: dict[str, Any], inner: tokenizers.Tokenizer) -> None:
    if part.get("type") != "TemplateProcessing":
        return
    known = part.get("special_tokens") or {}
    for piece in part.get("single") or []:
        name = piece["SpecialToken"]["id"] if "SpecialToken" in piece else None
        if name is not None and name not in known:
            raise UserError(f"{path}: post_processor puts {shorten(repr(name))}, which its special_tokens lack")
    for token in known.values():
        for id, content in zip(token["ids"], token["tokens"], strict=False):
            if inner.token_to_id(content) != id:
                raise UserError(
                    f"{path}: post_processor has {shorten(repr(content))} as token {id}, but the vocabulary has it as "
                    f"{inner.token_to_id(content)}; copy the file again"
                )


def _warn_of_lost_bytes(path: Path, said: dict[str, Any], inner: tokenizers.Tokenizer) -> None:
    model = said["model"]
    by_bytes = any(part.get("type") == "ByteLevel" for part in _parts(said.get("pre_tokenizer")))
    if not by_bytes or model.get("type") != "BPE" or model.get("unk_token") is not None:
        return
    lost = sorted(letter for letter in pre_tokenizers.ByteLevel.alphabet() if inner.token_to_id(letter) is None)
    if lost:
        warn(f"{path}: {len(lost)} of the 256 bytes have no token (first {lost[0]!r}); text with them loses characters")
