"""An expert behind HTTP: POST of the image as PNG; the answer is the list of that expert as JSON (docs/curation.md).

Connections that fail, timeouts and the statuses 408, 429 and 5xx are tried again, with Retry-After kept and pauses that
double to a minute, until `patience` is over; that is no fault of the image. Any other status is.
"""

import email.utils
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from eve_jax.curate.experts.form import Finding, read_list
from eve_jax.errors import Unreachable, UserError, shorten

KEY = "EVE_EXPERTS_KEY"  # environment variable: sent as a bearer token, never written anywhere
SHORTEST, LONGEST = 0.5, 60.0  # seconds between tries
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
    """Return the body of the answer to `data`, which is sent until it is answered. Raises UserError."""
    headers = {"Content-Type": "image/png", "Accept": "application/json"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    end, pause = time.monotonic() + patience, SHORTEST
    while True:
        wait = pause
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=timeout) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            said = f"status {error.code}: {shorten(error.read().decode(errors='replace'), 200)}"
            if error.code in OF_THE_IMAGE:
                raise ImageRefused(f"{about}: the image is refused: {said}") from error
            if error.code < 500 and error.code not in (408, 429):
                raise UserError(f"{about}: {said}; check the address and {KEY}") from error
            wait = max(_retry_after(error.headers.get("Retry-After")), pause)
        except (OSError, ValueError) as error:  # URLError, timeouts and lines cut off are OSErrors
            said = shorten(str(error) or type(error).__name__, 200)
        left = end - time.monotonic()
        if left <= 0:
            raise Unreachable(f"{about}: no answer for {patience:g} s ({said}); rerun the command when it answers")
        time.sleep(min(wait, left))
        pause = min(pause * 2, LONGEST)


def _retry_after(text: str | None) -> float:
    """Return the seconds that a header Retry-After asks for: a number of them, or a date; 0 for none."""
    if not text:
        return 0.0
    try:
        return min(max(float(text), 0.0), 3600.0)
    except ValueError:
        pass
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max((until - datetime.now(UTC)).total_seconds(), 0.0) if until.tzinfo else 0.0
