"""A request on its way through the scheduler, with what was worked out of it when it came."""

import sys
import time
import traceback

import numpy as np

from eve_jax.data.text.encode import IMAGE_ID
from eve_jax.errors import UserError, amount
from eve_jax.infer.pieces import Spelled
from eve_jax.infer.prefix import Items
from eve_jax.infer.requests import Finish, Request, Ticket, Token


class Job:
    """A ticket, its prompt spelt out, the items of the prompt, and the tokens of the answer so far."""

    def __init__(self, ticket: Ticket, spelled: Spelled, items: Items):
        self.ticket, self.spelled, self.items = ticket, spelled, items
        self.produced = 0

    @property
    def request(self) -> Request:
        """What was asked."""
        return self.ticket.request

    @property
    def left(self) -> int:
        """Tokens that the answer may still have."""
        return self.request.max_new_tokens - self.produced

    def give(self, tokens: list[Token], finish: Finish | None = None) -> None:
        """Hand tokens, or the end, to the listener; a listener that raises has its answer cancelled."""
        now = time.monotonic()
        if tokens and self.ticket.first is None:
            self.ticket.first = now
        if finish is not None:
            self.ticket.finished = now
        self.produced += len(tokens)
        try:
            self.ticket.listener(self.ticket, tokens, finish)
        except Exception:
            print("warning: the listener of a request raised, its answer is cancelled:", file=sys.stderr)
            traceback.print_exc()
            self.ticket.cancel()


def check_prompt(request: Request, vocabulary: int) -> None:
    """Raises UserError for a request whose ids or images no engine takes."""
    prompt = request.prompt
    images = int((prompt.ids == IMAGE_ID).sum())
    if not images == len(prompt.patches) == len(prompt.grids):
        given = f"patches of {len(prompt.patches)}, {amount(len(prompt.grids), 'grid')}"
        raise UserError(f"the prompt has {amount(images, 'place')} for images, {given}")
    ids = prompt.ids[prompt.ids != IMAGE_ID]
    wrong = ids[(ids < 0) | (ids >= vocabulary)]
    if len(wrong):
        raise UserError(f"the prompt has token {int(wrong[0])}, the model has {vocabulary}")
    stops = np.asarray(request.stop_ids, np.int64)
    if ((stops < 0) | (stops >= vocabulary)).any():
        raise UserError(f"stop ids {stops.tolist()}: the model has tokens 0 to {vocabulary - 1}")
    request.sampling.check_vocabulary(vocabulary)
