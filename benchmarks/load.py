"""A load on a server of this machine that speaks as the OpenAI API does: streams asked at a time or at random times.

Used by serve.py. Greedy answers of a fixed number of tokens; the time of every event that brings tokens is kept.
"""

import asyncio
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from eve_jax.errors import UserError

if TYPE_CHECKING:
    import httpx

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
TIMEOUT = 300.0  # seconds of an answer


class Ask(NamedTuple):
    """A request: where it goes, and its body without what every request of a load has."""

    path: str
    body: dict[str, Any]


@dataclass
class Answer:
    """When it was asked, and when tokens came and how many, by `time.perf_counter`; `error`: "" for none."""

    asked: float
    events: list[tuple[float, int]] = field(default_factory=list)
    prompt: int = 0
    cached: int = 0
    error: str = ""

    @property
    def tokens(self) -> int:
        """Tokens of the answer."""
        return sum(count for _, count in self.events)

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.events[0][0] - self.asked

    @property
    def waits(self) -> list[float]:
        """Seconds between two events."""
        times = [at for at, _ in self.events]
        return [after - before for before, after in pairwise(times)]

    @property
    def per_token(self) -> float | None:
        """Seconds of a token after those of the first event; None where there are none."""
        after = self.tokens - self.events[0][1]
        return (self.events[-1][0] - self.events[0][0]) / after if after else None


async def ask(client: "httpx.AsyncClient", one: Ask, new: int, answer: Answer) -> Answer:
    """Hear `answer`, of exactly `new` tokens, as it comes; with an error where it has others or none."""
    import httpx

    more = {"max_tokens": new, "temperature": 0, "ignore_eos": True, "stream": True, "return_token_ids": True}
    body = one.body | more | {"stream_options": {"include_usage": True}}
    try:
        async with client.stream("POST", one.path, json=body) as reply:
            if reply.status_code != 200:
                answer.error = f"{reply.status_code} {(await reply.aread())[:200].decode(errors='replace')}"
                return answer
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    _hear(answer, json.loads(line[len("data: ") :]))
    except httpx.HTTPError as error:
        answer.error = f"{type(error).__name__} {error}"
    if not answer.error and answer.tokens != new:
        answer.error = f"{answer.tokens} tokens, {new} were asked for"
    return answer


def _hear(answer: Answer, event: dict[str, Any]) -> None:
    if "error" in event:
        answer.error = str(event["error"])[:200]
    tokens = sum(len(choice.get("token_ids") or ()) for choice in event.get("choices", ()))
    if tokens:
        answer.events.append((time.perf_counter(), tokens))
    if usage := event.get("usage"):
        answer.prompt = usage["prompt_tokens"]
        answer.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0


def client_of(url: str) -> "httpx.AsyncClient":
    """A client without limits of its own, of a server of this machine. Raises UserError for one elsewhere."""
    import httpx

    if urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"):
        raise UserError(f"{url}: only servers of this machine are put under load")
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=limits, trust_env=False, verify=False)


async def closed(url: str, asks: Sequence[Ask], new: int, at_a_time: int) -> list[Answer]:
    """Closed loop: `at_a_time` clients, each of which asks again once it has its answer, until all `asks` are done."""
    left, answers = iter(asks), []

    async def one_client(client: "httpx.AsyncClient") -> None:
        for one in left:
            answers.append(await ask(client, one, new, Answer(time.perf_counter())))

    async with client_of(url) as client:
        await asyncio.gather(*[one_client(client) for _ in range(at_a_time)])
    return answers


async def opened(url: str, asks: Sequence[Ask], new: int, rate: float, seed: int = 0) -> list[Answer]:
    """Open loop: `rate` requests a second at random times (Poisson), however many are under way.

    The times follow from `seed`; an answer's time counts from when it should have been asked.
    """
    draw = random.Random(seed)
    start = time.perf_counter()
    due = start

    async def later(client: "httpx.AsyncClient", one: Ask, at: float) -> Answer:
        await asyncio.sleep(at - time.perf_counter())
        return await ask(client, one, new, Answer(at))

    async with client_of(url) as client:
        tasks = []
        for one in asks:
            tasks.append(later(client, one, due))
            due += draw.expovariate(rate)
        return await asyncio.gather(*tasks)


class HeldUp(NamedTuple):
    """Seconds between two events of the others' answers before a long prompt was asked, while it was read, and until
    its first token."""

    before: list[float]
    during: list[float]
    first: float


async def held_up(url: str, asks: Sequence[Ask], new: int, long: Ask) -> HeldUp:
    """Ask `asks` at a time and, once each has had a quarter of its tokens, `long`. Raises UserError when one fails."""
    async with client_of(url) as client:
        answers = [Answer(time.perf_counter()) for _ in asks]
        pairs = zip(asks, answers, strict=True)
        tasks = [asyncio.create_task(ask(client, one, new, answer)) for one, answer in pairs]
        while any(4 * answer.tokens < new and not answer.error for answer in answers):
            await asyncio.sleep(0.01)
        read = await ask(client, long, 1, Answer(time.perf_counter()))
        await asyncio.gather(*tasks)
    for answer in (*answers, read):
        if answer.error:
            raise UserError(f"a request was not answered: {answer.error}")
    begun = max(answer.events[0][0] for answer in answers)
    heard = [pair for answer in answers for pair in pairwise(answer.events)]
    before = [b - a for (a, _), (b, _) in heard if a >= begun and b <= read.asked]
    during = [b - a for (a, _), (b, _) in heard if b > read.asked and a < read.asked + read.first]
    return HeldUp(before, during, read.first)


class Figures(NamedTuple):
    """Seconds: to the first token (median, 99th of 100), of a further token (median over answers), between two events
    of an answer (99th of 100). Tokens of answers, of prompts, and requests a second; prompts' tokens from the cache."""

    first_p50: float
    first_p99: float
    token_p50: float
    wait_p99: float
    tokens: float
    prompt_tokens: float
    requests: float
    cached: int
    answers: int
    errors: int


def figures(answers: Sequence[Answer]) -> Figures:
    """Figures of `answers` from the first one's asking to the last one's end. Raises UserError when all failed."""
    good = [answer for answer in answers if not answer.error]
    if not good:
        raise UserError(f"no request was answered: {answers[0].error}")
    seconds = max(one.events[-1][0] for one in good) - min(one.asked for one in answers)
    firsts = [one.first for one in good]
    waits = [wait for one in good for wait in one.waits]
    per_token = [one.per_token for one in good if one.per_token is not None]
    return Figures(
        statistics.median(firsts),
        percentile(firsts, 99),
        statistics.median(per_token) if per_token else float("nan"),
        percentile(waits, 99),
        sum(one.tokens for one in good) / seconds,
        sum(one.prompt for one in good) / seconds,
        len(good) / seconds,
        sum(one.cached for one in good),
        len(good),
        len(answers) - len(good),
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest of `values` that so many percent of them do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else float("nan")
