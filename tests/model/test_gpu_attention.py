"""The kernels of accelerators, lowered for machines that are not here: what is called, and how often in a step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax._src.cudnn import fused_attention_stablehlo as fused

from eve_jax.model import gpu_attention
from eve_jax.model.attention import packed_attention
from eve_jax.model.chunked import plain_attention
from eve_jax.model.decoder import REMAT
from eve_jax.model.gpu_attention import MOST_SAMPLES, sequences, takes, tiles

CALLS = {"flash": "__gpu$xla.gpu.triton", "splash": "tpu_custom_call", "cudnn": "__cudnn$fmha"}
PLATFORMS = {"flash": "cuda", "splash": "tpu", "cudnn": "cuda"}
H100 = (9, 0)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that jax's checks of cuDNN find."""
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91100)
    monkeypatch.setattr(fused, "check_compute_capability", lambda _: True)
    monkeypatch.setattr("eve_jax.model.gpu_attention.compute_capability", lambda: H100)


def lowered(kernel: str, remat: str, heads: int = 4, kv_heads: int = 2, size: int = 128) -> str:
    """The gradient of a scan over two layers for the kernel's platform, as text."""

    def layer(x: Array, weight: Array, segment: Array) -> tuple[Array, None]:
        q = (x @ weight).reshape(*x.shape[:2], heads, size)
        k = q[:, :, :kv_heads]
        return packed_attention(q, k, k, segment, kernel).reshape(x.shape), None

    def loss(x: Array, weights: Array, segment: Array) -> Array:
        body: Callable[..., Any] = partial(layer, segment=segment)
        body = body if remat == "none" else jax.checkpoint(body, policy=REMAT[remat])
        return jnp.sum(jax.lax.scan(body, x, weights)[0].astype(jnp.float32))

    width = heads * size
    shapes = [((2, 256, width), jnp.bfloat16), ((2, width, width), jnp.bfloat16), ((2, 256), jnp.int32)]
    traced = jax.jit(jax.grad(loss, (0, 1))).trace(*(jax.ShapeDtypeStruct(*shape) for shape in shapes))
    return traced.lower(lowering_platforms=(PLATFORMS[kernel],)).as_text()


@pytest.mark.parametrize(("kernel", "calls"), [("flash", (4, 3, 3)), ("splash", (4, 3, 3)), ("cudnn", (3, 2, 2))])
def test_kernels_lower_and_are_not_called_again(kernel: str, calls: tuple[int, int, int], hopper: None) -> None:
    """A forward and a backward pass (flash, splash: of two kernels), and with remat=full a forward pass again."""
    for remat, wanted in zip(("full", "attention", "none"), calls, strict=True):
        assert lowered(kernel, remat).count(f"@{CALLS[kernel]}") == wanted, remat


@pytest.mark.parametrize("heads", [(28, 4, 128), (14, 2, 64), (32, 8, 128)])
def test_cudnn_lowers_for_the_heads_of_llms(heads: tuple[int, int, int], hopper: None) -> None:
    assert "max_seg_per_batch" in lowered("cudnn", "attention", *heads)


def packed(q: Array, k: Array, v: Array, q_seqlen: Array, q_offsets: Array) -> Array:
    """What the arguments of jax's cuDNN attention ask for, by the plain formula."""
    at = jnp.arange(q.shape[1])[None, :, None]
    start, end = q_offsets[:, None, :-1], q_offsets[:, None, :-1] + q_seqlen[:, None]
    inside = (at >= start) & (at < end) & (q_seqlen[:, None] > 0)
    same = jnp.einsum("BTM,BSM->BTS", inside, inside, preferred_element_type=jnp.int32) > 0
    return plain_attention(q, k, v, same & (at >= at.swapaxes(1, 2)))


def test_the_sequences_that_cudnn_is_given_are_the_samples(monkeypatch: pytest.MonkeyPatch, hopper: None) -> None:
    """With cuDNN's own part by the plain formula; sums are marked by sequence and place, and must come back so."""
    segment = np.repeat(np.array([[1, 1, 2, 3, 3, 0], [7, 7, 7, 7, 7, 7]]), 16, axis=1).astype(np.int32)
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, d_out = (jax.random.normal(key, (2, 96, n, 8)) for key, n in zip(keys, (4, 2, 2, 4), strict=True))
    marks = jnp.arange(2 * MOST_SAMPLES * 96.0).reshape(2 * MOST_SAMPLES, 1, 96) + jnp.zeros((1, 4, 1))
    seen: list[Array] = []

    def forward(q: Array, k: Array, v: Array, q_seqlen: Array, q_offsets: Array, **_: Any) -> tuple[Array, Array]:
        return packed(q, k, v, q_seqlen, q_offsets), marks

    def backward(*given: Any) -> tuple[Array, ...]:
        *_, (q, k, v, _, q_seqlen, _, q_offsets, _, _, _, sums, _), d_out = given
        seen.append(sums)
        return jax.vjp(lambda q, k, v: packed(q, k, v, q_seqlen, q_offsets), q, k, v)[1](d_out)

    monkeypatch.setattr(fused, "dot_product_attention", forward)
    monkeypatch.setattr(fused, "_dot_product_attention_bwd_rule", backward)
    monkeypatch.setattr(jax.lax, "cond", lambda few, yes, no, *x: yes(*x) if few else no(*x))
    order = np.arange(96)
    mask = (segment[:, :, None] == segment[:, None]) & (order[:, None] >= order)
    wanted, pull = jax.vjp(lambda q, k, v: plain_attention(q, k, v, jnp.asarray(mask)), q, k, v)
    got, own_pull = jax.vjp(lambda q, k, v: gpu_attention.cudnn(q, k, v, jnp.asarray(segment), H100), q, k, v)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    for ours, theirs in zip(own_pull(d_out), pull(d_out), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    lengths = (32, 16, 32, 16, 96)  # of the sequences of both rows, one after the other
    for number, length in enumerate(lengths):
        np.testing.assert_array_equal(seen[0][number, :, :length], marks[number, :, :length])


def test_sequences_as_jax_documents_them() -> None:
    count, lengths, offsets = sequences(jnp.array([[1, 2, 3], [1, 1, 0]]))
    np.testing.assert_array_equal(count, [3, 2])
    np.testing.assert_array_equal(lengths[:, :4], [[1, 1, 1, -1], [2, 1, -1, -1]])
    np.testing.assert_array_equal(offsets[:, :4], [[0, 1, 2, -1], [0, 2, -1, -1]])
    assert sequences(jnp.arange(200)[None])[0] == 200


@pytest.mark.parametrize(
    ("card", "size", "item", "wanted"),
    [
        ((9, 0), 128, 2, (128, 64)),
        ((8, 0), 128, 2, (64, 64)),  # 128 would take 160 KiB of 163
        ((8, 9), 128, 2, (64, 32)),
        ((8, 9), 64, 2, (128, 64)),
        ((9, 0), 128, 4, (64, 64)),
        ((8, 0), 128, 4, (32, 32)),
        ((7, 5), 128, 2, (32, 32)),
        ((0, 0), 128, 4, (16, 16)),
        ((10, 0), 80, 2, (128, 64)),
    ],
)
def test_tiles_fit_the_card(card: tuple[int, int], size: int, item: int, wanted: tuple[int, int]) -> None:
    assert tiles(size, item, card) == wanted


def test_what_cudnn_takes() -> None:
    half, single = np.dtype(jnp.bfloat16), np.dtype(np.float32)
    assert takes(half, 128, (9, 0)) and takes(half, 80, (10, 0))
    assert not (takes(half, 128, (8, 9)) or takes(single, 128, (9, 0)) or takes(half, 12, (9, 0)))
