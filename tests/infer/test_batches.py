"""Asks in batches: each gets the answer that it gets alone, and what asks share is read once."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.errors import UserError
from eve_jax.infer import engine as engine_module
from eve_jax.infer.batches import Ask, Reply, answer_all
from eve_jax.infer.engine import Engine
from eve_jax.infer.pieces import Piece
from eve_jax.infer.programs import NONE
from eve_jax.infer.prompt import Prompt
from eve_jax.infer.sampling import Sampling
from eve_jax.infer.slot_rows import SlotRows
from tests import reference as ref
from tests.compiles import watched
from tests.infer.asked import LIMITS, asks

VISION = "layers.attn.v.vision.kernel"
ASKS = asks()


@pytest.fixture(scope="module")
def engine() -> Engine:
    cfg = ref.config()
    return Engine(cfg, ref.params(cfg))


@pytest.fixture(scope="module")
def alone(engine: Engine) -> dict[str, list[int]]:
    """Each answer, from a prefill of the whole prompt."""
    return {key: engine.generate([a.prompt], a.max_new_tokens, [])[0] for key, a in ASKS.items()}


def answers(engine: Engine, given: Sequence[Ask], stop_ids: Sequence[int] = (), rows: int = 16) -> dict[str, list[int]]:
    replies = list(answer_all(engine, given, stop_ids, rows))
    assert len(replies) == len(given)
    assert all(reply.seconds > 0 and not reply.error for reply in replies)
    return {reply.key: reply.ids for reply in replies}


def test_every_answer_ends_with_its_own_limit(alone):
    assert {key: len(ids) for key, ids in alone.items()} == LIMITS
    assert len({tuple(ids[:3]) for ids in alone.values()}) > 4


@pytest.mark.parametrize("rows", [pytest.param(1, marks=pytest.mark.slow), 3, 16])
def test_answers_are_those_alone_at_any_batch_size(engine, alone, rows):
    assert answers(engine, list(ASKS.values()), rows=rows) == alone


def test_neither_order_nor_company_changes_an_answer(engine, alone):
    backward = list(ASKS.values())[::-1]
    assert answers(engine, backward, rows=3) == alone
    for some in (["a2"], ["a1", "a2"], ["b1", "a2", "text"]):
        assert answers(engine, [ASKS[key] for key in some]) == {key: alone[key] for key in some}


def test_an_answer_ends_before_a_stop_token(engine, alone):
    stop = alone["a2"][4]
    cut = {key: ids[: ids.index(stop)] if stop in ids else ids for key, ids in alone.items()}
    assert 0 < len(cut["a2"]) < LIMITS["a2"]
    assert answers(engine, list(ASKS.values()), [stop]) == cut


def test_rows_of_a_reply_have_their_own_limits(engine, alone):
    session = engine.session(2)
    prompts = [ASKS["text"].prompt, ASKS["a1"].prompt]
    assert engine.replies(session, prompts, [1, 7], [alone["a1"][2]]) == ([alone["text"][:1], alone["a1"][:2]], [])
    assert session.pending == [[alone["text"][0]], []]
    run = engine_module.Reply(engine, engine.session(2), 7, [])
    tokens = np.asarray(run.decode(run.start(prompts), np.array([1, 4], np.int32))[0])
    assert tokens[0].tolist() == [alone["text"][1], *[NONE] * 15]
    assert tokens[1].tolist() == [*alone["a1"][1:5], *[NONE] * 12]


class Read(NamedTuple):
    """Pieces of prompts that a program read together, the patches among their tokens, and the program's rows."""

    pieces: list[Piece]
    patches: int
    width: int


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Read]:
    """What is read."""
    found: list[Read] = []
    original = SlotRows.read

    def watched(self, given, width=1):
        before = [slot.job.spelled.before[:, 0] for slot, _ in given]
        patches = sum(int(n[piece.stop] - n[piece.start]) for n, (_, piece) in zip(before, given, strict=True))
        found.append(Read([piece for _, piece in given], patches, width))
        original(self, given, width)

    monkeypatch.setattr(SlotRows, "read", watched)
    return found


def patches_of(given: Sequence[Ask]) -> int:
    return sum(h * w for ask in given for h, w in ask.prompt.grids)


def test_a_shared_image_is_read_once(engine, alone, read):
    about = [ASKS[key] for key in ("a1", "a2", "a3", "b1")]
    for rows in (2, 1, 16):
        read.clear()
        assert answers(engine, about, rows=rows) == {a.key: alone[a.key] for a in about}
        assert sum(one.patches for one in read) == patches_of([ASKS["a1"], ASKS["b1"]])
        assert max(len(one.pieces) for one in read) == min(rows, 2)
        assert {one.width for one in read} <= {1, min(rows, 4)}


def test_no_slot_is_taken_from_an_image_that_is_asked_about_later(engine, read):
    """Of two images with nine and three questions, in four slots."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (30, ASKS["a1"].prompt.patches[0].shape[1]), np.uint8) for _ in range(2)]
    given = [
        Ask(str(n), Prompt(np.array([7, ref.IMAGE_ID, 20, n + 30], np.int32), [images[n % 4 == 3]], [(5, 6)]), 4)
        for n in range(12)
    ]
    found = answers(engine, given, rows=2)
    assert sum(one.patches for one in read) == 60
    expected = engine.generate([ask.prompt for ask in given], 4, [])
    assert found == {ask.key: ids for ask, ids in zip(given, expected, strict=True)}


def test_other_pixels_or_words_before_the_image_are_another_prefix(engine, read):
    one = ASKS["a1"].prompt
    lit = Prompt(one.ids, [np.asarray(one.patches[0]) ^ 255], one.grids)
    led = Prompt(np.concatenate([[9], one.ids]).astype(np.int32), one.patches, one.grids)
    given = [Ask(str(n), prompt, 6) for n, prompt in enumerate((one, lit, led))]
    found = answers(engine, given)
    assert sum(one.patches for one in read) == patches_of(given)
    assert found == {a.key: engine.generate([a.prompt], 6, [])[0] for a in given}
    assert len({tuple(ids) for ids in found.values()}) == 3


def test_replies_come_as_they_are_done(engine, read):
    """Text first, then by the length of what is shared; what is left has not been read."""
    many = [ASKS[key]._replace(key=f"{key}.{n}", max_new_tokens=2) for n in range(3) for key in ("a1", "text")]
    replies = answer_all(engine, many, [], 2)
    first: list[Reply] = list(itertools.islice(replies, 3))
    assert [reply.key for reply in first] == ["text.0", "text.1", "text.2"]
    assert sum(len(one.pieces) for one in read) < len(many)
    assert [reply.key for reply in replies] == ["a1.0", "a1.1", "a1.2"]


def test_batches_of_like_size_share_their_programs(engine):
    """Of other texts, images and limits."""
    some = [ASKS[key] for key in ("a1", "a2", "b1")]
    answers(engine, some)
    with watched() as (programs, _):
        answers(engine, [a._replace(max_new_tokens=a.max_new_tokens + 1) for a in some])
        answers(engine, [some[2], some[0], some[0]._replace(key="again")])
    assert not programs


def test_each_ask_has_its_own_sampling(engine):
    prompt = ASKS["a2"].prompt
    hows = [Sampling(), Sampling(2.0, seed=1), Sampling(2.0, seed=2), Sampling(2.0, 0.9, seed=1)]
    given = [Ask(str(n), prompt, 8, how) for n, how in enumerate(hows)]
    found = answers(engine, given)
    assert found == {a.key: engine.generate([prompt], 8, [], a.sampling)[0] for a in given}
    assert len({tuple(ids) for ids in found.values()}) == 4


def spoilt(engine: Engine, name: str, index: int | slice = slice(None)) -> Engine:
    return Engine(engine.cfg, engine.params | {name: jnp.asarray(engine.params[name]).at[index].set(np.nan)})


def test_what_is_not_finite_is_an_error_of_its_own_ask(engine, alone):
    """Of every ask with an image, by vision weights; of one answer at its fourth token, which no other one has."""
    blind = {r.key: r for r in answer_all(spoilt(engine, VISION), list(ASKS.values()), [], 4)}
    for key, reply in blind.items():
        if key == "text":
            assert (reply.ids, reply.error) == (alone[key], "")
        else:
            assert reply.ids == []
            assert reply.error.startswith(f"no answer: the logits are not finite; {VISION} is NaN or infinite in ")
    others = [key for key in ASKS if key != "a2"]
    own = next(t for t in alone["a2"][:-1] if not any(t in alone[k] or t in ASKS[k].prompt.ids for k in others))
    late = {r.key: r for r in answer_all(spoilt(engine, "embed", own), list(ASKS.values()), [], 16)}
    assert "embed is NaN or infinite in 64 of its 20,480 weights" in late["a2"].error
    assert {key: late[key].ids for key in others} == {key: alone[key] for key in others}
    assert not any(late[key].error for key in others)


def test_a_row_that_breaks_after_its_limit_has_answered(engine, alone):
    own = alone["a2"][4]
    assert own not in [*alone["a2"][:4], *ASKS["a2"].prompt.ids]
    given = [ASKS["a2"]._replace(max_new_tokens=5), ASKS["a1"]]
    (short,) = [r for r in answer_all(spoilt(engine, "embed", own), given, []) if r.key == "a2"]
    assert (short.ids, short.error) == (alone["a2"][:5], "")


def test_padding_without_an_embedding_harms_no_one(engine, alone):
    """Rows of a program that reads which have nothing to read are padding alone."""
    without = [key for key, ask in ASKS.items() if 0 not in [*alone[key], *ask.prompt.ids]]
    assert len(without) > 1
    given = [ASKS[key]._replace(key=f"{key} {n}") for n in range(5) for key in without]
    assert answers(spoilt(engine, "embed", 0), given, rows=3) == {a.key: alone[a.key.split()[0]] for a in given}


def test_a_bias_of_a_token_that_the_model_lacks(engine):
    odd = Sampling(logit_bias=((engine.cfg.vocab_size, 1.0),))
    with pytest.raises(UserError, match="logit_bias"):
        next(answer_all(engine, [ASKS["text"]._replace(sampling=odd)], []))
