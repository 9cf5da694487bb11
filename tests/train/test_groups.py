"""Groups of weights: what trains, at which learning rate, what decays; and any subset of parts that exist twice."""

from collections.abc import Callable
from itertools import combinations

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import stage1, stage2_1, stage3, v1_pretrain
from eve_jax.config.stage import Config
from eve_jax.config.stages import group_factors, partition, stage_factors, trainable_names
from eve_jax.errors import UserError
from eve_jax.model.config import TWICE, VARIANTS, ModelConfig
from eve_jax.model.eve import abstract_params, declared
from eve_jax.model.weight import GROUPS
from eve_jax.train.optimizer import optimizer
from tests import reference as ref

SUBSETS = [parts for size in range(4) for parts in combinations(TWICE, size)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_weight_declares_its_group_and_role(variant: str) -> None:
    cfg = ref.config(VARIANTS[variant])
    weights = declared(cfg)
    assert weights.keys() == abstract_params(cfg).keys()
    assert {w.group for w in weights.values()} <= set(GROUPS)
    for name, shape in abstract_params(cfg).items():
        width = len(shape.shape) - weights[name].stacked
        assert (width == 2) == (weights[name].role in ("matrix", "delta") or name in ("embed", "head")), name


def test_decay_follows_the_role() -> None:
    """Also of embedding and head, which a list of names had left out; not of biases, norms and gates."""
    cfg = ref.config(VARIANTS["rep"])
    config = stage3.get_config("llm=tiny")
    config.optim.weight_decay, config.optim.clip, config.optim.lr = 0.1, 0.0, 1e-2
    params = {name: jnp.ones(v.shape, jnp.float32) for name, v in abstract_params(cfg).items()}
    tx = optimizer(config.optim, optax.constant_schedule(1e-2), cfg, stage_factors("3"))
    nothing = {name: jnp.zeros_like(v) for name, v in params.items()}
    updates, _ = tx.update(nothing, tx.init(params), params)
    decayed = {name for name, u in updates.items() if np.any(np.asarray(u))}
    assert {"embed", "head", "patch_embed.class_embed", "layers.mlp.text.delta_up.weight"} <= decayed
    assert decayed == {n for n, w in declared(cfg).items() if w.role in ("matrix", "table", "delta")}


def test_factors_scale_the_update_and_freeze() -> None:
    """Learning rates of groups: twice, a quarter, and none, without moments for what is frozen."""
    cfg = ref.config()
    config = stage3.get_config("llm=tiny")
    config.optim.clip = 0.0
    plain = optimizer(config.optim, optax.constant_schedule(1e-3), cfg, Config.of(config).factors)
    config.optim.groups.vision, config.optim.groups.patch_embed, config.optim.groups.text = 2.0, 0.25, 0.0
    factors = Config.of(config).factors
    trainable, frozen = partition(cfg, ref.params(cfg), factors)
    assert {declared(cfg)[n].group for n in frozen} == {"text"}
    tx = optimizer(config.optim, optax.constant_schedule(1e-3), cfg, factors)
    state = tx.init(trainable)
    adam = next(s for s in state[0] if hasattr(s, "mu"))
    assert set(adam.mu) == set(adam.nu) == set(trainable)
    rng = np.random.default_rng(0)
    grads = {name: jnp.asarray(rng.normal(size=v.shape), jnp.float32) for name, v in trainable.items()}
    scaled, _ = tx.update(grads, state, trainable)
    once, _ = plain.update(grads, plain.init(trainable), trainable)
    for name in trainable:
        factor = {"vision": 2.0, "patch_embed": 0.25}[declared(cfg)[name].group]
        np.testing.assert_array_equal(scaled[name], factor * once[name])


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [("vision", -1.0, "at least 0"), ("text", float("nan"), "at least 0"), ("align", float("inf"), "at least 0")],
)
def test_factors_that_cannot_be(field: str, value: float, says: str) -> None:
    config = stage3.get_config("llm=tiny")
    config.optim.groups[field] = value
    with pytest.raises(UserError, match=rf"config\.optim\.groups\.{field}.*{says}"):
        Config.of(config)


def test_nothing_that_trains_is_refused() -> None:
    config = stage1.get_config("llm=tiny")
    config.optim.groups.patch_embed = config.optim.groups.align = 0.0
    with pytest.raises(UserError, match="nothing would train"):
        Config.of(config)


def test_what_is_frozen_by_hand_is_named() -> None:
    """Where the model has none of the groups that are left, or no vision weights to go without the text's."""
    config = stage3.get_config("llm=tiny")
    config.optim.groups.update({"text": 0.0, "vision": 0.0, "patch_embed": 0.0})
    names = [f"config.optim.groups.{name}" for name in ("patch_embed", "text", "vision")]
    for rank in (0, 4):
        config.lora.rank = rank
        with pytest.raises(UserError) as caught:
            Config.of(config).check()
        said = str(caught.value)
        assert said.startswith("nothing would train: ") and all(name in said for name in names)
        assert " are set to 0, and the model has no weights of the other groups (" in said
    dense = stage3.get_config("llm=tiny,variant=dense")
    dense.optim.groups.text = 0.0
    with pytest.raises(UserError, match=r"config\.optim\.groups\.text=0 leaves the vision weights .* has none"):
        Config.of(dense).check()


@pytest.mark.parametrize("parts", SUBSETS, ids=lambda p: "-".join(p) or "none")
@pytest.mark.parametrize("get_config", [stage1.get_config, stage2_1.get_config, stage3.get_config])
def test_any_subset_of_parts_in_every_stage(get_config: Callable[[str], ConfigDict], parts: tuple[str, ...]) -> None:
    config = get_config("llm=tiny")
    config.model.parts = ",".join(reversed(parts)) or "none"
    cfg = ModelConfig.from_dict(config.model.to_dict())
    assert cfg.parts == parts
    factors = group_factors(config.stage, config.optim.groups)
    if config.stage == "2.1" and not parts:
        with pytest.raises(UserError, match="has none"):
            trainable_names(cfg, factors)
        return
    kinds = {"layernorm": "norm.vision", "self_attn": "attn.q.vision", "mlp": "mlp.vision"}
    trains = trainable_names(cfg, factors)
    for part, kind in kinds.items():
        assert any(kind in name for name in trains) == (part in parts and config.stage != "1")


@pytest.mark.parametrize("text", ["layernorms", "mlp,attn", "none,mlp", "", "delta,mlp"])
def test_unknown_parts_are_refused(text: str) -> None:
    config = stage3.get_config("llm=tiny")
    config.model.parts = text
    with pytest.raises(UserError, match="parts"):
        ModelConfig.from_dict(config.model.to_dict())


def test_the_teacher_never_trains() -> None:
    assert Config.of(v1_pretrain.get_config("llm=tiny-llama")).factors["teacher"] == 0.0
