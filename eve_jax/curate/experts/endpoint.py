"""An expert behind HTTP: POST of the image as PNG; the answer is the list of that expert as JSON (docs/curation.md).

Connections that fail, timeouts and the statuses 408, 429 and 5xx are tried again, with Retry-After kept and pauses that
double to a minute, until `patience` is over; that is no fault of the image. Any other status is.
"""

import io
import json
import os
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from eve_jax.curate.experts.form import Finding, read_list
from eve_jax.errors import UserError
from eve_jax.process.posting import Refused, post

KEY = "EVE_EXPERTS_KEY"  # environment variable: sent as a bearer token, never written anywhere
OF_THE_IMAGE = (400, 413, 415, 422)  # statuses that are about this image


class ImageRefused(UserError):
    """The endpoint does not take this image; others may be taken."""


def ask_endpoint(
    expert: str, url: str, timeout: float, patience: float
) -> Callable[[UInt8[np.ndarray, "H W 3"]], list[Finding]]:
    """Return one of EXPERTS that asks the endpoint at `url`: an upright RGB image -> its list, in the order given.

    timeout, patience: seconds of one try, and of all tries of an image. The function raises ImageRefused with the
    server's words for an image that is refused, Unreachable when patience is over, and UserError for a wrong address, a
    key that is refused, or an answer that does not have the form of the list.
    """

    def look(image: UInt8[np.ndarray, "H W 3"]) -> list[Finding]:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG", compress_level=1)
        answer = _ask(f"experts.{expert}.url={url}", url, file.getvalue(), timeout, patience)
        try:
            found = json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise UserError(f"experts.{expert}.url={url}: the answer is not valid JSON: {error}") from error
        if isinstance(found, dict) and [*found] == [expert]:
            found = found[expert]
        return read_list(expert, found, f"experts.{expert}.url={url}")

    return look


def _ask(about: str, url: str, data: bytes, timeout: float, patience: float) -> bytes:
    """Return the body of the answer to `data`. Raises UserError."""
    headers = {"Content-Type": "image/png", "Accept": "application/json"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    try:
        return post(about, url, data, headers, timeout, patience)
    except Refused as error:
        if error.status in OF_THE_IMAGE:
            raise ImageRefused(f"{about}: the image is refused: {error}") from None
        raise UserError(f"{about}: {error}; check the address and {KEY}") from None
