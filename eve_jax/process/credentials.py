"""Credentials of buckets: where TensorStore is told to look for them, and what its libraries say while they look.

They write lines to stderr for each place that has none, also where another one has them. Those are kept away; what they
come to is said where a bucket refuses.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PROFILE = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
PLACES = {
    "s3": "AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, the profile {} of ~/.aws, a role of the machine",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, gcloud auth application-default login, a service account of the machine",
}
# Lines of logs: of AWS's libraries, which name a topic in place of a file, and of TensorStore for both vendors.
_LINE = re.compile(rb"[EWI]\d{4} [\d:.]+ +\d+ (?:[A-Za-z-]+|aws_\w+\.cc|(?:google|gce)_auth\w*\.cc):\d+\] ")
_NONE = (b"failed to source credentials", b"Could not find the credentials file")
_END = b"\0the end of what is kept away\0"


def aws() -> dict[str, str]:
    """Return TensorStore's `aws_credentials`: those of the environment, else what AWS's tools find.

    TensorStore takes no profile, not even the one called default, unless it is named.
    """
    return (
        {"type": "environment"} if os.environ.get("AWS_ACCESS_KEY_ID") else {"type": "default", "profile": _profile()}
    )


def _profile() -> str:
    return next(filter(None, map(os.environ.get, PROFILE)), "default")


class Search:
    """What the first request to each store finds. Threads may call the methods."""

    def __init__(self) -> None:
        self._without: set[str] = set()
        self._asked: set[tuple[Any, ...]] = set()
        self._turn = threading.RLock()

    @contextmanager
    def first(self, *store: Any) -> Iterator[None]:
        """Keep away what the libraries say in the block, which asks `store`, (scheme, ...), if it is the first to."""
        if store in self._asked:
            yield
            return
        with self._turn:
            if store in self._asked:
                yield
                return
            said: list[bytes] = []
            try:
                with _kept_away(said):
                    yield
            finally:
                self._asked.add(store)
                if any(text in line for line in said for text in _NONE):
                    self._without.add(store[0])

    def lacking(self, scheme: str) -> str:
        """Return that there are no credentials for stores of the `scheme`; "" where there are, or none was asked."""
        if scheme not in self._without:
            return ""
        return f"no credentials were found ({PLACES[scheme].format(_profile())}), so it was asked without"


@contextmanager
def _kept_away(said: list[bytes]) -> Iterator[None]:
    """Let such lines go to `said` in place of stderr (file descriptor 2) in the block.

    All else passes at once, also what processes that are started in the block say later.
    """
    try:
        own = os.dup(2)
    except OSError:  # there is none
        yield
        return
    (reading, writing), ended = os.pipe(), threading.Event()
    threading.Thread(target=_pass_on, args=(reading, own, said, ended), name="stderr", daemon=True).start()
    os.dup2(writing, 2)
    try:
        yield
    finally:
        os.dup2(own, 2)
        os.write(writing, _END + b"\n")
        os.close(writing)
        ended.wait()


def _pass_on(reading: int, own: int, said: list[bytes], ended: threading.Event) -> None:
    """Write to `own` what comes from `reading`, but for lines that go to `said`, until nobody can write there."""
    rest = b""
    try:
        while piece := os.read(reading, 1 << 16):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.endswith(_END):
                    os.write(own, line.removesuffix(_END))
                    ended.set()
                elif _LINE.match(line):
                    said.append(line)
                else:
                    os.write(own, line + b"\n")
            if not rest.startswith((b"E", b"W", b"I")) and b"\0" not in rest:  # no line that may be kept away
                os.write(own, rest)
                rest = b""
        os.write(own, rest)
    finally:
        ended.set()
        os.close(reading)
        os.close(own)
