"""How many requests an endpoint may have in flight, learned from how it answers. Times are seconds of one clock.

    gate = Gate(start=4, most=64)
    if gate.room(now): gate.send()          # then, of each request, one of
    gate.answered() | gate.overloaded(now) | gate.unreachable(now) | gate.failed()

The limit grows by half with every round of answers until the endpoint is overloaded (429, 503, a timeout), which halves
it. From then on it returns within a round or two to just below where that happened, and probes beyond it by one request
now and then. While nobody listens a single request is sent now and then.
"""

from dataclasses import dataclass, field

GROWTH = 0.5  # of the limit, for each answer: a round of answers that come at once exceeds the places by half at most
PROBE_EVERY = 10  # rounds of answers at the limit between two attempts at one request more,
PROBE_ANSWERS = 50  # and answers, at least
FIRST_PROBE, LONGEST_PROBE = 1.0, 60.0  # seconds between two requests while nobody listens
BACK_OFF = 15.0  # the pause grows to 1/BACK_OFF of the time that nobody has listened
MIN_PAUSE, MAX_PAUSE = 0.2, 60.0  # seconds after an overload with one request in flight, without Retry-After
MAX_RETRY_AFTER = 600.0  # seconds; a longer one is asked for by mistake


@dataclass
class Gate:
    """The limit of one endpoint: `start` requests at first, never more than `most`.

    Attributes:
        limit: requests that may be in flight; not a whole number while it grows.
        ceiling: where the endpoint was last overloaded, None before.
        in_flight: requests that were sent and have not come back.
        sent, refused: requests so far, and those among them that the endpoint was too busy for.
        closed_until: no request is sent before.
        down_since: since when nobody listens, None while somebody does.
    """

    start: int
    most: int
    limit: float = field(init=False)
    ceiling: float | None = None
    in_flight: int = 0
    sent: int = 0
    refused: int = 0
    closed_until: float = 0.0
    down_since: float | None = None
    _cut_at: int = 0  # requests up to this number were sent before the last cut, and do not cut again
    _answers: int = 0  # since then
    _pause: float = MIN_PAUSE

    def __post_init__(self) -> None:
        self.limit = float(min(self.start, self.most))

    def room(self, now: float) -> int:
        """Return how many requests may be sent now."""
        if now < self.closed_until:
            return 0
        if self.down_since is not None:
            return int(self.in_flight == 0)
        return max(int(self.limit) - self.in_flight, 0)

    def send(self) -> int:
        """Count a request that is sent, and return its number."""
        self.in_flight += 1
        self.sent += 1
        return self.sent

    def answered(self) -> None:
        """Count an answer: the endpoint can take what it was sent."""
        self.in_flight -= 1
        self._answers += 1
        self.down_since, self._pause = None, MIN_PAUSE
        if self.ceiling is not None and self.limit >= self.ceiling + 1:  # it takes more than it did
            self.ceiling = None
        if self.ceiling is None or self.limit + 1 < self.ceiling:
            self.limit += GROWTH
            if self.ceiling is not None:
                self.limit = min(self.limit, self.ceiling - 1)
        else:
            self.limit += 1 / max(PROBE_EVERY * self.limit, PROBE_ANSWERS)
        self.limit = min(self.limit, float(self.most))

    def overloaded(self, number: int, now: float, retry_after: float | None = None) -> None:
        """Count request `number`, which the endpoint was too busy for or did not answer in time: halve the limit.

        Requests that were sent before the limit was last cut cut it no further. retry_after: seconds that the endpoint
        asked for.
        """
        self.in_flight -= 1
        self.refused += 1
        self.down_since = None
        if number > self._cut_at:
            self.ceiling = max(min(self.limit, float(self.in_flight + 1)), 1.0)
            self.limit = max(self.limit / 2, 1.0)
            self._cut_at, self._answers = self.sent, 0
        elif not self._answers and self.ceiling is not None:  # what is still in flight is what it has places for
            self.ceiling = max(min(self.ceiling, float(self.in_flight + 1)), 1.0)
        if retry_after is not None:
            self._close(now + min(max(retry_after, 0.0), MAX_RETRY_AFTER))
        elif self.in_flight == 0:  # nothing can be answered meanwhile that would show that there is room again
            self._close(now + self._pause)
            self._pause = min(2 * self._pause, MAX_PAUSE)

    def unreachable(self, now: float) -> None:
        """Count a request that found nobody listening: send one at a time, once a second, then less often."""
        self.in_flight -= 1
        if self.down_since is None:
            self.down_since = now
        pause = min(max(FIRST_PROBE, (now - self.down_since) / BACK_OFF), LONGEST_PROBE)
        self._close(now + pause)

    def failed(self) -> None:
        """Count a request that came back with an error that says nothing about how busy the endpoint is."""
        self.in_flight -= 1
        self.down_since = None

    def _close(self, until: float) -> None:
        self.closed_until = max(self.closed_until, until)
