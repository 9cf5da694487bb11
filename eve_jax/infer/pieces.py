"""Prompts cut into pieces of few row shapes, so that a long prefill can be done bit by bit by compiled programs.

Image tokens are causal like text, and EVEv2 embeds each patch by itself: a piece is any range of a prompt's tokens.
EVEv1's class token looks at all windows of its image, a vision encoder's patches at each other, and tokens of other
models see all of theirs, so there an image stays whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from eve_jax.batch import EVE_LAYOUT, Layout, RowShape, batch_arrays, zeros
from eve_jax.data.rows.build import lay_out_tokens
from eve_jax.data.rows.spell import PATCH, SPECIAL, TEXT, spell_out
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


def shapes(chunk: int, whole_images: bool = False, most: int = 0, layout: Layout = EVE_LAYOUT) -> tuple[RowShape, ...]:
    """Return the row shapes of pieces of about `chunk` tokens: of text alone, and of images with some text.

    whole_images: with shapes for images of up to `most` tokens, which are not cut.
    """
    texts = sorted({max(16, chunk // part) for part in (8, 4, 2, 1)})
    patches = {max(16, chunk // part) for part in (4, 2, 1)}
    while whole_images and max(patches) < most:
        patches.add(2 * max(patches))
    share = 8 if whole_images else 16  # patches for each special token: images that are narrower take more pieces
    specials = {n: max(16, n // share) if layout.specials else 0 for n in patches}
    mixed = [RowShape(n, specials[n], max(16, chunk // 8)) for n in sorted(patches)]
    return (*(RowShape(0, 0, n) for n in texts), *mixed)


def blank(shape: RowShape, patch_bytes: int, layout: Layout = EVE_LAYOUT) -> Batch:
    """The arrays of a row of `shape` without tokens."""
    batch = zeros(batch_arrays(1, shape, patch_bytes, layout=layout))
    for name, values in lay_out_tokens([], [], shape, layout).items():
        batch[name][0] = values
    return batch


class Spelled:
    """The tokens of a prompt, image tokens included, and how to cut them into pieces of `menu`."""

    def __init__(self, prompt: Prompt, menu: Sequence[RowShape], whole_images: bool = False):
        """Raises UserError when an image that stays whole fits no shape of `menu`."""
        self.prompt, self.menu = prompt, menu
        self.tokens = spell_out(prompt.sample, prompt.layout)
        kinds = np.stack([self.tokens.kind == kind for kind in (PATCH, SPECIAL, TEXT)], axis=1)
        self.before = np.concatenate([np.zeros((1, 3), np.int64), np.cumsum(kinds, axis=0)])  # of each kind [n + 1, 3]
        self.ends = self._ends() if whole_images else None
        if self.ends is not None:
            self._check(self.ends)

    def __len__(self) -> int:
        """Tokens of the prompt."""
        return len(self.tokens.kind)

    @property
    def shift(self) -> int:
        """How much more rotary positions count than tokens of the prompt, of what follows it."""
        return self.tokens.after - len(self)

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
        layout = self.prompt.layout
        batch = zeros(batch_arrays(1, piece.shape, patch_bytes, layout=layout))
        own = self.tokens.cut(piece.start, piece.stop)
        for name, values in lay_out_tokens([own], [0.0], piece.shape, layout).items():
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
        """Where a piece may end when images stay whole: where no token before sees one behind."""
        layout, end = self.prompt.layout, self.tokens.end
        if layout.sees == "causal":
            end = spell_out(self.prompt.sample, layout._replace(sees="image")).end
        closed = np.maximum.accumulate(end) == np.arange(len(end))
        return np.concatenate([[0], np.flatnonzero(closed) + 1])

    def _check(self, ends: np.ndarray) -> None:
        """Raise UserError for what stays whole and fits no shape of the menu."""
        needs = np.diff(self.before[ends], axis=0)
        most = np.array(self.menu)
        if (needs[:, None] <= most).all(axis=2).any(axis=1).all():
            return
        h, w = max(self.prompt.grids, key=lambda grid: grid[0] * grid[1])
        raise UserError(f"an image of {h} x {w} patches is too large for the scheduler: raise its context")
