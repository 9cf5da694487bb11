"""Golden set of SAIL: positions, mask, embeddings, layers, logits, loss, answer.

Its image has values that no bytes have, so the step from bytes to them is left out.
"""

import jax
import numpy as np
import pytest

from eve_jax.batch import RowShape
from eve_jax.data.rows.build import lay_out
from eve_jax.data.rows.spell import Sample, spell_out
from eve_jax.data.text.encode import IGNORE, IMAGE_ID
from eve_jax.infer.engine import Engine
from eve_jax.infer.prompt import Prompt
from eve_jax.model import plain_patches
from eve_jax.model.eve import Batch, bind
from eve_jax.model.loss import loss_sums
from tests import family as ref

IO, META = ref.tensors("sail_io"), ref.facts("sail_meta")
GRID = tuple(META["grid"])
SCALE = np.abs(IO["logits"]).max()


@pytest.fixture(autouse=True)
def _as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_patches, "normalised", lambda pixels, *_: pixels)


def sample() -> Sample:
    ids = ref.sail_ids("input_ids")
    found = dict(zip(IO["input_ids"].tolist(), IO["labels"].tolist(), strict=True))
    labels = np.array([IGNORE if id == IMAGE_ID else found[id] for id in ids.tolist()], np.int32)
    return Sample(ids, labels, [GRID])


def row() -> Batch:
    cfg = ref.sail()
    own = lay_out([sample()], RowShape(16, 0, 112), cfg.layout)
    patches = np.zeros((16, 192), np.float32)
    patches[:12] = ref.sail_pixels()
    return {name: value[None] for name, value in (own | {"patches": patches}).items()}


def test_positions_and_mask() -> None:
    tokens = spell_out(sample(), ref.sail().layout)
    _, height, width = IO["position_ids"]
    np.testing.assert_array_equal(tokens.number[:, None] + tokens.place, np.stack([height, width], axis=1))
    np.testing.assert_array_equal(np.arange(len(height)) <= tokens.end[:, None], IO["mask"])


def test_layers_logits_and_loss() -> None:
    cfg, batch = ref.sail(), row()
    model = bind(cfg, ref.sail_params(cfg))
    order = batch["perm"][0, : len(IO["logits"])]
    hidden, layers = jax.jit(lambda m, b: m.hidden(b, keep=True))(model, batch)
    embeds = np.concatenate(model.embed_slots(batch), axis=1)[0][order]
    np.testing.assert_allclose(embeds, IO["inputs_embeds"], rtol=0, atol=2e-5)
    for number in range(cfg.num_layers):
        np.testing.assert_allclose(layers[number, 0][order], IO[f"layer_{number}"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(model.logits(hidden)[0][order], IO["logits"], rtol=0, atol=2e-5 * SCALE)
    total, targets = loss_sums(model, batch)
    np.testing.assert_allclose(total / targets, META["loss"], rtol=0, atol=5e-6)


def test_a_greedy_answer_with_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = ref.sail()
    engine = Engine(cfg, ref.sail_params(cfg))
    prompt = Prompt(ref.sail_ids("prompt_ids"), [ref.sail_pixels()], [GRID], cfg.layout)
    monkeypatch.setattr("eve_jax.batch._PATCHES", {"patches": ("P B", np.float32)})
    assert engine.generate([prompt], 8, []) == [IO["new_ids"].tolist()]
