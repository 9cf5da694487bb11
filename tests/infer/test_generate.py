"""Golden A_generate by cached decoding and without a cache; a batch gives each prompt the answer it gives alone."""

import jax
import numpy as np
import pytest

from eve_jax.data.image.patches import patchify
from eve_jax.infer.engine import Engine, Reply, bucket
from eve_jax.infer.prompt import Prompt, pack_prompts
from eve_jax.model.eve import bind
from tests import reference as ref
from tests.compiles import watched

NEW = 12


def prompts() -> dict[str, Prompt]:
    """The golden prompts, 14 ids of sample 0 with its image, 6 ids of sample 2; and others of other lengths."""
    inputs = ref.tensors("A_inputs")
    one, two = (patchify(inputs[f"image_uint8_{i}"]) for i in (0, 1))
    ids = inputs["input_ids"][0][:14].astype(np.int32)
    twice = np.array([11, ref.IMAGE_ID, 12, 13, ref.IMAGE_ID, 14], np.int32)
    return {
        "image": Prompt(ids, [one], ref.GRIDS[0]),
        "text": Prompt(inputs["input_ids"][2][:6].astype(np.int32)),
        "shorter": Prompt(ids[:9], [one], ref.GRIDS[0]),
        "two images": Prompt(twice, [two, one], [*ref.GRIDS[1], *ref.GRIDS[0]]),
    }


@pytest.fixture(scope="module")
def engine() -> Engine:
    cfg = ref.config()
    return Engine(cfg, ref.params(cfg))


@pytest.fixture(scope="module")
def alone(engine: Engine) -> list[list[int]]:
    """Each prompt's answer."""
    return [engine.generate([p], NEW, [])[0] for p in prompts().values()]


@pytest.mark.parametrize("tag", ["image", "text"])
def test_cached_decoding(engine, tag):
    golden = ref.read_json("A_generate")[tag]["new_tokens"]
    assert engine.generate([prompts()[tag]], NEW, []) == [golden]
    assert list(engine.stream(prompts()[tag], NEW, [])) == golden


@pytest.mark.parametrize("tag", ["image", "text"])
def test_without_cache(engine, tag):
    golden = ref.read_json("A_generate")[tag]["new_tokens"]
    logits = ref.tensors("A_generate")[f"{tag}.step_logits"]
    prompt = prompts()[tag]
    forward = jax.jit(lambda params, batch: bind(engine.cfg, params)(batch))
    for step, token in enumerate(golden):
        ids = np.concatenate([prompt.ids, golden[:step]]).astype(np.int32)
        whole = Prompt(ids, prompt.patches, prompt.grids)
        batch, (lengths, _) = pack_prompts([whole], bucket(whole.need))
        ours = np.asarray(forward(engine.params, batch))[0, batch["perm"][0, lengths[0] - 1]]
        np.testing.assert_allclose(ours, logits[step], atol=2e-5)
        assert ours.argmax() == token


def test_a_batch_gives_each_prompt_its_own_answer(engine, alone):
    assert engine.generate(list(prompts().values()), NEW, []) == alone
    assert len({tuple(a) for a in alone}) == len(alone)


def test_images_have_their_places(engine, alone):
    """Two images exchanged, or at another place, are another prompt."""
    prompt = prompts()["two images"]
    exchanged = Prompt(prompt.ids, prompt.patches[::-1], prompt.grids[::-1])
    moved = Prompt(prompt.ids[[0, 1, 2, 4, 3, 5]], prompt.patches, prompt.grids)
    answers = [alone[3], *(engine.generate([p], NEW, [])[0] for p in (exchanged, moved))]
    assert len({tuple(a) for a in answers}) == 3


def test_stop_tokens_end_each_row_by_itself(engine, alone):
    stop = alone[0][3]
    assert stop not in alone[1][:1]
    cut = [a[: a.index(stop)] if stop in a else a for a in alone]
    assert len(cut[0]) <= 3
    assert max(map(len, cut)) == NEW
    every = list(prompts().values())
    assert engine.generate(every, NEW, [stop, 317]) == cut
    assert list(engine.stream(every[0], NEW, [stop])) == cut[0]
    assert engine.generate(every[:1], NEW, [alone[0][0]]) == [[]]


def test_prompts_of_one_bucket_share_their_programs(engine):
    """Of other lengths, with another image, answered at other lengths: what the first one compiled serves them all."""
    prompt = prompts()["image"]
    other = patchify(ref.tensors("A_inputs")["image_uint8_1"])
    engine.generate([prompt], NEW, [])
    with watched() as (programs, _):
        engine.generate([Prompt(prompt.ids[:9], prompt.patches, prompt.grids)], NEW, [5])
        engine.generate([Prompt(prompt.ids, [other], ref.GRIDS[1])], NEW - 3, [5, 6])
        list(engine.stream(prompt, NEW, []))
    assert not programs
    with watched() as (programs, _):
        engine.generate([Prompt(np.tile(prompt.ids[:1], 200))], NEW, [])
    assert programs["jit(prefill)"] == 1  # another bucket


def test_decoding_uses_text_weights_alone(engine, alone):
    spoilt = {k: np.full_like(v, np.nan) if ".vision." in k or "patch" in k else v for k, v in engine.params.items()}
    session, blind = engine.session(), Engine(engine.cfg, spoilt)
    first = Reply(engine, session, NEW, []).start([prompts()["image"]])
    rest, _ = Reply(blind, session, NEW, []).decode(first, np.array([NEW - 1], np.int32))
    assert [int(first[0]), *np.asarray(rest)[0, : NEW - 1].tolist()] == alone[0]
