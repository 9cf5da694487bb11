"""Sizes of splash attention's tiles, as they are given and as they fit rows; the kernel with other than its own."""

import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.errors import UserError
from eve_jax.model import attention
from eve_jax.model.splash_blocks import NAMES, Kernel, block_sizes, parse_blocks
from tests.model.test_attention import SEGMENT, gradients, inputs, plain


def test_sizes_are_given_by_name_or_for_all():
    assert parse_blocks("") == {}
    assert parse_blocks("1024") == dict.fromkeys(NAMES, 1024)
    assert parse_blocks("q:1024, kv_compute:256") == {"q": 1024, "kv_compute": 256}


@pytest.mark.parametrize("text", ["100", "q:0", "queries:128", "q:128,q:256", "512,q:128", "q=128", "-128", "q:"])
def test_other_sizes_are_refused(text):
    with pytest.raises(UserError, match=r"config\.model\.attention_blocks="):
        parse_blocks(text)


def test_tiles_divide_rows():
    assert block_sizes((), 5120) == dict.fromkeys(NAMES, 512)
    assert block_sizes((), 640) == dict.fromkeys(NAMES, 128)
    large = block_sizes(tuple(parse_blocks("2048").items()), 5120)
    assert large == dict.fromkeys(NAMES, 1280)
    parts = block_sizes((("kv", 1024), ("kv_compute", 768)), 8192)
    assert (parts["q"], parts["kv"], parts["kv_compute"]) == (512, 1024, 512)


def test_the_kernel_with_tiles_of_several_sizes():
    kernel = Kernel("splash", tuple(parse_blocks("q:128,kv:256,kv_compute:128,q_dkv:256,q_dq:128,kv_dq:256").items()))
    q, k, v = inputs()

    def attend(q, k, v, segment):
        return attention.packed_attention(q, k, v, jnp.asarray(segment), kernel, True)

    real = SEGMENT > 0
    got, wanted = attend(q, k, v, SEGMENT), plain(q, k, v, SEGMENT)
    np.testing.assert_allclose(np.asarray(got)[real], np.asarray(wanted)[real], rtol=0, atol=2e-5)
    for mine, theirs in zip(gradients(attend, q, k, v, SEGMENT), gradients(plain, q, k, v, SEGMENT), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
