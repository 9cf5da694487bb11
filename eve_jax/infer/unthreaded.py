"""Requests that are all known before, answered by a scheduler without a thread of its own."""

from collections.abc import Iterator, Sequence

from eve_jax.infer.requests import Finish, Listener, Request, Ticket, Token
from eve_jax.infer.scheduler import Scheduler


def run_all(scheduler: Scheduler, requests: Sequence[Request]) -> Iterator[tuple[int, list[int], Finish]]:
    """The number of each of `requests`, the ids of its answer and how it ended, as they end; works without a thread."""
    done: list[tuple[int, list[int], Finish]] = []

    def listener(number: int) -> Listener:
        ids: list[int] = []

        def listen(ticket: Ticket, tokens: list[Token], finish: Finish | None) -> None:
            ids.extend(token.id for token in tokens)
            if finish is not None:
                done.append((number, ids, finish))

        return listen

    sent = 0
    while sent < len(requests) or scheduler.busy:
        while sent < len(requests) and len(scheduler.rows.slots.free) > scheduler.stats().waiting:
            scheduler.submit(requests[sent], listener(sent))
            sent += 1
        scheduler.turn()
        yield from done
        done.clear()
