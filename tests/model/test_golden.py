"""Golden sets A and B: patch tokens, embeddings, every layer, logits, loss and gradients, for both routings."""

import jax
import numpy as np
import pytest

from eve_jax.model.eve import bind
from eve_jax.model.loss import loss_sums
from eve_jax.train.step import gradient_sums
from tests import reference as ref

ROUTINGS = ("split", "masked")
# Set B's names of the part settings.
PARTS = {
    "mlp": ("mlp",),
    "dense": (),
    "self_attn_mlp": ("self_attn", "mlp"),
    "layernorm_only": ("layernorm",),
}


@pytest.fixture(scope="module", params=ROUTINGS)
def model(request):
    cfg = ref.config(routing=request.param)
    return bind(cfg, ref.params(cfg))


def test_patch_tokens_and_embeddings(model):
    out, batch = ref.tensors("A_outputs"), ref.alone()
    vision, text = model.embed_slots(batch)
    slots = np.concatenate([vision, text], axis=1)
    for i, length in enumerate(ref.LENGTHS):
        ours = ref.in_causal_order(batch, slots, i, 0, length)
        np.testing.assert_allclose(ours, out["inputs_embeds"][i, :length], atol=2e-5)
        visual = out["visual_token_mask"][i, :length, 0] == 1
        if visual.any():
            np.testing.assert_allclose(ours[visual], out[f"patch_tokens_{i}"], atol=2e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_every_layer_and_logits(model, packed):
    out = ref.tensors("A_outputs")
    batch = ref.distributed_run() if packed else ref.alone()
    hidden, layers = jax.jit(lambda m, b: m.hidden(b, keep=True), static_argnums=())(model, batch)
    normed, logits = model.norm(hidden), model.logits(hidden)
    first = 0
    for i, length in enumerate(ref.LENGTHS):
        at = (0, first, length) if packed else (i, 0, length)
        for n in range(model.cfg.num_layers):
            ours = ref.in_causal_order(batch, layers[n], *at)
            np.testing.assert_allclose(ours, out[f"layer_out.{n}"][i, :length], atol=2e-5)
        np.testing.assert_allclose(ref.in_causal_order(batch, normed, *at), out["final_norm"][i, :length], atol=2e-5)
        np.testing.assert_allclose(ref.in_causal_order(batch, logits, *at), out["logits"][i, :length], atol=2e-5)
        first += length


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("name", PARTS)
def test_part_settings(name, routing):
    out, batch = ref.tensors("B_outputs"), ref.alone()
    cfg = ref.config(PARTS[name], routing)
    model = bind(cfg, ref.params(cfg))
    logits = model(batch)
    for i, length in enumerate(ref.LENGTHS):
        ours = ref.in_causal_order(batch, logits, i, 0, length)
        np.testing.assert_allclose(ours, out[f"{name}.logits"][i, :length], atol=2e-5)
    total, targets = loss_sums(model, batch)
    np.testing.assert_allclose(total / targets, out[f"{name}.loss"], atol=5e-6)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_loss_and_gradients(routing, packed):
    cfg = ref.config(routing=routing)
    batch = ref.distributed_run() if packed else ref.alone()
    sums = jax.jit(gradient_sums, static_argnums=0)(cfg, ref.params(cfg), {}, batch)
    np.testing.assert_allclose(sums.loss / sums.targets, ref.tensors("A_outputs")["loss"], atol=5e-6)
    grads = ref.by_their_names(cfg, {k: np.asarray(g) / float(sums.targets) for k, g in sums.grads.items()})
    for name, golden in ref.tensors("A_grads").items():
        np.testing.assert_allclose(grads[name], golden, rtol=0, atol=1e-5 * np.abs(golden).max(), err_msg=name)
    stats = ref.read_json("A_grad_stats")
    assert grads.keys() == stats.keys()
    for name, stat in stats.items():
        g = grads[name].astype(np.float64)
        assert list(g.shape) == stat["shape"]
        scale = stat["absmax"]
        np.testing.assert_allclose(np.linalg.norm(g), stat["l2"], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(np.abs(g).max(), scale, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(g.sum(), stat["sum"], rtol=1e-5, atol=1e-5 * stat["l2"], err_msg=name)
