"""Adapters: gradients by modality, what they leave alone, where they lie, what they cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from eve_jax import sharding
from eve_jax.checkpoint.adapters import adapted_by, merge
from eve_jax.model import dropout
from eve_jax.model.config import VARIANTS, ModelConfig
from eve_jax.model.eve import abstract_params, adapters, declared, init_adapters, init_params, parameter_shardings
from eve_jax.model.weight import groups
from eve_jax.train.flops import products
from eve_jax.train.step import gradient_sums
from tests import reference as ref
from tests import reference_v1 as v1
from tests.model.adapters import adapter_values, with_adapters

VISION = ("text", "vision", "patch_embed")


def projected(plain: ModelConfig, params: dict, batch: dict) -> None:
    """Compare the gradients of adapters with those of the merged weights, projected on A and B."""
    has = {w.group for w in declared(plain).values() if w.role == "matrix"}
    cfg = with_adapters(plain, tuple(group for group in VISION if group in has))
    own = adapter_values(cfg)
    assert cfg.lora is not None
    found = jax.jit(lambda own, params: gradient_sums(cfg, own, params, batch))(own, params)
    merged_cfg, merged = merge(cfg, {**params, **own})
    assert merged_cfg == plain
    full = jax.jit(lambda params: gradient_sums(plain, params, {}, batch))(merged)
    np.testing.assert_allclose(found.loss, full.loss, rtol=1e-6)
    assert {declared(cfg)[name].group for name in found.grads} == set(cfg.lora.groups)
    for matrix, names in adapted_by(cfg).items():
        a, b, grad = own[names["lora_a"]], own[names["lora_b"]], cfg.lora.scale * full.grads[matrix]
        for role, wanted in (
            ("lora_a", jnp.einsum("...df,...rf->...dr", grad, b)),
            ("lora_b", jnp.einsum("...dr,...df->...rf", a, grad)),
        ):
            largest = float(jnp.abs(wanted).max())
            assert largest > 1e-3, f"{names[role]} has no gradient"
            np.testing.assert_allclose(found.grads[names[role]], wanted, rtol=0, atol=1e-5 * largest)


def test_gradients_are_the_weights_own_projected() -> None:
    """Those of the vision adapters and of the patch embedding's, too, are not zero."""
    cfg = ref.config()
    projected(cfg, ref.params(cfg), ref.alone())


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "routing"), [("dac", "masked"), ("moe", "split"), ("dense", "split")])
def test_gradients_of_other_variants(variant: str, routing: str) -> None:
    cfg = ref.config(VARIANTS[variant], routing)
    projected(cfg, ref.params(cfg), ref.alone())


@pytest.mark.slow
def test_gradients_of_eve_v1_and_of_rep() -> None:
    cfg = v1.config("D1")
    projected(cfg, v1.params(cfg, "D1"), v1.alone("D1"))
    rep = ref.config(VARIANTS["rep"], name="C")
    projected(rep, ref.params(rep, "C"), ref.alone())


def test_begin_as_the_base_and_leave_other_weights_as_they_are() -> None:
    plain = ref.config()
    cfg = with_adapters(plain, seed=3)
    params, own = ref.params(plain), init_adapters(cfg)
    with_both = init_params(cfg, 5, "patch_embed")
    for name, value in init_params(plain, 5, "patch_embed").items():
        np.testing.assert_array_equal(value, with_both[name], err_msg=name)
    _, merged = merge(cfg, params | own)
    for name, value in params.items():
        np.testing.assert_array_equal(value, merged[name], err_msg=name)
    a = np.asarray(own["layers.attn.q.vision.lora_kernel.a"])
    assert 0.9 * 64**-0.5 < np.abs(a).max() <= 64**-0.5 and len(np.unique(a)) == a.size


@pytest.mark.parametrize("kind", [*VARIANTS, "v1"])
@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2), (1, 1, 4)])
def test_every_adapter_has_a_place_on_every_mesh(kind: str, sizes: tuple[int, int, int]) -> None:
    """Moments are as large as adapters, so they are divided where the matrices are."""
    plain = v1.config("D1") if kind == "v1" else ref.config(VARIANTS[kind])
    cfg = with_adapters(plain, tuple(g for g in groups() if g not in ("align", "teacher")))
    mesh = AbstractMesh(sizes, sharding.AXES)
    places, shapes = parameter_shardings(cfg, mesh), abstract_params(cfg)
    for name in adapters(cfg):
        parts = np.prod(shapes[name].shape) / np.prod(places[name].shard_shape(shapes[name].shape))
        assert parts >= sizes[1] or 4 % sizes[1], name


def test_flops_are_of_a_frozen_base() -> None:
    """A gradient of the input for each matrix of the layers, and both gradients for the adapters."""
    plain = ref.config()
    trains = frozenset(VISION)
    before, after = products(plain, trains), products(with_adapters(plain), trains)
    layers = [p for p in after if p.routed and p.flops in {q.flops for q in before if q.routed}]
    assert {p.backward for p in layers} == {1}
    own = [p for p in after if p.routed and p not in layers]
    assert {p.backward for p in own} == {2} and len(own) == 2 * len(layers)


def test_dropout_follows_the_key() -> None:
    x = jnp.ones((64, 64))

    def out(seed: int) -> np.ndarray:
        with dropout.use(jax.random.key(seed)):
            return np.stack([dropout.dropped(x, 0.25), dropout.dropped(x, 0.25)])

    first = out(1)
    np.testing.assert_array_equal(first, out(1))
    assert (first != out(2)).any() and (first[0] != first[1]).any()
    assert set(np.unique(first)) == {0, np.float32(4 / 3)}
    assert abs((first == 0).mean() - 0.25) < 0.02
    assert dropout.dropped(x, 0.25) is x, "outside of training"
