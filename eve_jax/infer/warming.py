"""Every program of a scheduler run once on empty slots, so that no request waits for a compilation."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from eve_jax.batch import RowShape
from eve_jax.infer import slot_programs as programs
from eve_jax.infer.engine import Engine
from eve_jax.infer.pace import Pace
from eve_jax.infer.pieces import blank
from eve_jax.infer.requests import MOST_STOPS
from eve_jax.infer.sampling import GREEDY, NO_TOKEN, rules
from eve_jax.infer.slot_programs import Choosing, State

ZERO = np.int32(0)
COPIES = 5  # programs that copy blocks, clear slots and note prompts


class Menu(NamedTuple):
    """Shapes of pieces with their work, numbers of slots decoded at a time, tokens of a block and of a request."""

    works: Mapping[RowShape, float]
    widths: Sequence[int]
    block: int
    context: int


def warm(
    engine: Engine,
    state: State,
    menu: Menu,
    pace: Pace,
    progress: Callable[[int, int], None],
) -> int:
    """Run every program on `state`, which is used up; pieces and blocks a second time, which `pace` measures.

    Returns how many programs there are.
    """

    def neutral(rows: int) -> Choosing:
        stops = np.full((rows, MOST_STOPS), NO_TOKEN, np.int32)
        return Choosing(rules([GREEDY] * rows), stops, np.zeros(rows, np.int32), np.bool_(False))

    def prefill(state: State, shape: RowShape) -> State:
        nothing = np.zeros(1, np.int32)
        where = nothing, nothing, np.ones(1, np.int32)
        args = (
            engine.params,
            state,
            blank(shape, engine.cfg.patch_bytes, engine.cfg.layout),
            where,
            np.bool_(True),
            neutral(1),
        )
        return programs.prefill(engine.cfg, engine.mesh, *args)[0]

    def decode(state: State, width: int) -> State:
        slots, nothing = np.arange(width, dtype=np.int32), np.zeros(width, np.int32)
        steps = np.full(width, menu.block, np.int32)
        args = engine.params, state, (slots, nothing, nothing, steps, nothing), neutral(width)
        return programs.decode(engine.cfg, engine.mesh, menu.block, *args)[0]

    def rows(state: State) -> State:
        state = programs.copy(engine.mesh, state, ZERO, ZERO, ZERO)
        block = programs.take(engine.mesh, state, ZERO, ZERO)
        state = programs.put(engine.mesh, state, block, ZERO, ZERO)
        state = programs.note_prompt(engine.mesh, state, ZERO, np.full(menu.context, NO_TOKEN, np.int32))
        return programs.clear(engine.mesh, state, ZERO)

    done, total = 0, len(menu.works) + len(menu.widths) + COPIES

    def run(step: Callable[[State], State], number: int, measured: AbstractContextManager | None = None) -> None:
        nonlocal state, done
        state = jax.block_until_ready(step(state))
        if measured is not None:
            with measured:
                state = jax.block_until_ready(step(state))
        done += number
        progress(done, total)

    for shape, work in menu.works.items():
        run(partial(prefill, shape=shape), 1, pace.piece(shape, work))
    for width in menu.widths:
        run(partial(decode, width=width), 1, pace.block(width))
    run(rows, COPIES)
    return total
