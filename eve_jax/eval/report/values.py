"""Values as reports show them: finite numbers, shortened texts, numbers and times in words."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from eve_jax.errors import clip

MOST_ANSWER = 200  # characters
NONE = "–"


def finite(value: Any) -> Any:
    """Return a value of JSON: null for numbers that JSON does not have, a text for a value of another type."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if isinstance(value, bool | int | str | None) else str(value)


def brief(value: Any, most: int = MOST_ANSWER) -> str | None:
    """Return what was read from an answer, or expected, as a text of about `most` characters; None for nothing.

    Equal items of a list, as annotators' answers, are counted: "yes ×7, no ×3".
    """
    if value is None:
        return None
    if isinstance(value, list | tuple):
        counts = Counter(_text(item.get("answer", item) if isinstance(item, Mapping) else item) for item in value)
        value = ", ".join(text if times == 1 else f"{text} ×{times}" for text, times in counts.items())
    return clip(_text(value), most)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(finite(value), ensure_ascii=False)


def number(value: float | None, digits: int = 1) -> str:
    """Return a number with its thousands separated, without digits after the point if it is a whole one."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if isinstance(value, int) else f"{value:,.{digits}f}"


def interval(ends: Sequence[float] | None, digits: int = 1) -> str:
    """Return an interval as "LOW to HIGH"."""
    return NONE if ends is None else f"{number(ends[0], digits)} to {number(ends[1], digits)}"


def share(part: int, whole: int) -> str:
    """Return "PART (x%)", or "0"."""
    return f"{part:,} ({part / whole:.1%})" if part and whole else f"{part:,}"


def duration(seconds: float) -> str:
    """Return a time as "12.3 s", "4:05 min" or "2:03:04 h"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Return the numbers, texts and truths in nested objects as (NAME.NAME, text), without those that hold nothing."""
    if isinstance(value, Mapping):
        return [line for key, item in value.items() for line in flat(item, f"{name}.{key}" if name else str(key))]
    if value is None or value == []:
        return []
    return [(name, f"{value:,.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else brief(value) or "")]
