"""Sizes of the tiles of splash attention (TPU), as `config.model.attention_blocks` gives them."""

from typing import NamedTuple

from eve_jax.errors import Field, FieldError

LANES = 128  # the kernels' unit of length
DEFAULT = 512
FIELD = Field("model.attention_blocks")
# Queries and keys of a tile in the forward kernel, in that of the gradients of keys and values, and in that of the
# gradient of queries; `compute`: keys that are multiplied at a time, of those of a tile.
NAMES = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
WHOLE = {"kv_compute": "kv", "kv_dkv_compute": "kv_dkv"}  # the tile that each is a part of


class Kernel(NamedTuple):
    """A kernel of attention by its name, and the sizes that splash is asked for."""

    name: str = "auto"
    blocks: tuple[tuple[str, int], ...] = ()


def parse_blocks(text: str) -> dict[str, int]:
    """Return the sizes that `text` gives, by name: one number for all of NAMES, or NAME:SIZE with commas.

    Raises FieldError for anything else, and for sizes that are no multiple of LANES.
    """
    found: dict[str, int] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        name, _, size = item.rpartition(":")
        if not size.isdecimal() or not int(size) or int(size) % LANES or (name and name not in NAMES) or name in found:
            known = f"SIZE, or NAME:SIZE with commas, once of {', '.join(NAMES)}"
            raise FieldError(FIELD, f"={text!r}: {item!r}: expected {known}; sizes are multiples of {LANES}")
        found[name] = int(size)
    if "" in found and len(found) > 1:
        raise FieldError(FIELD, f"={text!r}: one size for all, or sizes by name")
    return dict.fromkeys(NAMES, found[""]) if "" in found else found


def block_sizes(blocks: tuple[tuple[str, int], ...], length: int) -> dict[str, int]:
    """Return the sizes for rows of `length`: the largest that divide it, or the tile that they are a part of.

    blocks: the most that each may be, DEFAULT where it is not named.
    """
    most = dict.fromkeys(NAMES, DEFAULT) | dict(blocks)
    sizes: dict[str, int] = {}
    for name in NAMES:
        whole = sizes[WHOLE[name]] if name in WHOLE else length
        sizes[name] = next(b for b in range(min(most[name], whole), 0, -LANES) if whole % b == 0)
    return sizes
