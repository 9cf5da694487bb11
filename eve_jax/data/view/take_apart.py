"""A row's arrays taken apart again: its samples, their images, and their text with the target tokens marked."""

from typing import NamedTuple

import numpy as np

from eve_jax.batch import CLASS, RowShape, row_shape
from eve_jax.data.image.codes import CODE_BYTES, as_codes
from eve_jax.data.image.patches import unpatchify
from eve_jax.data.rows.build import Batch
from eve_jax.data.text.tokenizer import Tokenizer

PATCH, SPECIAL, TEXT, PAD = 0, 1, 2, 3  # kinds of tokens


class Piece(NamedTuple):
    """Part of a sample in causal order: an image (uint8 [H, W, 3]), or a text.

    target: whether the text's tokens count in the loss. patch: side of the image's patches in pixels.
    """

    image: np.ndarray | None
    text: str
    target: bool
    patch: int = 0


class ShownSample(NamedTuple):
    """A sample of a row: the record's id, its pieces in order, tokens by kind, and how many of them are targets."""

    id: str
    pieces: list[Piece]
    counts: RowShape
    n_targets: int


class ShownRow(NamedTuple):
    """A row of L slots: title, shape and samples, and its tokens in causal order (arrays [L]).

    sample: int32, from 1, 0 = pad. kind: PATCH, SPECIAL, TEXT or PAD. target: bool, whether a token counts in the loss.
    slots: int32, each token's place in memory.
    """

    title: str
    shape: RowShape
    samples: list[ShownSample]
    sample: np.ndarray
    kind: np.ndarray
    target: np.ndarray
    slots: np.ndarray


def take_apart(
    batch: Batch, row: int, ids: list[str], tokenizer: Tokenizer, title: str = "", cells: int = 0
) -> ShownRow:
    """Row number `row` of a batch, whose samples are the records `ids`.

    cells: patches along a side of the images, where all are squares of one size.
    """
    shape = row_shape(batch)
    slots = batch["perm"][row]
    sample = batch["segment"][row][slots]
    kind = np.where(sample > 0, np.repeat([PATCH, SPECIAL, TEXT], shape)[slots], PAD)
    target = np.zeros(shape.length, bool)
    weighty = batch["loss_idx"][row][batch["loss_weight"][row] > 0]
    target[batch["inv"][row][weighty] + 1] = True  # loss_idx is where a token is predicted: one before it
    samples = []
    for number, id in enumerate(ids, 1):
        own = np.flatnonzero(sample == number)
        pieces = _pieces(batch, row, shape, slots[own], target[own], tokenizer, cells)
        counts = RowShape(*(int((kind[own] == k).sum()) for k in (PATCH, SPECIAL, TEXT)))
        samples.append(ShownSample(id, pieces, counts, int(target[own].sum())))
    return ShownRow(title, shape, samples, sample, kind, target, slots)


def _pieces(
    batch: Batch, row: int, shape: RowShape, slots: np.ndarray, target: np.ndarray, tokenizer: Tokenizer, cells: int
) -> list[Piece]:
    """Images and runs of text, all targets or none, of the sample with its tokens in `slots`, in causal order."""
    pieces = []
    at = 0
    while at < len(slots):
        if slots[at] < shape.vision:
            image, h, used = _image(batch, row, shape, slots[at:], cells)
            pieces.append(Piece(image, "", False, image.shape[0] // h))
            at += used
            continue
        same = (slots[at:] >= shape.vision) & (target[at:] == target[at])
        used = len(same) if same.all() else int(np.argmin(same))
        ids = batch["text_ids"][row][slots[at : at + used] - shape.vision]
        pieces.append(Piece(None, tokenizer.decode(ids, skip_special=False), bool(target[at])))
        at += used
    return pieces


def _image(batch: Batch, row: int, shape: RowShape, slots: np.ndarray, cells: int) -> tuple[np.ndarray, int, int]:
    """The image that the first of `slots` begins, its rows of patches, and how many tokens it has."""
    if cells:
        used = cells**2
        patches = batch["patches"][row][slots[:used]]
        if patches.shape[1] == CODE_BYTES:
            return _drawn_codes(as_codes(patches).reshape(cells, cells)), cells, used
        return unpatchify(patches, cells, cells), cells, used
    if slots[0] < shape.patches:  # no class token
        return _bare_image(batch, row, shape, slots)
    special = (slots >= shape.patches) & (slots < shape.vision)
    ids = np.where(special, batch["special_ids"][row][np.where(special, slots - shape.patches, 0)], 0)
    ends = np.flatnonzero((slots >= shape.vision) | (ids == CLASS))[1:]  # text or the next image
    used = int(ends[0]) if len(ends) else len(slots)
    own = slots[:used]
    h = int(special[1:used].sum())
    patches = batch["patches"][row][own[own < shape.patches]]
    return unpatchify(patches, h, len(patches) // h), h, used


def _drawn_codes(codes: np.ndarray) -> np.ndarray:
    """A gray for each code [h, w], in squares of 8 pixels: uint8 [8 h, 8 w, 3]."""
    gray = (codes.astype(np.uint32) * 97 % 256).astype(np.uint8)
    return np.repeat(np.kron(gray, np.ones((8, 8), np.uint8))[..., None], 3, axis=2)


def _bare_image(batch: Batch, row: int, shape: RowShape, slots: np.ndarray) -> tuple[np.ndarray, int, int]:
    """`_image` of one without class and split tokens, by where its patches are in it."""
    is_patch = slots < shape.patches
    place = batch["place"][row][np.where(is_patch, slots, 0)]
    ends = np.flatnonzero(~is_patch | ~place.any(axis=1))[1:]  # text or the next image
    used = int(ends[0]) if len(ends) else len(slots)
    h, w = place[used - 1] + 1
    return unpatchify(batch["patches"][row][slots[:used]], int(h), int(w)), int(h), used
