"""Golden sets D1 and D2: EVEv1's image tokens, embeddings, hidden states, logits and loss, alone and packed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.config.stages import partition, stage_factors
from eve_jax.model.eve import bind
from eve_jax.model.loss import loss_sums
from eve_jax.train.step import gradient_sums, image_weight
from tests import reference as ref
from tests import reference_v1 as v1

CASES = [("D1", "split", True), ("D1", "masked", False), ("D2", "split", False)]


@jax.jit
def forward(model, batch):
    hidden, layers = model.hidden(batch, keep=True)
    slots = jnp.concatenate(model.embed_slots(batch), axis=1)
    return slots, layers, model.norm(hidden), model.logits(hidden), loss_sums(model, batch)


@pytest.mark.parametrize(("name", "routing", "packed"), CASES)
def test_forward(name, routing, packed):
    out = ref.tensors(f"{name}_outputs")
    cfg = v1.config(name, routing)
    model = bind(cfg, v1.params(cfg, name))
    batch = v1.distributed_run(name) if packed else v1.alone(name)
    slots, layers, normed, logits, (total, targets) = forward(model, batch)
    first = 0
    for i, length in enumerate(v1.lengths(name)):
        at = (0, first, length) if packed else (i, 0, length)
        embeds = ref.in_causal_order(batch, slots, *at)
        np.testing.assert_allclose(embeds, out["inputs_embeds"][i, :length], atol=2e-5)
        if i < 2:
            tokens = batch["perm"][at[0]][first if packed else 0 :][:length] < v1.SHAPES[name].vision
            np.testing.assert_allclose(embeds[tokens], out[f"image_tokens_{i}"], atol=2e-5)
        for n in range(cfg.num_layers - 1):
            if f"hidden_states.{n + 1}" in out:
                ours = ref.in_causal_order(batch, layers[n], *at)
                np.testing.assert_allclose(ours, out[f"hidden_states.{n + 1}"][i, :length], atol=2e-5)
        last = out[f"hidden_states.{cfg.num_layers}"]
        np.testing.assert_allclose(ref.in_causal_order(batch, normed, *at), last[i, :length], atol=2e-5)
        np.testing.assert_allclose(ref.in_causal_order(batch, logits, *at), out["logits"][i, :length], atol=2e-5)
        first += length
    np.testing.assert_allclose(total / targets, out["llm_loss"], atol=5e-6)


@pytest.mark.parametrize(("name", "packed"), [("D1", False), pytest.param("D2", True, marks=pytest.mark.slow)])
def test_aligning(name, packed):
    """Teacher, predictions, losses and every gradient, with the aligning loss of the whole batch."""
    out, meta = ref.tensors(f"{name}_outputs"), ref.read_json(f"{name}_meta")
    cfg = v1.config(name, aligned=True)
    batch = v1.distributed_run(name) if packed else v1.alone(name)
    trainable, frozen = partition(cfg, v1.params(cfg, name), stage_factors("3"))
    params = {**trainable, **frozen}
    _, predicted, features = jax.jit(lambda p, b: bind(cfg, p).hidden_and_features(b))(params, batch)
    first = 0
    for i in range(2):
        target = out[f"compressor_target_{i}"]
        at = (0, slice(first, first + len(target))) if packed else (i, slice(0, len(target)))
        np.testing.assert_allclose(features[at], target, atol=2e-5)
        np.testing.assert_allclose(predicted[at], out[f"compressor_pred_{i}"], atol=2e-5)
        first += len(target)
    sums = jax.jit(gradient_sums, static_argnums=0)(cfg, trainable, frozen, batch, image_weight(cfg, [batch]))
    np.testing.assert_allclose(sums.loss / sums.targets, meta["llm_loss"], atol=5e-6)
    np.testing.assert_allclose(sums.images, 2, rtol=1e-6)
    np.testing.assert_allclose(sums.align / sums.images, meta["clip_loss"], atol=5e-6)
    total = sums.loss / sums.targets + sums.align / sums.images
    np.testing.assert_allclose(total, meta["total_loss"], atol=5e-6)
    grads = ref.by_their_names(cfg, {k: np.asarray(g) / float(sums.targets) for k, g in sums.grads.items()})
    for theirs, golden in ref.tensors(f"{name}_grads").items():
        np.testing.assert_allclose(grads[theirs], golden, rtol=0, atol=1e-5 * np.abs(golden).max(), err_msg=theirs)
    stats = ref.read_json(f"{name}_grad_stats")
    assert grads.keys() == stats.keys()
    for theirs, stat in stats.items():
        np.testing.assert_allclose(np.linalg.norm(grads[theirs]), stat["l2"], rtol=1e-5, err_msg=theirs)
