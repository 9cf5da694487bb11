"""Products of bfloat16 on a CPU, by float32 results where the processor has instructions; results that a TPU keeps."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.model import product as module
from eve_jax.model.product import computed_once, product
from eve_jax.process.cpu_flags import has_flag


@pytest.fixture(params=[False, True], ids=["without", "with"])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the processor has such instructions."""
    monkeypatch.setattr(module, "has_flag", lambda name: request.param and name == "avx512_bf16")
    return bool(request.param)


def test_values_and_gradients(fast: bool) -> None:
    """As in float64, each rounded to bfloat16: 8 bits of each."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((2, 40, 96), (96, 72), (2, 40, 72))
    x, weight, g = (jax.random.normal(key, shape, jnp.bfloat16) for key, shape in zip(keys, shapes, strict=True))
    y, back = jax.vjp(product, x, weight)
    wide = [np.asarray(value, np.float64) for value in (x, weight, g)]
    exact = (
        wide[0] @ wide[1],
        wide[2] @ wide[1].T,
        np.einsum("btd,btf->df", wide[0], wide[2]),
    )
    for found, known in zip((y, *back(g)), exact, strict=True):
        assert found.dtype == jnp.bfloat16
        assert found.shape == known.shape
        np.testing.assert_allclose(np.asarray(found, np.float64), known, rtol=2**-8, atol=2e-2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_product_of_a_float32_result(fast: bool, dtype: str) -> None:
    x, weight = jnp.ones((4, 8), dtype), jnp.ones((8, 4), dtype)
    text = str(jax.make_jaxpr(jax.grad(lambda x: product(x, weight).astype(jnp.float32).sum()))(x))
    assert ("preferred_element_type=bfloat16" in text) == (dtype == "bfloat16" and not fast)
    assert ("preferred_element_type=float32" in text) == (dtype == "float32" or fast)


@pytest.mark.parametrize(("platform", "barriers"), [("tpu", 1), ("cpu", 0)])
def test_the_factor_of_a_product_is_written_once_on_a_tpu(
    platform: str, barriers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way there has a barrier and the way back none; value and gradient are as without."""
    monkeypatch.setattr(module, "platform", lambda: platform)
    x, weight = jnp.arange(8.0), jnp.arange(8.0)

    def loss(x: jax.Array) -> jax.Array:
        return jnp.dot(computed_once(jnp.sin(x)), weight)

    assert str(jax.make_jaxpr(jax.grad(loss))(x)).count("optimization_barrier") == barriers
    np.testing.assert_array_equal(jax.grad(loss)(x), weight * jnp.cos(x))
    assert loss(x) == jnp.dot(jnp.sin(x), weight)


def test_flags(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16\nbugs\t: x\n\nprocessor\t: 1\nflags\t\t: fpu avx2\n")
    assert [has_flag(name, info) for name in ("fpu", "avx512_bf16", "avx2")] == [True, False, False]
    assert not has_flag("fpu", tmp_path / "none")
