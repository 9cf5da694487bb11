"""What trains in each stage, what is stored for it, and that the frozen LLM stays what it was."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import stage1, stage2_1, stage2_2, stage3
from eve_jax.checkpoint.vision_copies import add_vision_copies
from eve_jax.config.stage import Config
from eve_jax.config.stages import partition, stage_factors, trainable_names
from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import abstract_params, bind
from eve_jax.train.schedule import schedule
from eve_jax.train.step import StepFunctions, TrainState
from tests import reference as ref


def started(cfg, stage, tx):
    trainable, frozen = partition(cfg, ref.params(cfg), stage_factors(stage))
    return TrainState(jnp.zeros((), jnp.int32), trainable, tx.init(trainable)), frozen


@pytest.mark.parametrize("routing", ["split", "masked"])
@pytest.mark.parametrize(("stage", "parts"), [("1", ()), ("2.1", ("layernorm", "self_attn", "mlp"))])
def test_text_only_logits_are_bit_identical_while_the_llm_is_frozen(routing, stage, parts):
    cfg = ref.config(parts, routing)
    tx = optax.adamw(1e-2)
    state, frozen = started(cfg, stage, tx)
    text = ref.stack([ref.row([2], ref.ALONE)])
    real = text["segment"][0] > 0  # pads see other pads, image slots among them
    forward = jax.jit(lambda p, b: bind(cfg, p)(b)[:, real])
    before = np.asarray(forward({**state.trainable, **frozen}, text))
    image = ref.stack([ref.row([0], ref.ALONE)])  # its text tokens, which see the image
    image_before = np.asarray(forward({**state.trainable, **frozen}, image))
    functions = StepFunctions(cfg, tx, optax.constant_schedule(1e-2))
    for _ in range(3):
        state, _ = functions(state, frozen, [ref.distributed_run()])
    np.testing.assert_array_equal(before, forward({**state.trainable, **frozen}, text))
    assert np.abs(image_before - forward({**state.trainable, **frozen}, image)).max() > 1e-2


@pytest.mark.parametrize("stage", ["1", "2.1", "2.2", "3"])
def test_nothing_is_stored_for_frozen_parameters(stage):
    cfg = ref.config() if stage != "1" else ref.config(())
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    state, frozen = started(cfg, stage, tx)
    names = set(state.trainable)
    moments = [
        m for m in jax.tree.leaves(state.optimizer, is_leaf=lambda x: isinstance(x, dict)) if isinstance(m, dict)
    ]
    assert len(moments) == 2
    assert all(set(m) == names for m in moments)

    def size(tree):
        return sum(x.nbytes for x in jax.tree.leaves(tree))

    batch = ref.distributed_run()
    functions = StepFunctions(cfg, tx, optax.constant_schedule(1e-3))
    analysis = functions.fused.lower(state, frozen, batch).compile().memory_analysis()
    assert analysis is not None
    stored = analysis.argument_size_in_bytes
    trainable = sum(x.size for x in state.trainable.values())
    wanted = size(state.trainable) + size(frozen) + 8 * trainable + size(batch)
    assert abs(stored - wanted) < 0.01 * wanted


def test_stage_21_starts_from_the_text_weights():
    single = {k: np.asarray(v) for k, v in ref.params(ref.config(())).items()}
    wanted = abstract_params(ref.config())
    params = add_vision_copies(ref.config(), single)
    assert set(params) == set(wanted)
    twins = [n for n in wanted if n not in single]
    assert len(twins) == 12
    for name in twins:
        np.testing.assert_array_equal(params[name], single[name.replace(".vision.", ".text.")])


@pytest.mark.parametrize(
    ("config", "billions", "trainable"),
    [
        (stage1.get_config(), 7.63, 0.0155),
        (stage2_1.get_config(), 14.16, 6.54),
        (stage2_1.get_config("hd"), 14.16, 6.54),
        (stage2_2.get_config(), 14.16, 14.16),
        (stage3.get_config(), 14.16, 14.16),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_stage_configs_at_7b(config, billions, trainable):
    cfg = ModelConfig.from_dict(config.model.to_dict())
    params = abstract_params(cfg)
    total = sum(math.prod(v.shape) for v in params.values()) / 1e9
    assert round(total, 2) == billions
    trains = sum(math.prod(v.shape) for v in partition(cfg, params, Config.of(config).factors)[0].values()) / 1e9
    assert trains == pytest.approx(trainable, rel=0.01)


def test_paper_values():
    rows = [
        (stage1.get_config(), "1", 2e-4, "plain", "anyratio_ld", 2048),
        (stage2_1.get_config(), "2.1", 1e-4, "plain", "anyratio_ld", 2048),
        (stage2_1.get_config("hd"), "2.1", 5e-5, "plain", "anyratio_hd", 4096),
        (stage2_2.get_config(), "2.2", 2e-5, "qwen2", "anyratio_hd", 4096),
        (stage3.get_config(), "3", 1e-5, "qwen2", "anyratio_hd", 5000),
    ]
    for c, stage, lr, template, mode, longest in rows:
        got = (c.stage, c.optim.lr, c.data.template, c.data.image_mode, c.data.max_tokens)
        assert got == (stage, lr, template, mode, longest)
        o = c.optim
        assert (o.b1, o.b2, o.eps, o.weight_decay, o.clip, o.warmup) == (0.9, 0.999, 1e-8, 0.0, 1.0, 0.03)


def test_unknown_stage_and_missing_twins():
    with pytest.raises(UserError, match="expected one of"):
        stage_factors("4")
    with pytest.raises(UserError, match="has none"):
        trainable_names(ref.config(()), stage_factors("2.1"))


def test_a_run_warms_up_over_a_share_of_its_steps_rounded_up():
    optim = stage3.get_config("llm=tiny").optim
    optim.lr, optim.warmup = 1.0, 0.03
    rates = [float(schedule(optim, 101)(step)) for step in range(102)]  # 3.03 steps
    assert rates[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert rates[5] < 1 and rates[101] == pytest.approx(0, abs=1e-6)
