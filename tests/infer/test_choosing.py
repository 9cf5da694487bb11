"""What a row's own settings do to its next token: penalties, biases, top-k, min-p, bans; log-probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.errors import UserError
from eve_jax.infer.choosing import IN_PROMPT, choose, counted, in_prompts, logprobs
from eve_jax.infer.engine import Engine
from eve_jax.infer.requests import Request
from eve_jax.infer.sampling import GREEDY, Sampling, rules
from eve_jax.infer.scheduler import Scheduler, SchedulerSettings
from eve_jax.infer.settings import check_settings
from tests import reference as ref
from tests.infer.mixed import Heard, alone, prompt
from tests.infer.test_generate import prompts

PROBABILITIES = np.array([0.02, 0.5, 0.08, 0.3, 0.1], np.float32)
LOGITS = np.log(PROBABILITIES)
DRAWS = 4000


@pytest.fixture(scope="module")
def engine() -> Engine:
    cfg = ref.config()
    return Engine(cfg, ref.params(cfg))


draw = jax.jit(lambda how: choose(jnp.broadcast_to(LOGITS, (DRAWS, 5)), jnp.arange(DRAWS), how))


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(1.0, top_k=2), [1, 3]),
        (Sampling(1.0, top_k=9), [0, 1, 2, 3, 4]),
        (Sampling(1.0, min_p=0.19), [1, 3, 4]),  # at least 0.095
        (Sampling(1.0, min_p=1.0), [1]),
        (Sampling(2.0, min_p=0.3), [1, 2, 3, 4]),  # of the distribution at the temperature
        (Sampling(1.0, 0.7, top_k=2), [1, 3]),  # 0.625 of what top_k keeps is not enough
        (Sampling(1.0, 0.6, top_k=2), [1]),
        (Sampling(1.0, 0.6), [1, 3]),
    ],
)
def test_what_is_drawn_from(sampling, kept):
    expected = np.zeros(5)
    expected[kept] = PROBABILITIES[kept] ** (1 / sampling.temperature)
    shares = np.bincount(np.asarray(draw(sampling.arrays())), minlength=5) / DRAWS
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.03)
    assert set(np.flatnonzero(shares)) == set(kept)


@pytest.mark.parametrize(
    ("sampling", "token"),
    [
        (GREEDY, 1),
        (Sampling(logit_bias=((1, -100.0), (4, 1.2))), 4),  # 0.1 e^1.2 = 0.33
        (Sampling(logit_bias=((0, 100.0),)), 0),
        (Sampling(presence_penalty=0.6), 3),  # 0.5 e^-0.6 = 0.27 < 0.3
        (Sampling(presence_penalty=0.5), 1),
        (Sampling(frequency_penalty=0.2), 3),  # twice in the answer: 0.5 e^-0.4 = 0.34, three times: 0.27
        (Sampling(repetition_penalty=4.0), 4),  # 0.5^4 and, in the prompt, 0.3^4
    ],
)
def test_what_is_greedy(sampling, token):
    seen = np.zeros((1, 5), np.int32)
    seen[0, 1], seen[0, 3] = 3, IN_PROMPT
    found = choose(jnp.asarray(LOGITS[None]), jnp.zeros(1, jnp.int32), rules([sampling]), jnp.asarray(seen))
    assert found.tolist() == [token]


def test_rows_choose_by_their_own_settings():
    """As each alone, whatever is next to them."""
    how = [
        GREEDY,
        Sampling(1.0, seed=5),
        Sampling(1.0, 0.9, 5),
        Sampling(3.0, seed=6, top_k=3),
        Sampling(logit_bias=((2, 9.0),)),
    ]
    logits = jax.random.normal(jax.random.key(0), (len(how), 50)) * 3
    places = jnp.arange(len(how)) + 7
    seen = jnp.zeros((len(how), 50), jnp.int32)
    together = choose(logits, places, rules(how), seen)
    each = [choose(logits[n : n + 1], places[n : n + 1], one.arrays())[0] for n, one in enumerate(how)]
    assert together.tolist() == [int(token) for token in each]


def test_positive_logits_are_divided_and_negative_ones_multiplied():
    logits = jnp.array([[1.0, 0.9, -1.0]])
    how = rules([Sampling(repetition_penalty=2.0)])
    seen = jnp.array([[1, 0, 1]]) * IN_PROMPT
    assert choose(logits, jnp.zeros(1, jnp.int32), how, seen).tolist() == [1]
    assert choose(-logits, jnp.zeros(1, jnp.int32), how, seen).tolist() == [2]  # 0.5 over -2


def test_banned_tokens_and_counts():
    banned = jnp.array([[1, -1], [-1, -1]])
    logits = jnp.broadcast_to(LOGITS, (2, 5))
    assert choose(logits, jnp.zeros(2, jnp.int32), rules([GREEDY] * 2), None, banned).tolist() == [3, 1]
    seen = counted(jnp.asarray(in_prompts([[4, 4], []], 5)), jnp.array([4, -2]), jnp.array([True, True]))
    assert seen.tolist() == [[0, 0, 0, 0, IN_PROMPT + 1], [0] * 5]
    assert not (counted(seen, jnp.array([1, 1]), jnp.array([False, False])) - seen).any()


def test_logprobs_are_of_the_model():
    found = logprobs(jnp.asarray(LOGITS[None] + 3), jnp.array([2]), 3)
    np.testing.assert_allclose(found.chosen, np.log([0.08]), atol=1e-6)
    assert found.top_ids.tolist() == [[1, 3, 4]]
    np.testing.assert_allclose(found.top, np.log([[0.5, 0.3, 0.1]]), atol=1e-6)


WRONG = [
    ({"top_k": -1, "temperature": 1}, "top_k=-1: expected 0"),
    ({"top_k": 3}, "top_k=3 needs a temperature above 0"),
    ({"min_p": 1.5, "temperature": 1}, "min_p=1.5: expected a number of 0 to 1"),
    ({"min_p": 0.1}, "min_p=0.1 needs a temperature above 0"),
    ({"presence_penalty": 2.5}, "presence_penalty=2.5: expected a number of -2 to 2"),
    ({"frequency_penalty": "1"}, "frequency_penalty='1': expected"),
    ({"repetition_penalty": 0}, "repetition_penalty=0: expected a number of 0.01 to 100"),
    ({"logit_bias": {-1: 1}}, "logit_bias=-1: expected .*; this is no token id"),
    ({"logit_bias": {"1": 1}}, "logit_bias='1': expected .*; this is no token id"),
    ({"logit_bias": {1: 101}}, "logit_bias=101: expected .*; this is no such number"),
    ({"logit_bias": [(1, 1), (1, 2)]}, "logit_bias: token 1 is given twice"),
    ({"logit_bias": [1]}, r"logit_bias=\[1\]: expected at most 300 pairs"),
    ({"logit_bias": dict.fromkeys(range(301), 1)}, "logit_bias={.*: expected at most 300 pairs"),
]


@pytest.mark.parametrize(("settings", "says"), WRONG)
def test_settings_that_make_no_sense(settings, says):
    with pytest.raises(UserError, match=says):
        check_settings(**settings)


def test_settings_of_an_answer():
    run = check_settings(temperature=1, top_k=3, min_p=0.1, logit_bias={9: 1, 4: -2})
    assert run.sampling == Sampling(1.0, top_k=3, min_p=0.1, logit_bias=((4, -2.0), (9, 1.0)))
    assert hash(run.sampling) == hash(
        check_settings(temperature=1, top_k=3, min_p=0.1, logit_bias=[(9, 1), (4, -2)]).sampling
    )


def test_the_engine_penalizes_what_rows_said(engine):
    """Alone, in a batch, as a stream and in a second turn: a reference without a cache, by hand."""
    how = Sampling(presence_penalty=0.7, frequency_penalty=0.3, repetition_penalty=1.3)
    asked = prompts()["text"]
    ids = asked.ids.tolist()
    answer: list[int] = []
    for _ in range(6):
        logits = np.array(engine.prefill(engine.session(), [prompt([*ids, *answer])])[0])
        for token in {*ids, *answer}:
            logits[token] = logits[token] / 1.3 if logits[token] > 0 else logits[token] * 1.3
        for token in set(answer):
            logits[token] -= 0.7 + 0.3 * answer.count(token)
        answer.append(int(logits.argmax()))
    assert engine.generate([asked], 6, [], how) == [answer]
    assert engine.generate([prompts()["shorter"], asked], 6, [], how)[1] == answer
    assert list(engine.stream(asked, 6, [], how)) == answer
    session, more = engine.session(), prompt([30, 31])
    first = engine.reply(session, [asked], 4, [], how)[0]
    whole = prompt([*ids, *first, 30, 31])
    assert engine.reply(session, [more], 5, [], how) == engine.generate([whole], 5, [], how)
    with pytest.raises(UserError, match="logit_bias: token 320 is not one of the model's 320"):
        engine.generate([asked], 2, [], Sampling(logit_bias=((320, 1.0),)))


def test_requests_for_a_least_length_and_log_probabilities(engine):
    """No stop before min_tokens, also not the first token; alternatives next to each token."""
    scheduler = Scheduler(engine, SchedulerSettings(slots=2, context=64, chunk=16, block=4))
    heard, asked = Heard(), prompt([5, 6, 7])
    free = alone(engine, Request(asked, 12))
    stops = free[0], free[2]
    banned = alone(engine, Request(asked, 5, Sampling(logit_bias=tuple((stop, -100.0) for stop in stops))))
    scheduler.submit(Request(asked, 12, GREEDY, stops, min_tokens=5, logprobs=2), heard.listener(0))
    scheduler.submit(Request(asked, 12), heard.listener(1))
    while scheduler.busy:
        scheduler.turn()
    assert heard.ids(0)[:5] == banned
    whole = prompt([*asked.ids, *heard.ids(0)[:5]])
    assert heard.ids(0)[5:] == alone(engine, Request(whole, 7, GREEDY, stops))
    assert heard.ids(1) == free and all(token.logprob is None for token in heard.tokens[1])
    for n, token in enumerate(heard.tokens[0]):
        logits = engine.prefill(engine.session(), [prompt([*asked.ids, *heard.ids(0)[:n]])])[0]
        expected = jax.nn.log_softmax(logits)
        assert token.logprob is not None and abs(token.logprob - expected[token.id]) < 1e-5
        assert [id for id, _ in token.top] == np.argsort(-np.asarray(logits), kind="stable")[:2].tolist()
