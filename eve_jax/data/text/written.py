"""A conversation as a template writes it, with the spans that are learned and those that somebody has typed."""

from eve_jax.data.text.literal import Span


class Text:
    """A text with images: the spans of it to learn, and those in which special tokens are text, `quoted`.

    Spans are in characters, of which an image counts as one. special_text: nothing is quoted.
    """

    def __init__(self, special_text: bool) -> None:
        self.pieces = [""]
        self.spans: list[Span] = []
        self.quoted: list[Span] = []
        self._special_text = special_text
        self._length = 0

    def add(self, *pieces: str) -> int:
        """Append `pieces` with an image between each two; returns the length of all."""
        self.pieces[-1] += pieces[0]
        self.pieces += pieces[1:]
        self._length += sum(map(len, pieces)) + len(pieces) - 1
        return self._length

    def quote(self, *pieces: str) -> int:
        """`add` of what somebody has written, not the template."""
        start, end = self._length, self.add(*pieces)
        if start < end and not self._special_text:
            self.quoted.append((start, end))
        return end

    def learn(self, begin: str, words: str, end: str) -> None:
        """Append a target: `words` that somebody has written, between the template's `begin` and `end`."""
        start = self._length
        self.add(begin)
        self.quote(words)
        self.spans.append((start, self.add(end)))
