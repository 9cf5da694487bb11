"""Weights and logits that are not finite are told, never answered from: alone, in a batch, as a stream, in a chat."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eve_jax import EVE
from eve_jax.errors import UserError
from eve_jax.infer.engine import Engine
from eve_jax.infer.finite import NotFinite
from eve_jax.infer.sampling import GREEDY, Sampling, choose
from eve_jax.model.eve import Params
from tests import reference as ref
from tests.convert import folders
from tests.data.synthetic import write_records
from tests.infer.test_generate import NEW, prompts

TEXT, IMAGE = prompts()["text"], prompts()["image"]
VISION = "layers.attn.v.vision.kernel"
PICTURE = Image.fromarray(ref.tensors("A_inputs")["image_uint8_0"])


@pytest.fixture(scope="module")
def engine() -> Engine:
    cfg = ref.config()
    return Engine(cfg, ref.params(cfg))


@pytest.fixture(scope="module")
def eve(tmp_path_factory: pytest.TempPathFactory) -> EVE:
    return EVE.from_pretrained(folders.write_hf(tmp_path_factory.mktemp("eve") / "hf", *folders.golden()), "shrink")


def with_value(params: Params, name: str, value: float, index: tuple | int = -1) -> Params:
    """The parameters with one value of `name` exchanged."""
    return params | {name: jnp.asarray(params[name]).at[index].set(value)}


def spoilt(engine: Engine, name: str, value: float = np.nan, index: tuple | int = -1) -> Engine:
    return Engine(engine.cfg, with_value(engine.params, name, value, index))


def late(engine: Engine) -> tuple[Engine, list[int]]:
    """An engine whose logits are NaN once the fourth token of the answer to TEXT is read, and the four."""
    (good,) = engine.generate([TEXT], NEW, [])
    assert good[3] not in [*good[:3], *TEXT.ids]
    return spoilt(engine, "embed", np.nan, good[3]), good[:4]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm.scale", np.nan),
        ("head", np.inf),
        ("layers.mlp.text.down.kernel", -np.inf),
        ("layers.attn.k.text.bias", np.nan),
    ],
)
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.7, 0.9)])
def test_weights_that_are_not_finite_are_named(engine, name, value, sampling):
    broken = spoilt(engine, name, value)
    with pytest.raises(NotFinite, match=rf"logits are not finite; .* weights of {name} are NaN or infinite") as error:
        broken.generate([TEXT], NEW, [], sampling)
    assert error.value.rows == [0]
    with pytest.raises(NotFinite, match=name):
        next(broken.stream(TEXT, NEW, [], sampling))


def test_the_first_of_several_parameters_is_named(engine):
    params = with_value(with_value(engine.params, "norm.scale", np.nan), "head", np.inf)
    first = next(name for name in params if name in ("norm.scale", "head"))
    with pytest.raises(NotFinite, match=rf"1 of the .* weights of {first} .* \(the first of 2 such parameters\)"):
        Engine(engine.cfg, params).generate([TEXT], NEW, [])


def test_activations_that_overflow(engine):
    huge = Engine(engine.cfg, engine.params | {"norm.scale": jnp.full_like(engine.params["norm.scale"], 3e38)})
    with pytest.raises(NotFinite, match="all weights are finite, so activations overflow in float32"):
        huge.generate([TEXT], NEW, [])


@pytest.mark.parametrize("name", [VISION, "patch_embed.conv1.kernel"])
def test_vision_weights_matter_to_images_alone(engine, name):
    name = name if name in engine.params else next(n for n in engine.params if n.startswith("patch_embed"))
    broken = Engine(engine.cfg, engine.params | {name: jnp.full_like(engine.params[name], np.nan)})
    assert broken.generate([TEXT], NEW, []) == engine.generate([TEXT], NEW, [])
    with pytest.raises(NotFinite, match=name.replace(".", r"\.")):
        broken.generate([IMAGE], NEW, [])


def test_a_later_token(engine):
    broken, good = late(engine)
    with pytest.raises(NotFinite, match="weights of embed"):
        broken.generate([TEXT], NEW, [])
    assert broken.generate([TEXT], 4, []) == [good]
    seen: list[int] = []
    with pytest.raises(NotFinite, match="weights of embed"):
        seen.extend(broken.stream(TEXT, NEW, []))  # keeps what came before the error
    assert seen == good


def test_the_row_of_a_batch_is_named(engine):
    """Rows whose answers do not come to the spoilt word are finite."""
    broken, good = late(engine)
    other = prompts()["shorter"]
    (answer,) = engine.generate([other], NEW, [])
    assert good[3] not in [*answer, *other.ids]
    for batch, rows in (([other, TEXT], [1]), ([TEXT, other], [0]), ([TEXT, TEXT], [0, 1])):
        with pytest.raises(NotFinite) as error:
            broken.generate(batch, NEW, [])
        assert error.value.rows == rows


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("late_in_the_answer", [False, True])
def test_a_session_is_what_it_was(engine, streamed, late_in_the_answer):
    broken, _ = late(engine)
    if not late_in_the_answer:
        broken = Engine(engine.cfg, engine.params | {VISION: jnp.full_like(engine.params[VISION], np.nan)})
    session, expected = engine.session(), engine.session()
    first = prompts()["shorter"]
    for one in (session, expected):
        engine.reply(one, [first], 5, [])
    with pytest.raises(NotFinite):
        question = TEXT if late_in_the_answer else IMAGE
        if streamed:
            list(broken.stream(question, NEW, [], session=session))
        else:
            broken.reply(session, [question], NEW, [])
    assert (session.length.tolist(), session.pending) == (expected.length.tolist(), expected.pending)
    assert engine.reply(session, [TEXT], NEW, []) == engine.reply(expected, [TEXT], NEW, [])


def test_finite_logits_of_any_size_are_chosen_from():
    logits = jnp.array([[-3e38, 3e38, 0], [0, np.nan, 9], [0, -np.inf, 9], [np.inf, 0, 1], [2, 1, 0]], jnp.float32)
    for sampling in (GREEDY, Sampling(1e-3), Sampling(1e-3, 0.5)):
        assert choose(logits, jnp.arange(5), sampling.arrays()).tolist() == [1, -2, -2, -2, 0]


def short(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "S"}, {"role": "user", "content": text}]


def test_every_door_of_eve(eve: EVE, tmp_path: Path) -> None:
    whole = eve.engine
    answers = [eve.generate(short(text), max_new_tokens=4) for text in ("Why?", "How?")]
    try:
        eve.engine = Engine(whole.cfg, whole.params | {VISION: jnp.full_like(whole.params[VISION], np.nan)})
        seen, blind = {"images": PICTURE}, {"images": None}
        doors: list[Callable[..., object]] = [
            lambda **images: eve.generate(short("Why?"), max_new_tokens=4, **images),
            lambda **images: "".join(eve.stream(short("Why?"), max_new_tokens=4, **images)),
            lambda **images: eve.chat("S").ask("Why?", max_new_tokens=4, **images).text,
            lambda **images: "".join(eve.chat("S").stream("Why?", max_new_tokens=4, **images)),
        ]
        for door in doors:
            assert door(**blind) == answers[0]
            with pytest.raises(UserError, match=f"logits are not finite; .*{VISION}"):
                door(**seen)
        questions = [short(text) for text in ("Why?", "What?", "How?")]
        assert eve.generate_batch(questions[::2], [None, None], max_new_tokens=4) == answers
        with pytest.raises(UserError, match=r"^conversations\[1\]: no answer: the logits are not finite"):
            eve.generate_batch(questions, [None, [PICTURE], None], max_new_tokens=4)
        chat = eve.chat("S")
        chat.ask("Why?", max_new_tokens=4)
        tokens, answer = chat.tokens, chat.answer
        with pytest.raises(UserError, match="not finite"):
            list(chat.stream("What?", PICTURE))
        assert (chat.tokens, chat.answer) == (tokens, answer)
        assert np.isfinite(np.asarray(chat.session.cache[1])).all()

        eve.engine = spoilt(whole, "norm.scale")
        with pytest.raises(UserError, match=r"none of the 3 records can be scored; .*its loss is nan.*norm\.scale"):
            eve.score(write_records(tmp_path, 3), tmp_path / "images")
    finally:
        eve.engine = whole
