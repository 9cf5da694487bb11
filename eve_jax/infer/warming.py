"""Every program of a scheduler run once on empty slots, so that no request waits for a compilation."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from eve_jax.batch import RowShape, batch_arrays, zeros
from eve_jax.data.rows.build import lay_out_tokens
from eve_jax.infer import slot_programs as programs
from eve_jax.infer.engine import Engine
from eve_jax.infer.requests import MOST_STOPS
from eve_jax.infer.sampling import GREEDY, NO_TOKEN, rules
from eve_jax.infer.slot_programs import Choosing, Sizes, State
from eve_jax.model.eve import Batch

ZERO = np.int32(0)


class Menu(NamedTuple):
    """Shapes of pieces, capacities of rows in general and in decoding, tokens of a block and of a request."""

    shapes: Sequence[RowShape]
    capacities: Sequence[int]
    decoded: Sequence[int]
    block: int
    context: int


def warm(
    engine: Engine,
    state: State,
    menu: Menu,
    progress: Callable[[int, int], None],
) -> tuple[State, int]:
    """Run every program on `state`, whose slots are empty; returns it, empty again, and how many programs there are."""
    count = len(state.seen)

    def neutral(rows: int) -> Choosing:
        stops = np.full((rows, MOST_STOPS), NO_TOKEN, np.int32)
        return Choosing(rules([GREEDY] * rows), stops, np.zeros(rows, np.int32))

    def prefill(state: State, shape: RowShape, capacity: int) -> State:
        args = engine.params, state, _blank(shape, engine.cfg.patch_bytes), (ZERO, ZERO, np.int32(1)), neutral(1)
        return programs.prefill(engine.cfg, engine.mesh, capacity, *args)[0]

    def decode(state: State, sizes: Sizes) -> State:
        nothing = np.zeros(count, np.int32)
        args = engine.params, state, (nothing, nothing, nothing), neutral(count)
        return programs.decode(engine.cfg, engine.mesh, sizes, *args)[0]

    def rows(state: State, capacity: int) -> State:
        state = programs.copy(engine.mesh, capacity, state, ZERO, ZERO)
        row = programs.take(engine.mesh, capacity, state, ZERO)
        return programs.put(engine.mesh, state, row, ZERO)

    def rest(state: State) -> State:
        state = programs.note_prompt(engine.mesh, state, ZERO, np.full(menu.context, NO_TOKEN, np.int32))
        return programs.clear(engine.mesh, state, ZERO)

    steps: list[tuple[int, Callable[[State], State]]] = []
    for capacity in menu.capacities:
        for shape in menu.shapes:
            if shape.length <= capacity:
                steps.append((1, partial(prefill, shape=shape, capacity=capacity)))
        steps.append((3, partial(rows, capacity=capacity)))
    for capacity in menu.decoded:
        for wants in (False, True):
            steps.append((1, partial(decode, sizes=Sizes(capacity, menu.block, wants))))
    steps.append((2, rest))
    done, total = 0, sum(number for number, _ in steps)
    for number, step in steps:
        state = jax.block_until_ready(step(state))
        done += number
        progress(done, total)
    return state, total


def _blank(shape: RowShape, patch_bytes: int) -> Batch:
    batch = zeros(batch_arrays(1, shape, patch_bytes))
    for name, values in lay_out_tokens([], [], shape).items():
        batch[name][0] = values
    return batch
