"""Byte-level BPE from a file of token ranks, a line `<token in base64> <rank>` each (the format of tiktoken).

Meta's own LLaMA-3 releases hold such a file, called tokenizer.model; the Hugging Face release has a tokenizer.json.
"""

import base64
import binascii
import itertools
import re
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors

from eve_jax.errors import UserError

LLAMA3_RANKS = 128_000
LLAMA3_SPECIAL = 256
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# LLaMA 3.1 to 3.3; the other numbers of the 256 are reserved. LLaMA 3.0 has reserved tokens at 4, 8 and 10.
_LLAMA3_NAMES = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    4: "<|finetune_right_pad_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
}


def is_ranks(data: bytes) -> bool:
    """Whether `data` is a file of token ranks."""
    return re.match(rb"[A-Za-z0-9+/=]+ \d+\r?\n", data) is not None


def read_ranks(data: bytes, path: Path) -> dict[bytes, int]:
    """Rank of every token. Raises `UserError` for a broken line of `path`."""
    ranks = {}
    for number, line in enumerate(data.splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise UserError(f"{path}:{number}: not a token in base64 and its rank; the file is damaged") from None
    return ranks


def bpe_from_ranks(ranks: dict[bytes, int], split: str) -> tokenizers.Tokenizer:
    """A byte-level BPE of `ranks` whose pre-tokens are the matches of the regular expression `split`."""
    letters = _byte_letters()
    spelt = {token: "".join(letters[byte] for byte in token) for token in ranks}
    # Any two neighbors that make a token may merge, the token of the lowest rank first.
    merges = [
        (spelt[token[:n]], spelt[token[n:]])
        for token in sorted(ranks, key=ranks.__getitem__)
        for n in range(1, len(token))
        if token[:n] in ranks and token[n:] in ranks
    ]
    vocab = {spelt[token]: rank for token, rank in ranks.items()}
    inner = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.ByteLevel(trim_offsets=False)
    return inner


def llama3_from_ranks(data: bytes, path: Path) -> tokenizers.Tokenizer:
    """LLaMA-3's tokenizer with its special tokens. Raises `UserError` when `path` is another model's or damaged."""
    ranks = read_ranks(data, path)
    if sorted(ranks.values()) != list(range(LLAMA3_RANKS)):
        raise UserError(
            f"{path}: {len(ranks)} token ranks, LLaMA-3 has {LLAMA3_RANKS}; of other models use the tokenizer.json "
            "of the Hugging Face release"
        )
    inner = bpe_from_ranks(ranks, LLAMA3_SPLIT)
    inner.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in _llama3_special()])
    bos = _LLAMA3_NAMES[0]
    with_bos = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, LLAMA3_RANKS)])
    inner.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), with_bos])
    return inner


def _llama3_special() -> list[str]:
    reserved = itertools.count()
    return [_LLAMA3_NAMES.get(n) or f"<|reserved_special_token_{next(reserved)}|>" for n in range(LLAMA3_SPECIAL)]


def _byte_letters() -> list[str]:
    """Return the printable letter that byte-level BPE writes for each byte, its own where it has one."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    others = iter(sorted(letter for letter in alphabet if ord(letter) > 255))
    return [chr(byte) if chr(byte) in alphabet else next(others) for byte in range(256)]
