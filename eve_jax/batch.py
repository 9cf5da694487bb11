"""The row contract: names, shapes and dtypes of the arrays of a micro-batch (docs/design.md#row-contract)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

ROW_MULTIPLE = 128  # rows are a multiple of this, so that attention kernels tile them
MOST_ROWS = 1 << 16  # of a micro-batch, and micro-batches of a step
PAD, CLASS, SPLIT = 0, 1, 2  # values of special_ids


class RowShape(NamedTuple):
    """Slots of a row by kind, in memory order: image patches, special tokens (class, split), text tokens."""

    patches: int
    specials: int
    text: int

    @property
    def vision(self) -> int:
        """Slots made by the patch embedding layer: patches and specials."""
        return self.patches + self.specials

    @property
    def length(self) -> int:
        """All slots of the row, a multiple of ROW_MULTIPLE."""
        return sum(self)


class TeacherShape(NamedTuple):
    """What the aligning loss adds to a row: `images` square images of `side` pixels; a place is pool x pool patches."""

    images: int
    side: int
    pool: int


INDEX_RULES = ("token", "thw", "max+1")
SEES = ("causal", "image", "prefix")
WITH_SPECIALS = ("v2", "v1")  # patch embeddings that give an image class and split tokens
PLACELESS = (*WITH_SPECIALS, "clip", "vq")  # those that do not ask where in its image a patch is


class Layout(NamedTuple):
    """What images are in a row of a model, and what its tokens are numbered by and see (docs/design.md#row-contract).

    specials: whether an image has class and split tokens. index_rule: how rotary positions count, of INDEX_RULES: every
    token; an image once (thw); an image by its longer side (max+1). sees: of SEES, the tokens that one sees: those
    before it; also all of its image; also all of the sample's beginning up to its first image, and the text token
    `close` directly behind that. places: whether rows say where in its image a patch is. longest: the most tokens of an
    image, and sides: the most rows or columns of its patches, 0 for any number.
    """

    specials: bool = True
    index_rule: str = "token"
    sees: str = "causal"
    places: bool = False
    close: int = -1
    longest: int = 0
    sides: int = 0

    @classmethod
    def of(cls, model: Any) -> "Layout":
        """Return that of the section `model` of a config, or of the sizes of a model."""
        specials = model.patch_embed in WITH_SPECIALS
        places = model.patch_embed not in PLACELESS or model.rope != "1d"
        numbers = (model.close_token, model.longest_image, model.patch_sides)
        return cls(specials, model.index_rule, model.image_attention, places, *numbers)

    @property
    def key(self) -> list[Any]:
        """Return what tells it from others, in JSON; `sides`, which came later, where there are any."""
        return [*self[:-1], *([self.sides] if self.sides else [])]

    def specials_of(self, h: int) -> int:
        """Return the number of special tokens of an image with `h` rows of patches."""
        return h + 1 if self.specials else 0

    def tokens_of(self, h: int, w: int) -> int:
        """Return the number of tokens of an image of `h` x `w` patches."""
        return h * w + self.specials_of(h)

    def refuses(self, h: int, w: int) -> str:
        """Return why an image of `h` x `w` patches is not taken, "" where it is."""
        tokens = self.tokens_of(h, w)
        if self.sides and max(h, w) > self.sides:
            return f"an image of {h} x {w} patches, a side of more than config.model.patch_sides={self.sides}"
        if not self.longest or tokens <= self.longest:
            return ""
        return f"an image of {tokens} tokens, more than config.model.longest_image={self.longest}"


EVE_LAYOUT = Layout()


class ArraySpec(NamedTuple):
    """Shape and dtype of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


# Dimensions by their letters in docs/design.md#row-contract, without the leading R.
_PATCHES = {"patches": ("P B", np.uint8)}
_TOKENS = {
    "special_ids": ("S", np.int32),
    "text_ids": ("T", np.int32),
    "segment": ("L", np.int32),
    "position": ("L", np.int32),
    "perm": ("L", np.int32),
    "inv": ("L", np.int32),
    "loss_idx": ("T", np.int32),
    "labels": ("T", np.int32),
    "loss_weight": ("T", np.float32),
}
_INDEX = {"index": ("L", np.int32)}  # absent where tokens count one by one
_END = {"end": ("L", np.int32)}  # absent where a token sees those before it alone
_PLACE = {"place": ("P 2", np.int32)}
_TEACHER_IMAGES = {"teacher_images": ("I s s 3", np.uint8)}
_PLACES = {"teacher_idx": ("A", np.int32), "align_weight": ("A", np.float32)}
_POOLS = {"pool": ("P", np.int32), "pool_inv": ("P", np.int32)}  # absent where a place is one patch


def token_arrays(shape: RowShape, layout: Layout = EVE_LAYOUT) -> dict[str, ArraySpec]:
    """Return the arrays of one row of `shape` that follow from its tokens: all but patches and those of the teacher."""
    arrays = dict(_TOKENS)
    arrays |= _INDEX if layout.index_rule != "token" else {}
    arrays |= _END if layout.sees != "causal" else {}
    arrays |= _PLACE if layout.places else {}
    return _specs(arrays, {"P": shape.patches, "S": shape.specials, "T": shape.text, "L": shape.length})


def place_arrays(shape: RowShape, pool: int) -> dict[str, ArraySpec]:
    """Return the arrays of one row that say what each place, `pool` x `pool` patches, is compared with."""
    arrays = _PLACES if pool == 1 else _PLACES | _POOLS
    return _specs(arrays, {"P": shape.patches, "A": shape.patches // pool**2})


def batch_arrays(
    rows: int,
    shape: RowShape,
    patch_bytes: int,
    teacher: TeacherShape | None = None,
    layout: Layout = EVE_LAYOUT,
) -> dict[str, ArraySpec]:
    """Return all arrays of a micro-batch of `rows` rows; `teacher`: with those of the aligning loss."""
    arrays = _specs(_PATCHES, {"P": shape.patches, "B": patch_bytes}) | token_arrays(shape, layout)
    if teacher is not None:
        arrays |= _specs(_TEACHER_IMAGES, {"I": teacher.images, "s": teacher.side}) | place_arrays(shape, teacher.pool)
    return {name: ArraySpec((rows, *spec.shape), spec.dtype) for name, spec in arrays.items()}


def zeros(arrays: Mapping[str, ArraySpec]) -> dict[str, np.ndarray]:
    """Return an array of zeros for each of `arrays`."""
    return {name: np.zeros(*spec) for name, spec in arrays.items()}


def row_shape(batch: Mapping[str, Any]) -> RowShape:
    """Return the row shape of a micro-batch."""
    patches, specials, length = (batch[name].shape[1] for name in ("patches", "special_ids", "segment"))
    return RowShape(patches, specials, length - patches - specials)


def _specs(arrays: Mapping[str, tuple[str, type]], sizes: Mapping[str, int]) -> dict[str, ArraySpec]:
    def size(letter: str) -> int:
        return int(letter) if letter.isdigit() else sizes[letter]

    return {name: ArraySpec(tuple(map(size, dims.split())), np.dtype(dtype)) for name, (dims, dtype) in arrays.items()}
