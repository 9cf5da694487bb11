"""Weights and logits that are not finite are told, never answered from: alone, in a batch, as a stream, in a chat."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from eve_jax import EVE
from eve_jax.errors import UserError
from eve_jax.infer.choosing import choose
from eve_jax.infer.engine import Engine, bucket
from eve_jax.infer.finite import NotFinite
from eve_jax.infer.prompt import pack_prompts
from eve_jax.infer.sampling import GREEDY, Sampling
from eve_jax.model.eve import Params, bind
from eve_jax.model.loss import loss_sums
from tests import reference as ref
from tests.infer.test_generate import NEW, prompts
from tests.weights import folders

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


def with_value(params: Params, name: str, value: float, index: int | slice = -1) -> Params:
    """The parameters with one value of `name` exchanged."""
    return params | {name: jnp.asarray(params[name]).at[index].set(value)}


def spoilt(engine: Engine, name: str, value: float = np.nan, index: int | slice = -1) -> Engine:
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
        ("layers.mlp.text.down", -np.inf),
        ("layers.attn.k.text.bias", np.nan),
    ],
)
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.7, 0.9)])
def test_weights_that_are_not_finite_are_named(engine, name, value, sampling):
    broken = spoilt(engine, name, value)
    with pytest.raises(NotFinite, match=rf"logits are not finite; {name} is NaN or infinite in [1-9]") as error:
        broken.generate([TEXT], NEW, [], sampling)
    assert error.value.rows == [0]
    with pytest.raises(NotFinite, match=name):
        next(broken.stream(TEXT, NEW, [], sampling))


def test_the_first_of_several_parameters_is_named(engine):
    params = with_value(with_value(engine.params, "norm.scale", np.nan), "head", np.inf)
    first = next(name for name in params if name in ("norm.scale", "head"))
    with pytest.raises(NotFinite, match=rf"{first} \(the first of 2 such parameters\) is NaN or infinite in 1 of its "):
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
    with pytest.raises(NotFinite, match="embed is NaN or infinite in 64 of its 20,480 weights"):
        broken.generate([TEXT], NEW, [])
    assert broken.generate([TEXT], 4, []) == [good]
    seen: list[int] = []
    with pytest.raises(NotFinite, match="embed is NaN or infinite in 64 of its 20,480 weights"):
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
@pytest.mark.parametrize("question", [IMAGE, TEXT])
def test_a_session_is_what_it_was(engine, streamed, question):
    """After logits that are NaN at once (an image), or at the fourth token of the answer (a text)."""
    session, expected, third = (engine.session() for _ in range(3))
    for one in (session, expected, third):
        engine.reply(one, [prompts()["shorter"]], 5, [])
    (answer,) = engine.reply(expected, [TEXT], NEW, [])
    name = VISION if question is IMAGE else "embed"
    at = slice(None) if question is IMAGE else answer[2]
    assert answer[2] not in [*answer[:2], *TEXT.ids, *session.pending[0]]
    broken = spoilt(engine, name, np.nan, at)
    with pytest.raises(NotFinite, match=name):
        if streamed:
            list(broken.stream(question, NEW, [], session=session))
        else:
            broken.reply(session, [question], NEW, [])
    assert (session.length.tolist(), session.pending) == (third.length.tolist(), third.pending)
    assert np.isfinite(np.asarray(session.cache[1])).all()
    assert engine.reply(session, [TEXT], NEW, []) == [answer]


def test_finite_logits_of_any_size_are_chosen_from():
    logits = jnp.array([[-3e38, 3e38, 0], [0, np.nan, 9], [0, -np.inf, 9], [np.inf, 0, 1], [2, 1, 0]], jnp.float32)
    for sampling in (GREEDY, Sampling(1e-3), Sampling(1e-3, 0.5)):
        assert choose(logits, jnp.arange(5), sampling.arrays()).tolist() == [1, -2, -2, -2, 0]


def short(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "S"}, {"role": "user", "content": text}]


@pytest.fixture
def blind(eve: EVE) -> Iterator[EVE]:
    """The model with vision weights that are NaN."""
    whole = eve.engine
    eve.engine = Engine(whole.cfg, whole.params | {VISION: jnp.full_like(whole.params[VISION], np.nan)})
    yield eve
    eve.engine = whole


def test_every_door_of_eve(blind: EVE) -> None:
    doors: list[Callable[..., str]] = [
        lambda images: blind.generate(short("Why?"), images, max_new_tokens=4),
        lambda images: "".join(blind.stream(short("Why?"), images, max_new_tokens=4)),
        lambda images: blind.chat("S").ask("Why?", images, max_new_tokens=4).text,
        lambda images: "".join(blind.chat("S").stream("Why?", images, max_new_tokens=4)),
    ]
    assert len({door(None) for door in doors}) == 1
    for door in doors:
        with pytest.raises(UserError, match=f"^no answer: the logits are not finite; .*{VISION}"):
            door(PICTURE)


def test_the_conversation_of_a_batch_is_named(blind: EVE) -> None:
    questions = [short("Why?"), short("How?")]
    answers = [blind.generate(question, max_new_tokens=4) for question in questions]
    assert blind.generate_batch(questions, [None, None], max_new_tokens=4) == answers
    with pytest.raises(UserError, match=r"^conversations\[1\]: no answer: the logits are not finite"):
        blind.generate_batch(questions, [None, [PICTURE]], max_new_tokens=4)


def test_a_chat_that_gave_no_answer_goes_on(blind: EVE) -> None:
    chat = blind.chat("S")
    with pytest.raises(UserError, match="not finite"):
        list(chat.stream("Why?", PICTURE, max_new_tokens=4))
    assert (chat.tokens, chat.answer) == (0, None)
    assert chat.ask("Why?", max_new_tokens=4).text == blind.generate(short("Why?"), max_new_tokens=4)


def test_a_padding_id_without_an_embedding_spoils_nothing(engine: Engine) -> None:
    """Empty slots have the id 0, whose row of the table no text may have."""
    good = engine.generate([TEXT, IMAGE], 5, [])
    assert not any(0 in [*prompt.ids, *answer] for prompt, answer in zip((TEXT, IMAGE), good, strict=True))
    broken = spoilt(engine, "embed", np.nan, 0)
    assert broken.generate([TEXT, IMAGE], 5, []) == good
    assert list(broken.stream(TEXT, 5, [])) == good[0]


def test_nor_does_it_in_training(engine: Engine) -> None:
    batch, _ = pack_prompts([TEXT, IMAGE], bucket(IMAGE.need))
    batch |= {"loss_weight": (batch["text_ids"] > 0).astype(np.float32)}
    step = jax.jit(jax.value_and_grad(lambda params: loss_sums(bind(engine.cfg, params), batch)[0]))
    (known, known_grads), (found, grads) = map(step, (engine.params, spoilt(engine, "embed", np.nan, 0).params))
    assert float(found) == float(known)
    for name, value in grads.items():
        np.testing.assert_array_equal(value, known_grads[name], err_msg=name)
