"""Qwen2's real tokenizer, built from the token ranks that the package `dashscope` carries (no download)."""

import base64
import functools
import hashlib
import itertools
from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as InnerTokenizer

from eve_jax.data.tokenizer import Tokenizer

RANKS_SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_letters() -> list[str]:
    """The printable letter that byte-level BPE writes for each byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        letters.setdefault(byte, chr(256 + len([b for b in letters if ord(letters[b]) >= 256])))
    return [letters[byte] for byte in range(256)]


def _halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The last merge that makes `token`: byte-pair encoding with the earlier ranks leaves two parts of it."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, len(ranks)) for a, b in itertools.pairwise(parts)]
        at = pairs.index(min(pairs))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


@functools.cache
def qwen2_tokenizer() -> Tokenizer:
    """Qwen2's tokenizer: 151643 tokens and three special ones."""
    package = find_spec("dashscope")  # found, not imported: that would need a web client
    assert package is not None and package.submodule_search_locations, "pip install -e .[test]"
    data = (Path(package.submodule_search_locations[0]) / "resources" / "qwen.tiktoken").read_bytes()
    assert hashlib.sha256(data).hexdigest() == RANKS_SHA256
    ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in data.splitlines() if line}
    letters = _byte_letters()

    def spelt(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    halves = [_halves(token, ranks) for token in ranks if len(token) > 1]
    merges = [(spelt(a), spelt(b)) for a, b in halves]
    inner = InnerTokenizer(models.BPE(vocab={spelt(t): r for t, r in ranks.items()}, merges=merges))
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.ByteLevel(trim_offsets=False)
    inner.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return Tokenizer(inner)
