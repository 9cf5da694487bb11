"""Tokens in causal order: heads side by side, moved at once; rows of text alone, not at all."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.batch import RowShape
from eve_jax.model.eve import bind
from eve_jax.model.permute import permute, permute_heads
from eve_jax.model.routing import SplitRows
from tests import reference as ref

TEXT = RowShape(0, 0, 128)


def gathers(batch: dict[str, np.ndarray]) -> int:
    """How many gathers a layer's attention takes, forward and backward."""
    cfg = ref.config()
    rows = SplitRows.of(cfg, batch, batch["perm"].shape[1] - batch["text_ids"].shape[1])
    slots = rows.vision_slots, batch["text_ids"].shape[1]
    count = batch["perm"].shape[0]
    q, k = (
        tuple(jnp.ones((count, length, heads, cfg.head_dim)) for length in slots)
        for heads in (cfg.num_heads, cfg.num_kv_heads)
    )

    def attended(q, k, v):
        return rows.attend(q, k, v, None, None)[0]

    def both(q, k, v):
        out, back = jax.vjp(attended, q, k, v)
        return back(out)

    return str(jax.make_jaxpr(both)(q, k, k)).count(" gather[")


def test_heads_move_at_once():
    batch = ref.distributed_run()
    keys = jax.random.split(jax.random.key(0), 3)
    length = batch["perm"].shape[1]
    heads = [
        jax.random.normal(key, (1, length, n, size)) for key, n, size in zip(keys, (4, 2, 2), (8, 8, 4), strict=True)
    ]

    def apart(*heads):
        return [permute(x, batch["perm"], batch["inv"]) for x in heads]

    def at_once(*heads):
        return permute_heads(heads, jnp.asarray(batch["perm"]), jnp.asarray(batch["inv"]))

    (ours, back), (wanted, their) = (jax.vjp(f, *heads) for f in (at_once, apart))
    for mine, theirs in zip([*ours, *back(ours)], [*wanted, *their(wanted)], strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(("which", "expected"), [("images", 4), ("text", 0)])
def test_a_layer_gathers_no_more_than_it_has_to(which, expected):
    """q, k and v once and the output once, and both again on the way back."""
    batch = ref.distributed_run() if which == "images" else ref.stack([ref.row([2, 2], TEXT)])
    assert gathers(batch) == expected


def test_rows_of_text_are_in_causal_order():
    """The same hidden states by either routing, and in a row with room for images."""
    batch = ref.stack([ref.row([2, 2], TEXT)])
    np.testing.assert_array_equal(batch["perm"][0], np.arange(TEXT.length))
    cfg = ref.config()
    params = ref.params(cfg)

    def hidden(cfg, batch):
        return np.asarray(jax.jit(lambda p, b: bind(cfg, p).hidden(b)[0])(params, batch))

    ours = hidden(cfg, batch)
    masked = hidden(dataclasses.replace(cfg, routing="masked"), batch)
    roomy = ref.stack([ref.row([2, 2], ref.TOGETHER)])
    with_room = hidden(cfg, roomy)
    used = 2 * ref.LENGTHS[2]
    wanted = ref.in_causal_order(roomy, with_room, 0, 0, used)
    for theirs in (masked[0, :used], wanted):
        np.testing.assert_allclose(ours[0, :used], theirs, rtol=0, atol=2e-5)
