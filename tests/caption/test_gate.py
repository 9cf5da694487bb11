"""The gate learns how many requests an endpoint takes, and waits for one that is away. No real time passes."""

import heapq
import itertools

import pytest

from eve_jax.caption.gate import LONGEST_PROBE, MAX_PAUSE, Gate


class Places:
    """An endpoint of some places, in simulated time: requests take `seconds` of one; without a place, 429 at once."""

    def __init__(self, gate: Gate, places: int, seconds: float = 0.5) -> None:
        self.gate, self.places, self.seconds = gate, places, seconds
        self.now = 0.0
        self.busy: list[float] = []
        self.answered = 0

    def run(self, count: int) -> float:
        """The seconds until `count` requests are answered."""
        began, target = self.now, self.answered + count
        while self.answered < target:
            while self.gate.room(self.now) and self.answered + len(self.busy) < target:
                number = self.gate.send()
                if len(self.busy) >= self.places:
                    self.gate.overloaded(number, self.now)
                else:
                    heapq.heappush(self.busy, self.now + self.seconds)
            if self.busy:
                self.now = heapq.heappop(self.busy)
                self.gate.answered()
                self.answered += 1
            else:
                self.now = self.gate.closed_until + 1e-6
        return self.now - began


@pytest.mark.parametrize("places", [1, 3, 16, 40])
def test_it_finds_the_places_of_an_endpoint(places: int) -> None:
    gate = Gate(start=4, most=64)
    server = Places(gate, places)
    count = 40 * places
    assert server.run(count) <= 1.3 * count * server.seconds / places
    assert gate.sent <= 1.05 * count + 5  # 429s included


def test_it_never_exceeds_the_most(places: int = 1000) -> None:
    gate = Gate(start=4, most=8)
    Places(gate, places).run(200)
    assert int(gate.limit) == 8


def test_it_notices_that_there_are_more_places_now() -> None:
    gate = Gate(start=4, most=64)
    server = Places(gate, 4)
    server.run(100)
    assert int(gate.limit) <= 5
    server.places = 64
    server.run(1500)
    assert int(gate.limit) >= 32


def test_requests_of_one_round_halve_the_limit_once() -> None:
    gate = Gate(start=16, most=64)
    numbers = [gate.send() for _ in range(16)]
    for number in numbers[:8]:
        gate.overloaded(number, 0.0)
    assert gate.limit == 8
    number = gate.send()
    gate.overloaded(number, 0.0)
    assert gate.limit == 4


def test_retry_after_is_kept() -> None:
    gate = Gate(start=4, most=8)
    gate.send()
    number = gate.send()
    gate.overloaded(number, 10.0, retry_after=7.0)
    assert gate.room(16.9) == 0
    assert gate.room(17.0) == 1


def test_an_endpoint_that_is_always_busy_is_asked_less_and_less_often() -> None:
    gate = Gate(start=4, most=8)
    now, times = 0.0, []
    for _ in range(20):
        times.append(now)
        gate.overloaded(gate.send(), now)
        assert gate.room(gate.closed_until - 0.01) == 0 and gate.room(gate.closed_until) >= 1
        now = gate.closed_until
    pauses = [round(b - a, 6) for a, b in itertools.pairwise(times)]
    assert pauses[0] < 0.5 and pauses == sorted(pauses) and pauses[-1] == pytest.approx(MAX_PAUSE)


def test_one_probe_a_second_while_nobody_listens_then_fewer() -> None:
    gate = Gate(start=16, most=64)
    now, times = 0.0, []
    while now < 7200:
        assert gate.room(now) >= 1
        number = gate.send()
        assert number and (gate.down_since is None or gate.room(now) == 0), "only one at a time"
        times.append(now)
        gate.unreachable(now)
        now = gate.closed_until
    assert times[1:15] == [float(second) for second in range(1, 15)]
    assert max(b - a for a, b in itertools.pairwise(times)) == pytest.approx(LONGEST_PROBE)
    gate.send()
    gate.answered()
    assert gate.room(now) >= 8  # back to where it was


def test_a_failure_changes_nothing_but_the_count() -> None:
    gate = Gate(start=4, most=8)
    gate.send()
    gate.failed()
    assert (gate.limit, gate.in_flight) == (4, 0)
