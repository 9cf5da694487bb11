"""Attention kernels against the plain formula: values and gradients, over rows of several samples and pads."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from eve_jax.errors import UserError
from eve_jax.model import attention, blocked, chunked
from eve_jax.model.attention import cached_attention, check_kernel
from eve_jax.model.layer_cache import BLOCK, HeldLayer
from eve_jax.model.splash import kernel_of
from tests import reference as ref

ROWS, LENGTH, HEADS, KV_HEADS, SIZE = 2, 256, 4, 2, 128
SEGMENT = np.zeros((ROWS, LENGTH), np.int32)
SEGMENT[0, :90], SEGMENT[0, 90:200] = 1, 2  # then pads
SEGMENT[1, :] = 1


def inputs(length: int = LENGTH) -> tuple[Array, Array, Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(ROWS, length, heads, SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    q, k, v = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))
    return q, k, v


def plain(q: Array, k: Array, v: Array, segment: np.ndarray, window: int = LENGTH) -> Array:
    order = np.arange(segment.shape[1])
    mask = (segment[:, :, None] == segment[:, None]) & (order[:, None] >= order) & (order[:, None] - order < window)
    return chunked.plain_attention(q, k, v, jnp.asarray(mask))


def gradients(attend: Callable[..., Array], q: Array, k: Array, v: Array, segment: np.ndarray) -> tuple[Array, ...]:
    shape = *q.shape[:3], v.shape[3]
    weight = jax.random.normal(jax.random.key(1), shape) * (segment > 0)[..., None, None]
    return jax.grad(lambda *x: jnp.sum(attend(*x, segment) * weight), (0, 1, 2))(q, k, v)


CASES = [*((kernel, 0) for kernel in ("chunked", "blocked", "splash", "flash"))]
CASES += [("chunked", 40), ("blocked", 40), ("blocked", 33), ("splash", 130)]


@pytest.mark.parametrize(("kernel", "window"), CASES)
def test_kernels_agree_with_the_formula(kernel, window, monkeypatch):
    monkeypatch.setattr(chunked, "QUERY_CHUNK", 64)
    monkeypatch.setattr(blocked, "BLOCK", 32)

    def attend(q: Array, k: Array, v: Array, segment: np.ndarray) -> Array:
        return attention.packed_attention(q, k, v, jnp.asarray(segment), kernel, True, window)

    def formula(q: Array, k: Array, v: Array, segment: np.ndarray) -> Array:
        return plain(q, k, v, segment, window or LENGTH)

    q, k, v = inputs()
    real = SEGMENT > 0
    got, wanted = attend(q, k, v, SEGMENT), formula(q, k, v, SEGMENT)
    np.testing.assert_allclose(np.asarray(got)[real], np.asarray(wanted)[real], rtol=0, atol=2e-5)
    assert np.isfinite(np.asarray(got)).all(), "pads, too"
    ours, golden = (gradients(f, q, k, v, SEGMENT) for f in (attend, formula))
    for mine, theirs in zip(ours, golden, strict=True):
        scale = np.abs(theirs).max() or np.abs(golden[2]).max()  # a token that sees itself alone: of q and k, zeros
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * scale)


IMAGES = (
    (0, 10, 75),
    (0, 76, 80),
    (0, 100, 190),
    (1, 0, 1),
    (1, 20, 131),
    (1, 131, 256),
)  # row, first, behind the last
END = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
for row, first, behind in IMAGES:
    END[row, first:behind] = behind - 1


@pytest.mark.parametrize("kernel", ["chunked", "blocked", "splash"])
@pytest.mark.parametrize("reach", [124, LENGTH])
def test_images_that_see_all_of_themselves(kernel: str, reach: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images across borders of blocks, behind one another, up to the ends of rows; values of half a query's size."""
    monkeypatch.setattr(chunked, "QUERY_CHUNK", 64)
    monkeypatch.setattr(blocked, "BLOCK", 32)
    mask = (SEGMENT[:, :, None] == SEGMENT[:, None]) & (np.arange(LENGTH) <= END[:, :, None])
    q, k, v = inputs()
    v = v[..., : SIZE // 2]

    def attend(q: Array, k: Array, v: Array, segment: np.ndarray) -> Array:
        ahead = attention.Ahead(jnp.asarray(END), reach)
        return attention.packed_attention(q, k, v, jnp.asarray(segment), kernel, True, ahead=ahead)

    def formula(q: Array, k: Array, v: Array, segment: np.ndarray) -> Array:
        return chunked.plain_attention(q, k, v, jnp.asarray(mask))

    got, wanted = (jax.jit(f)(q, k, v, SEGMENT) for f in (attend, formula))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=5e-6)
    ours, golden = (jax.jit(partial(gradients, f))(q, k, v, SEGMENT) for f in (attend, formula))
    for mine, theirs in zip(ours, golden, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


def test_the_image_rule_visits_few_more_tiles() -> None:
    """At most 1.4 times those of causal attention, in a row of 4,096 tokens with images of 1,024, back and forth."""
    causal, image = (kernel_of(4096, 2, 0, reach) for reach in (0, 1023))
    for name in ("fwd_mask_info", "dq_mask_info", "dkv_mask_info"):
        few, more = (int((getattr(kernel, name).block_mask > 0).sum()) for kernel in (causal, image))
        assert few < more <= 1.4 * few, name


def test_kernels_for_plain_attention_alone_are_refused() -> None:
    assert attention.kernel_for("auto", "gpu", LENGTH, SIZE, cudnn=True, plain=False) == "chunked"
    with pytest.raises(UserError, match=r"=cudnn is for causal attention with heads of one size .*: use auto"):
        attention.kernel_for("cudnn", "gpu", LENGTH, SIZE, plain=False)


def test_auto_takes_what_suits_the_processor():
    q, k, v = inputs(96)  # no multiple of a tile
    segment = SEGMENT[:, :96]
    for platform in ("tpu", "gpu"):
        kernel = attention.BY_PLATFORM[platform]
        assert attention.kernel_for(kernel="auto", platform=platform, length=LENGTH, head_size=SIZE) == kernel
        assert attention.kernel_for(kernel="auto", platform=platform, length=96, head_size=SIZE) == "chunked"
        assert attention.kernel_for(kernel="auto", platform=platform, length=LENGTH, head_size=80) == "chunked"
    assert attention.kernel_for("auto", "gpu", LENGTH, SIZE, window=16) == "chunked"
    with pytest.raises(UserError, match=r"=flash has no local windows .*window=16"):
        attention.kernel_for("flash", "gpu", LENGTH, SIZE, window=16)
    assert blocked.window_sizes(64, window=128) == [1, 2] and blocked.window_sizes(64, window=130) == [1, 2, 3]
    for length, kernel in ((LENGTH, "cudnn"), (96, "chunked")):
        assert attention.kernel_for("auto", "gpu", length, 80, cudnn=True) == kernel
    for length, kernel in ((640, "blocked"), (256, "chunked"), (650, "chunked")):
        assert attention.kernel_for(kernel="auto", platform="cpu", length=length, head_size=SIZE) == kernel
    got = attention.packed_attention(q, k, v, jnp.asarray(segment))
    np.testing.assert_allclose(got, plain(q, k, v, segment), rtol=0, atol=2e-5)


def test_memory_under_a_scan_over_layers_is_linear(monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK", 64)

    def loss(x: Array, weights: Array, segment: Array) -> Array:
        def layer(x: Array, weight: Array) -> tuple[Array, None]:
            return x + attention.packed_attention(x * weight, x, x, segment, "blocked"), None

        return jnp.sum(jax.lax.scan(layer, x, weights)[0])

    def temporaries(length: int) -> int:
        x, segment = jnp.zeros((1, length, 1, 8)), jnp.zeros((1, length), jnp.int32)
        lowered = jax.jit(jax.grad(loss)).lower(x, jnp.ones(2), segment)
        memory = lowered.compile().memory_analysis()
        assert memory
        return memory.temp_size_in_bytes

    assert temporaries(2048) < 2.3 * temporaries(1024)


class Device(NamedTuple):
    platform: str
    compute_capability: str = ""
    process_index: int = 0


def checked(kernel: str, platform: str, card: str = "", **changes: Any) -> None:
    """`check_kernel` of a model with `kernel` on one device."""
    mesh = SimpleNamespace(devices=np.array([None]), size=1)
    mesh.devices[0] = Device(platform, card)
    check_kernel(replace(ref.config(), attention=kernel, **changes), cast(Any, mesh))


@pytest.mark.parametrize(
    ("kernel", "platform"), [("flash", "cpu"), ("splash", "gpu"), ("splash", "cpu"), ("flash", "tpu"), ("cudnn", "tpu")]
)
def test_a_kernel_of_another_platform_is_refused(kernel: str, platform: str) -> None:
    with pytest.raises(UserError, match=rf"config\.model\.attention={kernel} runs on .*, and these devices are"):
        checked(kernel, platform)


@pytest.mark.parametrize(
    ("card", "changes"), [("8.0", {"dtype": "bfloat16"}), ("9.0", {}), ("9.0", {"dtype": "bfloat16", "head_dim": 12})]
)
def test_cudnn_is_refused_where_it_does_not_take_the_heads(card: str, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"config\.model\.attention=cudnn takes bfloat16, heads of .*: use auto"):
        checked("cudnn", "gpu", card, **changes)
    checked("cudnn", "gpu", "10.0", dtype="bfloat16", head_dim=64)


@pytest.mark.parametrize(
    ("kernel", "platform"),
    [("auto", "cpu"), ("chunked", "tpu"), ("blocked", "gpu"), ("flash", "gpu"), ("splash", "tpu")],
)
def test_kernels_that_a_platform_has(kernel: str, platform: str) -> None:
    checked(kernel, platform)


@pytest.mark.parametrize("window", [0, 3, 150])
@pytest.mark.parametrize("slots", [None, (2, 0)])
def test_blocks_of_a_cache_are_attended_to_as_one(slots, window):
    """Rows of several lengths, none and beyond a block included; what lies behind them has no part, were it huge."""
    rng = np.random.default_rng(0)
    rows, heads, kv_heads, size, new, room = (2 if slots else 3), 4, 2, 8, 5, 3 * BLOCK
    length = np.array([2 * BLOCK + 7, 0, BLOCK], np.int32)[:rows]
    keys = rng.normal(size=(2, 3, kv_heads, size, room)).astype(np.float32)
    values = rng.normal(size=(2, 3, kv_heads, room, size)).astype(np.float32)
    taken = np.array(slots if slots else range(3))
    for slot, held in zip(taken, length, strict=True):
        keys[:, slot, :, :, held:], values[:, slot, :, held:] = 1e30, 1e30
    q = rng.normal(size=(rows, new, heads, size)).astype(np.float32)
    own_keys = rng.normal(size=(rows, kv_heads, size, new)).astype(np.float32)
    last = np.tile(np.arange(new), (rows, 1))
    first = length[:, None] + last - window + 1 if window else None
    own = own_keys, own_keys.swapaxes(2, 3), last, last - window + 1 if window else None
    held = keys[1][taken], values[1][taken], np.repeat(length[:, None] - 1, new, 1), first
    expected = cached_attention(*jax.tree.map(jnp.asarray, (q, [held, own])))

    @jax.jit
    def attended(keys, values, q, length, first, own):
        return HeldLayer(keys, values, 1, jnp.array(slots) if slots else None).attend(q, length, first, own)

    found = attended(keys, values, q, length, first, own)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
