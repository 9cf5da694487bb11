"""Golden set of NEO: positions, patch tokens, every layer, logits, losses and gradients, alone and packed, answers."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from eve_jax.batch import RowShape
from eve_jax.data.rows.spell import spell_out
from eve_jax.infer.batches import Ask, answer_all
from eve_jax.infer.engine import Engine
from eve_jax.model.eve import bind
from eve_jax.model.loss import loss_sums
from eve_jax.train.sample_weights import weighed
from eve_jax.train.step import gradient_sums
from tests import family as ref

OUT = ref.tensors("neo_outputs")
SCALE = np.abs(OUT["packed.logits"]).max()


@pytest.mark.parametrize("case", ref.CASES)
def test_positions_and_what_tokens_see(case: str) -> None:
    tokens = spell_out(ref.neo_sample(case), ref.neo().layout)
    t, h, w = OUT[f"{case}.thw"]
    np.testing.assert_array_equal(np.stack([tokens.number, *tokens.place.T]), [t, h, w])
    order = np.arange(len(t))
    sees = (order <= order[:, None]) | (t == t[:, None])
    np.testing.assert_array_equal(order <= tokens.end[:, None], sees)


@pytest.mark.parametrize("routing", ["split", pytest.param("masked", marks=pytest.mark.slow)])
def test_every_layer_and_logits(routing: str) -> None:
    cfg = ref.neo(routing=routing)
    batch, model = ref.neo_row(cfg), bind(cfg, ref.neo_params(cfg))
    count = len(OUT["packed.logits"])
    order = batch["perm"][0, :count]
    hidden, layers = jax.jit(lambda m, b: m.hidden(b, keep=True))(model, batch)
    vision, text = model.embed_slots(batch)
    patches = OUT["packed.patch_tokens"]
    np.testing.assert_allclose(vision[0, : len(patches)], patches, rtol=0, atol=2e-5)
    embeds = np.concatenate([vision, text], axis=1)[0][order]
    np.testing.assert_allclose(embeds, OUT["packed.inputs_embeds"], rtol=0, atol=2e-5)
    for number in range(cfg.num_layers):
        np.testing.assert_allclose(layers[number, 0][order], OUT[f"packed.layer_{number}"], rtol=0, atol=3e-5)
    np.testing.assert_allclose(model.norm(hidden)[0][order], OUT["packed.final_norm"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(model.logits(hidden)[0][order], OUT["packed.logits"], rtol=0, atol=2e-5 * SCALE)


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow) for case in ref.CASES])
def test_logits_and_losses_of_a_case_alone(case: str) -> None:
    cfg = ref.neo()
    batch, model = ref.neo_row(cfg, [case], RowShape(16, 0, 112)), bind(cfg, ref.neo_params(cfg))
    order = batch["perm"][0, : len(OUT[f"{case}.logits"])]
    np.testing.assert_allclose(model(batch)[0][order], OUT[f"{case}.logits"], rtol=0, atol=2e-5 * SCALE)
    total, targets = loss_sums(model, batch)
    facts = ref.facts("neo_meta")["cases"][case]
    assert targets == facts["n_target"]
    np.testing.assert_allclose(total / targets, facts["loss_token"], rtol=0, atol=5e-6)


def test_losses_and_gradients_of_the_packed_row() -> None:
    cfg = ref.neo()
    batch, params = ref.neo_row(cfg), ref.neo_params(cfg)
    wanted = ref.facts("neo_meta")["packed"]
    sums = jax.jit(gradient_sums, static_argnums=0)
    for kind, name in (("token", "token"), ("sample", "sample"), ("sqrt", "square")):
        found = sums(cfg, params, {}, weighed(batch, kind))
        np.testing.assert_allclose(found.loss / found.divisor, wanted[f"loss_{name}"], rtol=0, atol=5e-6)
    grads = ref.by_their_names(cfg, {k: np.asarray(g) / float(found.divisor) for k, g in found.grads.items()})
    golden = ref.tensors("neo_grads")
    assert grads.keys() == golden.keys()
    for name, theirs in golden.items():
        np.testing.assert_allclose(grads[name], theirs, rtol=0, atol=1e-5 * np.abs(theirs).max(), err_msg=name)


def answers() -> list[list[int]]:
    return [ref.tensors("neo_generate")[f"{case}.new_ids"].tolist() for case in ref.CASES]


def test_greedy_answers_with_a_cache() -> None:
    """Prompts of four lengths together, and what comes after one counts as."""
    cfg = ref.neo()
    engine = Engine(cfg, ref.neo_params(cfg))
    session = engine.session(4)
    assert engine.reply(session, [ref.neo_prompt(case, cfg) for case in ref.CASES], 16, []) == answers()
    after = [ref.facts("neo_meta")["generate"][case]["prefill_t_max"] + 16 for case in ref.CASES]
    assert session.held.next.tolist() == after  # the last token is not in the cache


@pytest.mark.slow
def test_a_conversation_counts_on() -> None:
    """A prompt in two parts, the second one with an image: logits as of the whole."""
    cfg = ref.neo()
    engine = Engine(cfg, ref.neo_params(cfg))
    whole = ref.neo_prompt("middle", cfg)
    session = engine.session()
    engine.prefill(session, [replace(whole, ids=whole.ids[:20], patches=(), grids=())])
    logits = engine.prefill(session, [replace(whole, ids=whole.ids[20:])])
    wanted = ref.tensors("neo_generate")["middle.step_logits"][0]
    np.testing.assert_allclose(logits[0], wanted, rtol=0, atol=2e-5 * SCALE)


@pytest.mark.slow
def test_the_schedulers_programs_give_the_same() -> None:
    cfg = ref.neo()
    engine = Engine(cfg, ref.neo_params(cfg))
    prompts = [ref.neo_prompt(case, cfg) for case in ref.CASES]
    replies = answer_all(engine, [Ask(str(n), prompt, 16) for n, prompt in enumerate(prompts)], [])
    assert [ids for _, ids in sorted((reply.key, reply.ids) for reply in replies)] == answers()
