"""Images of requests: from a URL to pixels of the size that the model reads."""

import base64
import binascii
import io
import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from PIL import Image

from eve_jax.data.image.patches import shown
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.image_file import BadImage
from eve_jax.infer.image_cache import ImageCache, Patches
from eve_jax.process.hush import tiff_errors_begin
from eve_jax.serve.fetch import Fetcher
from eve_jax.serve.messages import ImageRef
from eve_jax.serve.problem import Problem
from eve_jax.serve.settings import ServeSettings

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
KNOWN = re.compile(r"data:([^,]*),", re.IGNORECASE)

# Is told the grid, rows and columns, of an image before it is resized, or kept already; may raise Problem.
Fits = Callable[[int, int], None]


class ImageReader:
    """Reads the images of requests within the limits of `settings`; its methods may run in several threads."""

    def __init__(self, settings: ServeSettings, fetcher: Fetcher | None = None):
        self.settings, self.fetcher = settings, fetcher or Fetcher(settings)
        self.cache = ImageCache(settings.image_cache)

    def read(self, ref: ImageRef, rule: ImageRule, fits: Fits) -> Patches:
        """The image at `ref` at the size of `rule`, in patches. Raises Problem."""
        return self.sized(self.content(ref), ref, rule, fits)

    def sized(self, data: bytes, ref: ImageRef, rule: ImageRule, fits: Fits) -> Patches:
        """`read` of an image whose file is there."""
        known = True

        def decode(raw: bytes) -> Image.Image:
            nonlocal known
            image, known = self.decoded(raw, ref.param), False
            fits(*rule.grid(*image.size))
            return image

        patches = self.cache.get(data, rule, decode)
        if known:
            fits(*patches.grid)
        return patches

    def content(self, ref: ImageRef) -> bytes:
        """The bytes of an image file: of a data URI, or fetched from a host that is allowed. Raises Problem."""
        if ref.url[:5].lower() == "data:":
            return data_uri(ref)
        return self.fetcher.fetch(ref)

    def decoded(self, data: bytes, param: str) -> Image.Image:
        """The RGB image of a file, whatever type it was called. Raises Problem, for too many pixels before it decodes
        them."""
        tiff_errors_begin()
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > self.settings.max_pixels:
                    raise self._too_large(param)
                return shown(image, "image")
        except Problem:
            raise
        except Image.DecompressionBombError:
            raise self._too_large(param) from None
        except BadImage as error:
            reason = error.reason.partition(" (")[0]
            raise Problem(f"{param}: the image {reason}", param) from None
        except Exception:  # Pillow's plug-ins raise whatever a broken file leads them to
            expected = ", ".join(FORMATS)
            raise Problem(
                f"{param}: the data is no image that can be read; expected one of {expected}", param
            ) from None

    def _too_large(self, param: str) -> Problem:
        return Problem(
            f"{param}: the image has more than the {self.settings.max_pixels:,} pixels that are taken", param
        )


def data_uri(ref: ImageRef) -> bytes:
    """The bytes of a data URI, whatever type it states. Raises Problem."""
    found = KNOWN.match(ref.url)
    if found is None:
        raise Problem(f"{ref.param}: expected data:image/png;base64,...", ref.param)
    payload = ref.url[found.end() :]
    options = [option.strip().lower() for option in found[1].split(";")]
    try:
        if "base64" not in options:
            return unquote_to_bytes(payload)
        return base64.b64decode(re.sub(r"[\s]+", "", payload), validate=True)
    except (binascii.Error, ValueError):
        raise Problem(f"{ref.param}: the data URI is not valid base64", ref.param) from None
