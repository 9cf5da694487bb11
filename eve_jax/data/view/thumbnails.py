"""Small images for a page, bounded in number of bytes."""

from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from eve_jax.data.image.patches import open_image
from eve_jax.data.image_file import BadImage, ImageFile, one_line
from eve_jax.data.view.document import data_url

SIDE, QUALITY = 224, 80  # longer side of an image in pixels, JPEG quality
PAGE_BYTES = 24 * 2**20  # of all images of a page


class Thumbnails:
    """Makes the small images of a page until they have `most` bytes together, `side` pixels on the longer side."""

    def __init__(self, most: int = PAGE_BYTES, side: int = SIDE) -> None:
        self._left, self._side = most, side

    def of(
        self, files: Sequence[ImageFile], draw: Callable[[Image.Image], Image.Image] | None = None
    ) -> Iterator[tuple[str, str]]:
        """Yield a data URL and the size in pixels of each image, or "" and why there is none.

        draw: what is done to the small RGB image before it is encoded.
        """
        for file in files:
            if self._left <= 0:
                yield "", "image left out: the page is full"
                continue
            try:
                image = open_image(file)
                about = f"{image.width} × {image.height} pixels"
                image.thumbnail((self._side, self._side), Image.Resampling.BICUBIC, reducing_gap=2)
                url = data_url(image if draw is None else draw(image), "JPEG", quality=QUALITY)
            except Exception as error:  # a file that was moved or damaged since: the report is more than its images
                reason = error.reason if isinstance(error, BadImage) else one_line(error)
                yield "", f"image cannot be shown: {reason}"
                continue
            self._left -= len(url)
            yield url, about
