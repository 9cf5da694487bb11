"""A request to the scheduler, and what comes back: tokens, then its end; `Ticket` is the request under way."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from eve_jax.errors import UserError
from eve_jax.infer.prompt import Prompt
from eve_jax.infer.sampling import GREEDY, Sampling
from eve_jax.process.checks import whole

MOST_LOGPROBS = 20  # alternatives of a token, as the OpenAI API has them
MOST_STOPS = 64  # stop ids of a request


class QueueFull(UserError):
    """As many requests wait as may: ask again later."""


@dataclass(frozen=True)
class Request:
    """A prompt to be answered.

    max_new_tokens: where the answer ends at the latest.
    stop_ids: an answer ends before one of them.
    min_tokens: none of them can be chosen before so many tokens.
    logprobs: -1 for none, else how many alternatives (0 to 20) come next to the chosen token's own log-probability,
        both of the model's distribution before any sampling setting.
    salt: prompts of different salts share nothing in the prefix cache.
    Raises UserError for a value out of range.
    """

    prompt: Prompt
    max_new_tokens: int
    sampling: Sampling = GREEDY
    stop_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    logprobs: int = -1
    salt: str = ""

    def __post_init__(self) -> None:
        whole("max_new_tokens", self.max_new_tokens, "a whole number of at least 1", 1)
        whole("min_tokens", self.min_tokens, f"a whole number of 0 to max_new_tokens={self.max_new_tokens}", 0)
        whole("logprobs", self.logprobs, f"-1 (none) or a whole number of 0 to {MOST_LOGPROBS}", -1, MOST_LOGPROBS)
        if self.min_tokens > self.max_new_tokens:
            raise UserError(f"min_tokens={self.min_tokens} is more than max_new_tokens={self.max_new_tokens}")
        if len(self.stop_ids) > MOST_STOPS:
            raise UserError(f"{len(self.stop_ids)} stop ids: at most {MOST_STOPS} are taken")
        if not len(self.prompt.ids):
            raise UserError("the prompt is empty")

    @property
    def most_tokens(self) -> int:
        """Tokens of the prompt and of the longest answer."""
        return len(self.prompt) + self.max_new_tokens


class Token(NamedTuple):
    """A token of an answer; its log-probability and the most probable alternatives (id, log-probability) if asked."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Finish(NamedTuple):
    """Why an answer ended: `stop_id` is the token that ended it (-1: none), `error` says why there is no more."""

    reason: Literal["stop", "length", "cancelled", "error"]
    error: str = ""
    stop_id: int = -1


class Ticket:
    """A request under way; safe for threads.

    cached_tokens: tokens of the prompt that came from the prefix cache; set before the first token. queued, started
    (its prefill began), first (its first token) and finished are `time.monotonic()`, None before.
    """

    def __init__(self, request: Request, listener: "Listener"):
        self.request, self.listener = request, listener
        self.cached_tokens = 0
        self.queued = time.monotonic()
        self.started: float | None = None
        self.first: float | None = None
        self.finished: float | None = None
        self._cancelled = threading.Event()
        self.wake: Callable[[], None] = lambda: None  # set by the scheduler: someone has to see the cancellation

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End the answer; the listener gets a Finish of "cancelled" unless the answer has ended already."""
        self._cancelled.set()
        self.wake()


Listener = Callable[[Ticket, list[Token], Finish | None], None]
