"""Prompts as the engine takes them, and the batch arrays of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eve_jax.batch import RowShape, batch_arrays, zeros
from eve_jax.data.image.rule import PATCH_BYTES
from eve_jax.data.rows.build import Sample, lay_out
from eve_jax.data.samples.too_long import grid_tokens
from eve_jax.data.text.encode import IGNORE, IMAGE_ID
from eve_jax.model.eve import Batch


@dataclass(frozen=True)
class Prompt:
    """Token ids with IMAGE_ID for each image, and the images' patches: uint8 [h * w, B] with their (h, w).

    specials: whether images have a class token and split tokens (`ImageRule.specials`).
    """

    ids: np.ndarray
    patches: Sequence[np.ndarray] = ()
    grids: Sequence[tuple[int, int]] = ()
    specials: bool = True

    def after(self, ids: Sequence[int]) -> "Prompt":
        """The prompt with text tokens `ids` before it."""
        return replace(self, ids=np.concatenate([np.asarray(ids, np.int32), self.ids])) if len(ids) else self

    @property
    def sample(self) -> Sample:
        """The prompt as a sample without targets."""
        labels = np.full(len(self.ids), IGNORE, np.int32)
        return Sample(np.asarray(self.ids, np.int32), labels, list(self.grids), specials=self.specials)

    @property
    def text(self) -> list[int]:
        """The ids without those of images."""
        return self.ids[self.ids != IMAGE_ID].tolist()

    @property
    def need(self) -> tuple[int, int, int]:
        """Patches, specials and text tokens of the prompt."""
        return *grid_tokens(self.grids, self.specials), len(self.ids) - len(self.grids)

    @property
    def widths(self) -> list[int]:
        """Tokens of each image."""
        return [sum(grid_tokens([grid], self.specials)) for grid in self.grids]

    def __len__(self) -> int:
        """Tokens of the prompt, image tokens included."""
        return sum(self.need)


def pack_prompts(
    prompts: Sequence[Prompt], shape: RowShape, patch_bytes: int = PATCH_BYTES
) -> tuple[Batch, np.ndarray]:
    """Batch arrays with one prompt a row, and the prompts' lengths int32 [R]; a patch has `patch_bytes` bytes."""
    batch = zeros(batch_arrays(len(prompts), shape, patch_bytes))
    for row, prompt in enumerate(prompts):
        for name, values in lay_out([prompt.sample], shape).items():
            batch[name][row] = values
        if prompt.patches:
            every = np.concatenate(prompt.patches)
            batch["patches"][row, : len(every)] = every
    return batch, np.array([len(p) for p in prompts], np.int32)
