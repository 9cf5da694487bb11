"""Work shared out among processes: results in order, errors as they are, a process that dies as a clear word."""

import os
from typing import Any

import pytest

from eve_jax.errors import UserError
from eve_jax.process.pieces import Tick, run_processes


def setup() -> int:
    return 100


def work(piece: int, opened: int, tick: Tick) -> tuple[int, int]:
    """What is to be done; 13 is bad luck, and at 99 the process is gone."""
    tick()
    if piece == 13:
        raise UserError("thirteen")
    if piece == 99:
        os._exit(1)
    return piece, opened + piece


@pytest.mark.parametrize("processes", [1, 2])
def test_results_are_in_order(processes: int) -> None:
    pieces = [5, 3, 8, 1, 9, 2]
    found = run_processes(work, pieces, setup, processes, "counting", len(pieces), 0)
    assert found == [(piece, 100 + piece) for piece in pieces]
    assert run_processes(work, [], setup, processes, "counting", 0, 0) == []


@pytest.mark.parametrize(
    ("pieces", "processes", "message"),
    [
        ([1, 13, 2], 1, "thirteen"),
        ([1, 13, 2, 4], 2, "thirteen"),
        ([1, 99, 2, 4], 2, r"counting: a process died \(out of memory\?\); rerun the command"),
    ],
)
def test_errors_reach_the_caller(pieces: list[int], processes: int, message: str) -> None:
    arguments: Any = (work, pieces, setup, processes, "counting", len(pieces), 0)
    with pytest.raises(UserError, match=message):
        run_processes(*arguments)
