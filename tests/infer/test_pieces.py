"""Prompts cut into pieces anywhere give the logits of a whole prefill."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from eve_jax.batch import RowShape
from eve_jax.errors import UserError
from eve_jax.infer.engine import Engine
from eve_jax.infer.pieces import Piece, Spelled, shapes
from eve_jax.infer.requests import Request
from eve_jax.infer.scheduler import Scheduler, SchedulerSettings
from tests import reference as ref
from tests.infer.mixed import Heard, picture, prompt, words

RNG = np.random.default_rng(3)
ASKED = prompt([*words(RNG, 20), ref.IMAGE_ID, 5, ref.IMAGE_ID], picture(RNG, 5, 6), picture(RNG, 3, 1))


def pieces(spelled: Spelled) -> list[Piece]:
    found: list[Piece] = []
    while not found or found[-1].stop < len(spelled):
        found.append(spelled.piece(found[-1].stop if found else 0))
    return found


def test_shapes_of_pieces():
    assert shapes(256) == (
        *(RowShape(0, 0, text) for text in (32, 64, 128, 256)),
        *(RowShape(patches, 16, 32) for patches in (64, 128, 256)),
    )
    assert [shape.patches for shape in shapes(64, True, 300)] == [0, 0, 0, 16, 32, 64, 128, 256, 512]
    assert shapes(16) == (RowShape(0, 0, 16), RowShape(16, 16, 16))


@pytest.mark.parametrize("chunk", [16, 32, 256])
def test_pieces_take_every_token_once(chunk):
    spelled = Spelled(ASKED, shapes(chunk))
    found = pieces(spelled)
    assert [piece.start for piece in found[1:]] == [piece.stop for piece in found[:-1]]
    assert (found[0].start, found[-1].stop) == (0, len(ASKED))
    for piece in found:
        batch = spelled.batch(piece, ASKED.patches[0].shape[1])
        assert (batch["segment"] > 0).sum() == piece.stop - piece.start
    every = np.concatenate([spelled.batch(p, 3072)["patches"][0] for p in found if p.shape.patches])
    np.testing.assert_array_equal(every[every.any(axis=1)], np.concatenate(ASKED.patches))


@pytest.mark.parametrize("chunk", [16, 64])
def test_chunks_give_the_logits_of_a_whole_prefill(chunk):
    """The log-probabilities after the prompt, to 1e-5; the image is cut between and within its rows."""
    cfg = ref.config()
    engine, heard = Engine(cfg, ref.params(cfg)), Heard()
    scheduler = Scheduler(engine, SchedulerSettings(slots=1, context=80, chunk=chunk, block=1))
    scheduler.submit(Request(ASKED, 1, logprobs=20), heard.listener(0))
    while scheduler.busy:
        scheduler.turn()
    expected = jax.nn.log_softmax(engine.prefill(engine.session(), [ASKED])[0])
    (token,) = heard.tokens[0]
    assert token.id == int(expected.argmax()) == token.top[0][0] and len(token.top) == 20
    assert token.logprob == token.top[0][1]
    ids, found = zip(*token.top, strict=True)
    np.testing.assert_allclose(found, expected[np.array(ids)], atol=1e-5)


def test_a_piece_of_few_shapes():
    """An empty one where none of them takes the next token."""
    spelled = Spelled(ASKED, shapes(256))
    assert spelled.piece(0, [RowShape(0, 0, 32)]) == Piece(0, 20, RowShape(0, 0, 32))
    assert spelled.piece(20, [RowShape(0, 0, 32)]).stop == spelled.piece(20, []).stop == 20


def test_an_image_that_stays_whole():
    """EVEv1's class token sees all windows of its image: pieces end before or after one."""
    spelled = Spelled(ASKED, shapes(16, True, 100), whole_images=True)
    assert [piece.stop for piece in pieces(spelled)] == [16, 57, 64]  # the images are tokens 20 to 55 and 57 to 63
    assert {piece.stop for piece in pieces(Spelled(ASKED, shapes(16)))} & set(range(21, 56))
    wide = replace(ASKED, grids=[(30, 1), (3, 1)])
    with pytest.raises(UserError, match="an image of 30 x 1 patches is too large"):
        Spelled(wide, shapes(16, True, 100), whole_images=True)
