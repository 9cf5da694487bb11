"""Stop strings: where an answer ends by its text."""

from collections.abc import Sequence
from typing import Any

from eve_jax.errors import Argument
from eve_jax.process.checks import encodable, unexpected

MOST_STOPS = 4
LONGEST_STOP = 1024  # characters


def checked_stops(given: Any) -> tuple[str, ...]:
    """Return the stop strings of a text or of a list of texts. Raises UserError."""
    stops = (given,) if isinstance(given, str) else given
    right = isinstance(stops, list | tuple) and len(stops) <= MOST_STOPS
    if not right or not all(isinstance(stop, str) and 0 < len(stop) <= LONGEST_STOP for stop in stops):
        expected = f"a text or a list of at most {MOST_STOPS}, each of 1 to {LONGEST_STOP:,} characters"
        raise unexpected(Argument("stop"), given, expected)
    return tuple(encodable("stop", stop) for stop in stops)


def before_stop(text: str, stops: Sequence[str], last: bool = False) -> tuple[str, str | None]:
    """Return `text` up to the first of `stops`, and that one; None where there is none.

    Unless the text is the `last`, what may be the beginning of a stop string is held back.
    """
    places = [(at, stop) for stop in stops if (at := text.find(stop)) >= 0]
    if places:
        at, found = min(places, key=lambda place: (place[0], -len(place[1])))
        return text[:at], found
    held = 0 if last else max((_overlap(text, stop) for stop in stops), default=0)
    return text[: len(text) - held], None


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` that `stop` begins with."""
    most = min(len(text), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)
