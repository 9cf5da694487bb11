"""POST over HTTP to endpoints that are busy or away now and then: experts, embeddings, judges."""

import email.utils
import http.client
import math
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from eve_jax.errors import Unreachable, shorten

SHORTEST, LONGEST = 0.5, 60.0  # seconds between two tries, without Retry-After
MOST_RETRY_AFTER = 3600.0  # seconds
BUSY = (408, 425, 429)  # statuses, besides 5xx, that are no fault of a request


class Refused(Exception):
    """The endpoint does not take this request; the message has its words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"status {status}: {words}")
        self.status = status


class NotAnswered(Exception):
    """The endpoint is busy or away. `retry_after`: seconds that it asked for, None for no word of it."""

    def __init__(self, words: str, retry_after: float | None = None) -> None:
        super().__init__(words)
        self.retry_after = retry_after


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A key must not go to an address that nobody named."""

    def redirect_request(self, *args: Any) -> None:
        return None


def retry_after(text: str | None) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date; None for none, or for what is neither."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def post_once(url: str, data: bytes, headers: Mapping[str, str], timeout: float) -> bytes:
    """Return the body of the answer to `data`, waiting `timeout` seconds; redirects are not followed.

    Raises NotAnswered for connections that fail and the statuses BUSY and 5xx, Refused for all others.
    """
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(urllib.request.Request(url, data, dict(headers)), timeout=timeout) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        words = _words(error)
        if error.code < 500 and error.code not in BUSY:
            raise Refused(error.code, words) from None
        raise NotAnswered(f"status {error.code}: {words}", retry_after(error.headers.get("Retry-After"))) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NotAnswered(shorten(str(error) or type(error).__name__, 200)) from None


def _words(error: urllib.error.HTTPError) -> str:
    try:
        return shorten(" ".join(error.read().decode(errors="replace").split()), 200)
    except (OSError, http.client.HTTPException):
        return "no message"


def post(about: str, url: str, data: bytes, headers: Mapping[str, str], timeout: float, patience: float) -> bytes:
    """Return the body of the answer to `data`, which is sent until it is answered, with pauses that double.

    about: names the endpoint in messages. timeout, patience: seconds of one try, and of all. Raises Refused, and
    Unreachable when patience is over.
    """
    end, pause = time.monotonic() + patience, SHORTEST
    while True:
        try:
            return post_once(url, data, headers, timeout)
        except NotAnswered as error:
            left = end - time.monotonic()
            if left <= 0:
                raise Unreachable(
                    f"{about}: no answer for {patience:g} s ({error}); rerun the command when it answers"
                ) from None
            time.sleep(min(max(min(error.retry_after or 0.0, MOST_RETRY_AFTER), pause), left))
            pause = min(pause * 2, LONGEST)
