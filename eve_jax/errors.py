"""The exceptions that users are meant to see."""


class UserError(Exception):
    """Bad input: the message alone says what is wrong, where, and what to do.

    Launchers print it as a single `error:` line and exit with status 1; everything else is a defect of ours and
    keeps its traceback.
    """


class Hanging(UserError):
    """A thread of ours hangs, for which the process would wait for ever at its end: launchers leave without it."""


def shorten(text: str, most: int = 300) -> str:
    """Return `text`, or its first and last characters around a note of how many are left out; about `most` in all."""
    if len(text) <= most:
        return text
    tail = most // 4
    return f"{text[: most - tail]} ...({len(text) - most:,} characters)... {text[-tail:]}"
