"""Turn after turn on a kept cache gives what a fresh prefill of the whole conversation gives."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.data.image.patches import patchify
from eve_jax.infer.cache import Session
from eve_jax.infer.engine import Engine
from eve_jax.infer.prompt import Prompt
from tests import reference as ref

END = 318
IMAGES = [patchify(ref.tensors("A_inputs")[f"image_uint8_{i}"]) for i in (0, 1)]
GRIDS = [*ref.GRIDS[0], *ref.GRIDS[1]]


@pytest.fixture(scope="module")
def engine() -> Engine:
    cfg = ref.config()
    return Engine(cfg, ref.params(cfg))


def prompt(ids: list[int], images: list[int]) -> Prompt:
    return Prompt(np.array(ids, np.int32), [IMAGES[i] for i in images], [GRIDS[i] for i in images])


def whole(turns: list[Prompt], answers: list[list[int]]) -> Prompt:
    """The conversation up to the next answer as one prompt."""
    parts: list[np.ndarray] = []
    for number, turn in enumerate(turns):
        parts += [turn.ids, *(np.array(answer, np.int32) for answer in answers[number : number + 1])]
    patches = [p for turn in turns for p in turn.patches]
    return Prompt(np.concatenate(parts).astype(np.int32), patches, [g for turn in turns for g in turn.grids])


FIRST = prompt([7, 8, 9, ref.IMAGE_ID, 20, 21, 22], [0])
SECOND = {
    "text": prompt([END, 30, 31, 32, 33], []),
    "new image": prompt([END, 30, ref.IMAGE_ID, 31], [1]),
    "two images": prompt([END, ref.IMAGE_ID, 40, ref.IMAGE_ID, 41, 42], [1, 0]),
}


@pytest.mark.parametrize("stopped", [True, False])
@pytest.mark.parametrize("kind", SECOND)
def test_second_turn_equals_a_fresh_prefill(engine, kind, stopped):
    """The first answer ended by a stop token, or by the limit: then its last token enters the cache with the turn."""
    session = engine.session()
    (free,) = engine.generate([FIRST], 8, [])
    stops = [free[5]] if stopped else []
    (answer,) = engine.reply(session, [FIRST], 8, stops)
    assert answer == (free[: free.index(free[5])] if stopped else free)
    assert int(session.length[0]) + len(session.pending[0]) == len(FIRST) + len(answer)
    assert session.pending == ([[]] if stopped else [[free[-1]]])
    conversation = whole([FIRST, SECOND[kind]], [answer])
    logits = engine.prefill(session, [SECOND[kind]], 8)
    assert session.length.tolist() == [len(conversation)]
    fresh = engine.session()
    np.testing.assert_allclose(logits, engine.prefill(fresh, [conversation], 8), atol=2e-5)
    for ours, theirs, axis in zip(session.cache, fresh.cache, (4, 3), strict=True):
        held = np.arange(len(conversation))
        np.testing.assert_allclose(jnp.take(ours, held, axis), jnp.take(theirs, held, axis), atol=2e-5)


def test_many_turns_outgrow_the_cache(engine):
    """Answers stay those of a fresh prefill while the cache is enlarged, in few sizes."""
    session = engine.session()
    turns, sizes = [FIRST], set()
    answers: list[list[int]] = []
    for number in range(5):
        (answer,) = engine.reply(session, turns[-1:], 8, [])
        if number == 4:
            assert answer == engine.generate([whole(turns, answers)], 8, [])[0]
        answers.append(answer)
        sizes.add(session.capacity)
        turns.append(SECOND["two images"])
    assert int(session.length[0]) + 1 == len(whole(turns[:-1], answers)) > 128
    assert sizes == {128, 256}


def test_rows_of_a_session_are_continued_together(engine):
    """Rows of different lengths, one stopped early."""
    first = [FIRST, prompt([100, 101, 102], [])]
    free = engine.generate(first, 8, [])
    stop = free[1][2]
    assert stop not in free[0] + free[1][:2]
    session = engine.session(2)
    answers = engine.reply(session, first, 8, [stop])
    assert answers == [free[0], free[1][:2]]
    assert session.pending == [[free[0][-1]], []]
    second = [SECOND["text"], SECOND["new image"]]
    got = engine.reply(session, second, 8, [])
    alone = [engine.generate([whole([f, s], [a])], 8, [])[0] for f, s, a in zip(first, second, answers, strict=True)]
    assert got == alone


@pytest.mark.parametrize("taken", [3, 8])
def test_stream_that_is_left_early_can_be_continued(engine, taken):
    session = engine.session()
    answer = list(itertools.islice(engine.stream(FIRST, 8, [], session=session), taken))
    assert answer == engine.generate([FIRST], 8, [])[0][:taken]
    assert int(session.length[0]) + len(session.pending[0]) == len(FIRST) + taken
    got = list(engine.stream(SECOND["text"], 8, [], session=session))
    assert got == engine.generate([whole([FIRST, SECOND["text"]], [answer])], 8, [])[0]


def test_sizes_of_the_cache():
    session = Session.empty(ref.config(), 1)
    sizes = []
    for tokens in (1, 100, 128, 129, 300, 513, 1100, 5000):
        session.reserve(tokens)
        sizes.append(session.capacity)
    assert sizes == [128, 128, 128, 256, 512, 1024, 2048, 5120]
    assert not session.cache[0].any()


def test_says_when_it_compiles(engine):
    fresh = Engine(engine.cfg, engine.params)
    said: list[int] = []
    fresh.on_compile = lambda: said.append(1)
    answer = fresh.generate([FIRST], 8, [])[0]
    assert len(said) == 2  # prefill and decode
    assert list(fresh.stream(FIRST, 8, [])) == answer
    assert fresh.generate([FIRST], 5, []) == [answer[:5]]
    assert len(said) == 2, "streams and other lengths share the programs"
