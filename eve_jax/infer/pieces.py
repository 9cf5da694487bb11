"""Prompts cut into pieces of few row shapes, so that a long prefill can be done bit by bit by compiled programs.

Image tokens are causal like text, and EVEv2 embeds each patch by itself: a piece is any range of a prompt's tokens.
EVEv1's class token looks at all windows of its image, and a vision encoder's patches at each other, so there an image
stays whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from eve_jax.batch import RowShape, batch_arrays, zeros
from eve_jax.data.rows.build import PATCH, SPECIAL, TEXT, Tokens, lay_out_tokens, spell_out
from eve_jax.data.samples.too_long import grid_tokens
from eve_jax.data.text.encode import IMAGE_ID
from eve_jax.errors import UserError
from eve_jax.infer.prompt import Prompt
from eve_jax.model.eve import Batch

OVERHEAD = 48  # slots whose time a piece costs in addition to its own


@dataclass(frozen=True)
class Piece:
    """Tokens start..stop - 1 of a prompt, in a row of `shape`."""

    start: int
    stop: int
    shape: RowShape


def shapes(chunk: int, whole_images: bool = False, most: int = 0) -> tuple[RowShape, ...]:
    """Return the row shapes of pieces of about `chunk` tokens: of text alone, and of images with some text.

    whole_images: with shapes for images of up to `most` tokens, which are not cut.
    """
    texts = sorted({max(16, chunk // part) for part in (8, 4, 2, 1)})
    patches = {max(16, chunk // part) for part in (4, 2, 1)}
    while whole_images and max(patches) < most:
        patches.add(2 * max(patches))
    share = 8 if whole_images else 16  # patches for each special token: images that are narrower take more pieces
    mixed = [RowShape(n, max(16, n // share), max(16, chunk // 8)) for n in sorted(patches)]
    return (*(RowShape(0, 0, n) for n in texts), *mixed)


def blank(shape: RowShape, patch_bytes: int) -> Batch:
    """The arrays of a row of `shape` without tokens."""
    batch = zeros(batch_arrays(1, shape, patch_bytes))
    for name, values in lay_out_tokens([], [], shape).items():
        batch[name][0] = values
    return batch


class Spelled:
    """The tokens of a prompt, image tokens included, and how to cut them into pieces of `menu`."""

    def __init__(self, prompt: Prompt, menu: Sequence[RowShape], whole_images: bool = False):
        """Raises UserError when an image that stays whole fits no shape of `menu`."""
        self.prompt, self.menu = prompt, menu
        self.tokens = spell_out(prompt.sample)
        kinds = np.stack([self.tokens.kind == kind for kind in (PATCH, SPECIAL, TEXT)], axis=1)
        self.before = np.concatenate([np.zeros((1, 3), np.int64), np.cumsum(kinds, axis=0)])  # of each kind [n + 1, 3]
        self.ends = self._ends() if whole_images else None
        if whole_images:
            self._check()

    def __len__(self) -> int:
        """Tokens of the prompt."""
        return len(self.tokens.kind)

    @cached_property
    def patches(self) -> np.ndarray:
        """Patches of all images, uint8 [patches, B]."""
        given = self.prompt.patches
        return np.asarray(given[0]) if len(given) == 1 else np.concatenate([np.asarray(p) for p in given])

    def piece(self, start: int, among: Sequence[RowShape] | None = None) -> Piece:
        """The piece from token `start` on, of the shape of the menu that takes most tokens for its time.

        among: these shapes of the menu alone; then the piece is empty when none of them takes a token.
        """
        shapes = self.menu if among is None else among
        found = [Piece(start, self._reach(start, shape), shape) for shape in shapes]
        none = Piece(start, start, RowShape(0, 0, 0))
        return max(found, key=lambda piece: (piece.stop - start) / (piece.shape.length + OVERHEAD), default=none)

    def batch(self, piece: Piece, patch_bytes: int) -> Batch:
        """The arrays of a row with the piece's tokens (docs/design.md#row-contract)."""
        batch = zeros(batch_arrays(1, piece.shape, patch_bytes))
        own = Tokens(*(part[piece.start : piece.stop] for part in self.tokens))
        for name, values in lay_out_tokens([own], [0.0], piece.shape).items():
            batch[name][0] = values
        first, last = self.before[piece.start, 0], self.before[piece.stop, 0]
        if last > first:
            batch["patches"][0, : last - first] = self.patches[first:last]
        return batch

    def _reach(self, start: int, shape: RowShape) -> int:
        """Where a piece of `shape` from `start` on ends; a shape with vision slots is for pieces that use them."""
        before = self.before[start:] - self.before[start]
        stop = start + int(np.argmax(np.append((before > np.array(shape)).any(axis=1), True))) - 1
        if self.ends is not None:
            stop = int(self.ends[self.ends <= stop][-1])
        vision = (self.before[stop] - self.before[start])[:2].any()
        return start if bool(vision) != bool(shape.vision) else stop

    def _ends(self) -> np.ndarray:
        """Where a piece may end when images stay whole: after text, and after an image."""
        inside = self.tokens.kind != TEXT
        widths = np.ones(len(self.prompt.ids), np.int64)
        is_image = self.prompt.ids == IMAGE_ID
        widths[is_image] = self.prompt.widths
        inside[(np.cumsum(widths) - widths)[is_image]] = False  # the first of an image belongs to no token before
        goes_on = inside  # the token belongs to the image of the one before
        return np.flatnonzero(~np.append(goes_on, False))

    def _check(self) -> None:
        for h, w in self.prompt.grids:
            patches, specials = grid_tokens([(h, w)], self.prompt.specials)
            if not any(patches <= shape.patches and specials <= shape.specials for shape in self.menu):
                raise UserError(f"an image of {h} x {w} patches is too large for the scheduler: raise its context")
