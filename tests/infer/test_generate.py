"""Golden A_generate by cached decoding and without a cache; a batch gives each prompt the answer it gives alone."""

import numpy as np
import pytest

from eve_jax.data.images import patchify
from eve_jax.infer.engine import Engine, Prompt, bucket, pack_prompts
from eve_jax.model.eve import bind
from tests import reference as ref

NEW = 12


def prompts() -> dict[str, Prompt]:
    """The golden prompts: 14 ids of sample 0 with its image, 6 ids of sample 2."""
    inputs = ref.tensors("A_inputs")
    image = patchify(inputs["image_uint8_0"])
    return {
        "image": Prompt(inputs["input_ids"][0][:14].astype(np.int32), [image], ref.GRIDS[0]),
        "text": Prompt(inputs["input_ids"][2][:6].astype(np.int32)),
    }


@pytest.fixture(scope="module")
def engine():
    cfg = ref.config()
    return Engine(cfg, ref.params(cfg))


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
    model = bind(engine.cfg, engine.params)
    for step, token in enumerate(golden):
        ids = np.concatenate([prompt.ids, golden[:step]]).astype(np.int32)
        whole = Prompt(ids, prompt.patches, prompt.grids)
        batch, lengths = pack_prompts([whole], bucket(whole.need))
        ours = np.asarray(model(batch))[0, batch["perm"][0, lengths[0] - 1]]
        np.testing.assert_allclose(ours, logits[step], atol=2e-5)
        assert ours.argmax() == token


def test_a_batch_gives_each_prompt_its_own_answer(engine):
    every = list(prompts().values())
    short = Prompt(every[0].ids[:9], every[0].patches, every[0].grids)
    every += [short, Prompt(np.array([5, 9, 200], np.int32))]
    alone = [engine.generate([p], NEW, [])[0] for p in every]
    assert engine.generate(every, NEW, []) == alone
    assert len({tuple(a) for a in alone}) == len(every)


def test_stop_tokens_end_each_row_by_itself(engine):
    every = list(prompts().values())
    image, text = engine.generate(every, NEW, [])
    stop = image[3]
    assert stop not in text[:1]
    got = engine.generate(every, NEW, [stop])
    assert got[0] == image[: image.index(stop)]
    assert got[1] == (text[: text.index(stop)] if stop in text else text)
    assert list(engine.stream(every[0], NEW, [stop])) == image[: image.index(stop)]
