"""Golden set C: EVEv2 on LLaMA-3 with gated deltas (ReP), without them, and with LLaMA-3.1's rotary scaling."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.checkpoint.vision_copies import add_vision_copies, fold
from eve_jax.config.stages import partition, stage_factors
from eve_jax.model.config import DELTA, ModelConfig
from eve_jax.model.eve import abstract_params, bind
from eve_jax.model.loss import loss_sums
from eve_jax.train.step import gradient_sums
from tests import reference as ref

ROUTINGS = ("split", "masked")
SCALING = (8.0, 1.0, 4.0, 64)  # C_meta.json, rope_scaling_of_dense_rope_llama3
CASES = {"moe": (DELTA,), "dense": (), "dense_rope_llama3": ()}


def config(case: str, routing: str = "split") -> ModelConfig:
    cfg = ref.config(CASES[case], routing, "C")
    return replace(cfg, rope_scaling=SCALING) if case == "dense_rope_llama3" else cfg


def each_sample(batch: dict, values: jax.Array, golden: np.ndarray) -> None:
    """Compare the real tokens of the three samples, one a row."""
    for i, length in enumerate(ref.LENGTHS):
        ours = ref.in_causal_order(batch, values, i, 0, length)
        np.testing.assert_allclose(ours, golden[i, :length], rtol=0, atol=2e-5)


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("case", CASES)
def test_logits_loss_and_layers(case, routing):
    out, batch = ref.tensors("C_outputs"), ref.alone()
    cfg = config(case, routing)
    model = bind(cfg, ref.params(cfg, "C"))
    hidden, layers = jax.jit(lambda m, b: m.hidden(b, keep=True))(model, batch)
    each_sample(batch, model.logits(hidden), out[f"{case}.logits"])
    total, targets = loss_sums(model, batch)
    np.testing.assert_allclose(total / targets, out[f"{case}.loss"], rtol=0, atol=5e-6)
    if case != "dense_rope_llama3":
        for n in range(cfg.num_layers - 1):
            each_sample(batch, layers[n], out[f"{case}.hidden_states.{n + 1}"])
        each_sample(batch, model.norm(hidden), out[f"{case}.hidden_states.{cfg.num_layers}"])


def test_scaling_is_the_goldens():
    golden = ref.read_json("C_meta")["rope_scaling_of_dense_rope_llama3"]
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    assert tuple(golden[n] for n in names) == SCALING


def test_folded_is_the_same_model():
    cfg, batch = config("moe"), ref.alone()
    dense, params = fold(cfg, ref.params(cfg, "C"))
    assert dense.parts == () and params.keys() == abstract_params(dense).keys()
    each_sample(batch, bind(dense, params)(batch), ref.tensors("C_outputs")["moe.logits"])


def test_deltas_start_as_the_llm_and_train_from_the_first_step():
    cfg = config("moe")
    dense = config("dense")
    single = ref.params(dense, "C")
    batch = ref.alone()
    params = add_vision_copies(cfg, single)
    assert params.keys() == abstract_params(cfg).keys()
    logits = jax.jit(lambda m, b: m(b))
    alike, llm = logits(bind(cfg, params), batch), logits(bind(dense, single), batch)
    np.testing.assert_array_equal(np.asarray(alike), np.asarray(llm))
    trainable, frozen = partition(cfg, params, stage_factors("2.1"))
    deltas = {n for n in trainable if n.startswith("layers.")}
    assert {n.removeprefix("layers.mlp.text.delta_") for n in deltas} == {
        "up.weight",
        "up.gate",
        "down.weight",
        "down.gate",
    }
    grads = jax.jit(gradient_sums, static_argnums=0)(cfg, trainable, frozen, batch).grads
    assert all(jnp.abs(grads[n]).max() > 0 for n in deltas if n.endswith("weight"))
