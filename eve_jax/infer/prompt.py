"""Prompts as the engine takes them, and the batch arrays of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from eve_jax.batch import EVE_LAYOUT, Layout, RowShape, batch_arrays, zeros
from eve_jax.data.image.rule import PATCH_BYTES
from eve_jax.data.rows.build import lay_out_tokens
from eve_jax.data.rows.spell import Sample, spell_out
from eve_jax.data.text.encode import IGNORE, IMAGE_ID
from eve_jax.errors import UserError
from eve_jax.model.eve import Batch


@dataclass(frozen=True)
class Prompt:
    """Token ids with IMAGE_ID for each image, and the images' patches: uint8 [h * w, B] with their (h, w).

    layout: what images are to the model that is asked. Raises UserError for one that it does not take.
    """

    ids: np.ndarray
    patches: Sequence[np.ndarray] = ()
    grids: Sequence[tuple[int, int]] = ()
    layout: Layout = EVE_LAYOUT

    def __post_init__(self) -> None:
        if reason := next(filter(None, (self.layout.refuses(h, w) for h, w in self.grids)), ""):
            raise UserError(f"{reason}: make it smaller")

    def after(self, ids: Sequence[int]) -> "Prompt":
        """The prompt with text tokens `ids` before it."""
        return replace(self, ids=np.concatenate([np.asarray(ids, np.int32), self.ids])) if len(ids) else self

    @property
    def sample(self) -> Sample:
        """The prompt as a sample without targets."""
        labels = np.full(len(self.ids), IGNORE, np.int32)
        return Sample(np.asarray(self.ids, np.int32), labels, list(self.grids))

    @property
    def text(self) -> list[int]:
        """The ids without those of images."""
        return self.ids[self.ids != IMAGE_ID].tolist()

    @property
    def need(self) -> tuple[int, int, int]:
        """Patches, specials and text tokens of the prompt."""
        patches = sum(h * w for h, w in self.grids)
        specials = sum(self.layout.specials_of(h) for h, _ in self.grids)
        return patches, specials, len(self.ids) - len(self.grids)

    def __len__(self) -> int:
        """Tokens of the prompt, image tokens included."""
        return sum(self.need)


class Held(NamedTuple):
    """What rows of a cache hold: tokens, and what rotary positions count of the next one, int32 [R] each."""

    length: np.ndarray
    next: np.ndarray

    @classmethod
    def nothing(cls, rows: int) -> "Held":
        """Return that of empty rows."""
        return cls(np.zeros(rows, np.int32), np.zeros(rows, np.int32))

    def and_text(self, tokens: np.ndarray) -> "Held":
        """Return what is held after `tokens` [R] more of text."""
        return Held(self.length + tokens, self.next + tokens)


def pack_prompts(
    prompts: Sequence[Prompt], shape: RowShape, patch_bytes: int = PATCH_BYTES, before: Held | None = None
) -> tuple[Batch, Held]:
    """Batch arrays with one prompt a row, and what rows hold with them; a patch has `patch_bytes` bytes.

    before: what rows hold that the prompts are appended to, None for nothing.
    """
    before = Held.nothing(len(prompts)) if before is None else before
    layout = prompts[0].layout
    batch, held = zeros(batch_arrays(len(prompts), shape, patch_bytes, layout=layout)), []
    for row, prompt in enumerate(prompts):
        begun = before.length[row] > 0 and layout.sees == "prefix"  # a further image is in no beginning
        seen = layout._replace(sees="causal") if begun else layout
        tokens = spell_out(prompt.sample, seen).counted_from(int(before.next[row]))
        held.append((before.length[row] + len(tokens.kind), tokens.after))
        for name, values in lay_out_tokens([tokens], [1.0], shape, layout).items():
            batch[name][row] = values
        if prompt.patches:
            every = np.concatenate(prompt.patches)
            batch["patches"][row, : len(every)] = every
    return batch, Held(*np.array(held, np.int32).T)
