"""What image files a conversion was made from, so that a repeated or resumed one notices which of them changed.

Only images in files of their own are noted; those inside a file of records come with its fingerprint.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.data.image.patches import image_size
from eve_jax.data.image_file import BadImage, ImageFile
from eve_jax.data.plan.measured_on import Stamp
from eve_jax.data.record import BadRecord
from eve_jax.data.samples.image_changes import MOST, changed_files
from eve_jax.data.samples.image_stamps import files_hash, stamp_of
from eve_jax.data.sources.records import Records
from eve_jax.errors import UserError


class NotedImages:
    """The images of some records: those that were kept and those that were left out.

    kept: record, number of the image in it, and its stamp, of each file once. left_out: record, `files_hash` of its
    images. Records and images are counted from 0.
    """

    def __init__(self, kept: Iterable[Sequence[int]] = (), left_out: Iterable[Sequence[int]] = ()) -> None:
        self.kept, self.left_out = list(kept), list(left_out)
        self._known: set[str] = set()

    def stamps(self, images: Sequence[ImageFile]) -> list[Stamp | None]:
        """Return the stamps of a record's images, None for one that is noted already. Raises `BadImage`."""
        return [None if str(image) in self._known else stamp_of(image) for image in images]

    def keep(self, record: int, images: Sequence[ImageFile], stamps: Iterable[Stamp | None]) -> None:
        """Note the images of a record that was kept, with the stamps that they had before they were read."""
        for number, (image, stamp) in enumerate(zip(images, stamps, strict=True)):
            if stamp is not None and stamp.time and str(image) not in self._known:
                self._known.add(str(image))
                self.kept.append((record, number, *stamp))

    def leave_out(self, record: int, images: Sequence[ImageFile]) -> None:
        """Note a record that was left out."""
        if images:
            self.left_out.append((record, files_hash(images)))

    def plain(self) -> dict[str, Any]:
        """Return what JSON can hold, for `of_plain`; an even sample of at most MOST of each kind."""
        return {"images": _sample(self.kept), "left_out": _sample(self.left_out)}

    @classmethod
    def of_plain(cls, plain: Iterable[dict[str, Any]]) -> "NotedImages":
        """Return what several `plain` gave, together; what an earlier version wrote has none."""
        parts = list(plain)
        kept = [one for part in parts for one in part.get("images", ())]
        return cls(kept, [one for part in parts for one in part.get("left_out", ())])

    def check(self, folder: Path, records: Records) -> None:
        """Raise UserError, which names an image, when images that were converted into `folder` have changed.

        Compares an even sample of at most MOST. An image that is gone is no change: the folder holds it.
        """
        changed = [one for one in changed_files(self._files(records)) if not one.broken or Path(one.image).exists()]
        found = [(one.image, one.where) for one in changed] or list(self._usable(records))
        if found:
            (image, where), more = found[0], f" and {len(found) - 1:,} more" if len(found) > 1 else ""
            raise UserError(
                f"{folder}: the image {image} (of {where}){more} changed since it was converted; restore the file, "
                "choose another --to, or remove the folder"
            )

    def _files(self, records: Records) -> Iterator[tuple[ImageFile, Stamp, str]]:
        for index, number, *stamp in _sample(self.kept):
            images = _images(records, index)
            if number < len(images):
                yield images[number], Stamp(*stamp), records.where(index)

    def _usable(self, records: Records) -> Iterator[tuple[str, str]]:
        """Yield an image and the place of each record left out whose files changed and can be used by now."""
        for index, known in _sample(self.left_out):
            images = _images(records, index)
            if images and files_hash(images) != known and all(map(_has_size, images)):
                yield str(images[0]), records.where(index)


def _sample(items: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    numbers = np.linspace(0, len(items), min(len(items), MOST), endpoint=False).astype(np.int64)
    return [items[number] for number in numbers.tolist()]


def _images(records: Records, index: int) -> Sequence[ImageFile]:
    try:
        return records[index].images
    except BadRecord:  # it was so before, since the records are the same
        return ()


def _has_size(file: ImageFile) -> bool:
    try:
        image_size(file)
    except BadImage:
        return False
    return True
