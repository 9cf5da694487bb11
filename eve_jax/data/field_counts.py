"""Which fields of the records were used, and how many records have images: a line for each source."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from eve_jax.data.record import Fields
from eve_jax.errors import UserError, amount, shorten

NAMES = 50  # of fields that are counted one by one
OTHERS = "(others)"
NEEDS_IMAGES = ("1", "2.1")  # values of config.stage that train the patch embedding or the vision weights alone
FEW = 0.1  # of the records; fewer with images are warned about in those stages


@dataclass
class FieldCounts:
    """Of one source: usable records, those with an image among them, and records by field, used or not.

    doubts: records by what they have that may stand for an image and does not.
    """

    records: int = 0
    images: int = 0
    used: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    doubts: Counter[str] = field(default_factory=Counter)

    def add(self, fields: Fields, has_images: bool) -> None:
        """Count a usable record with these fields."""
        self.records += 1
        self.images += has_images
        for counter, names in zip((self.used, self.unused, self.doubts), fields, strict=True):
            for name in names:
                counter[name if name in counter or len(counter) < NAMES else OTHERS] += 1

    def __add__(self, other: Self) -> "FieldCounts":
        counts = (self.records + other.records, self.images + other.images)
        return FieldCounts(*counts, self.used + other.used, self.unused + other.unused, self.doubts + other.doubts)

    def plain(self) -> list[Any]:
        """Return what JSON can hold, for `of_plain`."""
        return [self.records, self.images, dict(self.used), dict(self.unused), dict(self.doubts)]

    @classmethod
    def of_plain(cls, plain: Sequence[Any]) -> Self:
        """Return the counts that `plain` gave. Raises ValueError for anything else."""
        records, images, *counters = plain  # without doubts in what an earlier version wrote
        numbers = [records, images, *(number for counter in counters for number in dict(counter).values())]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("counts of records that are no whole numbers from 0")
        return cls(records, images, *map(Counter, counters))

    def line(self, name: str) -> str:
        """Return one line for people about the source `name`."""
        if not self.records:
            return f"{name}: no record can be used"
        texts = f", {'all' if not self.images else f'{self.records - self.images:,}'} text only"
        parts = [
            f"{name}: {amount(self.records, 'record')}{texts if self.images < self.records else ', all with images'}"
        ]
        counters = (self.used, self.unused, self.doubts)
        for what, counter in zip(("fields used", "not used", "warning"), counters, strict=True):
            if counter:
                parts.append(f"{what}: " + ", ".join(f"{_shown(key)} ({n:,})" for key, n in counter.most_common()))
        return "; ".join(parts)


def _shown(name: str) -> str:
    return shorten(name.encode("utf-8", "replace").decode(), 60)


def summed(parts: Iterable[Sequence[FieldCounts]]) -> list[FieldCounts]:
    """Return the counts of every source, of several parts that each have counts of every source."""
    return [sum(of_source, FieldCounts()) for of_source in zip(*parts, strict=True)]


def check_images(stage: str, sources: dict[str, FieldCounts]) -> str:
    """Return a warning where few records have images in a stage that trains on images alone, "" where all is well.

    Raises `UserError` where none has.
    """
    images = sum(counts.images for counts in sources.values())
    records = sum(counts.records for counts in sources.values())
    if stage not in NEEDS_IMAGES or images >= FEW * records:
        return ""
    if images:
        few = f"only {images:,} of {amount(records, 'record')} have an image"
        return f"warning: {few}, and stage {stage} trains what reads images"
    found = "; ".join(counts.line(name) for name, counts in sources.items())
    raise UserError(
        f"stage {stage} trains what reads images, but no record has an image ({found}); name images in a field that is "
        "read (see docs/data.md)"
    )
