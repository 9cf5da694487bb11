"""The shape of a packed row, known to the data, the model and the compiler alike."""

from typing import NamedTuple

ROW_MULTIPLE = 128  # rows are a multiple of this, so that attention kernels tile them


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
