"""Character error rates and marked words, against a plain dynamic program and by hand."""

import numpy as np
import pytest

from eve_jax.compare.text_errors import character_error_rate, edit_distance, marked_words


def plain_distance(one: str, other: str) -> int:
    """Wagner and Fischer's table, cell by cell."""
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    table[:, 0], table[0] = np.arange(len(one) + 1), np.arange(len(other) + 1)
    for i, a in enumerate(one, 1):
        for j, b in enumerate(other, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b))
    return int(table[-1, -1])


def test_edit_distance() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        one, other = ("".join(rng.choice(list("abç😀"), rng.integers(0, 12))) for _ in range(2))
        assert edit_distance(one, other) == plain_distance(one, other)


def test_the_papers_poster() -> None:
    """What it reads as "Welcome" is "Word"."""
    true, answer = "Welcome to the\nWord of the Day", "Welcome to  the Welcome of the Day"
    assert character_error_rate(true, true) == 0
    assert character_error_rate(answer, true) == edit_distance("Welcome", "Word") / 30
    assert character_error_rate("", true) == 1
    words = [(word.text, word.kind) for word in marked_words(answer, true)]
    assert words[3:5] == [("Welcome", "wrong"), ("Word", "missing")]
    assert {kind for text, kind in words if text not in ("Welcome", "Word")} == {"right"}
    with pytest.raises(ValueError, match="empty"):
        character_error_rate("x", " ")
