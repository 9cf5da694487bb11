"""Tokens in causal order: heads side by side, moved at once; rows of text alone, not at all."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eve_jax.batch import RowShape
from eve_jax.model import permute as permute_module
from eve_jax.model.eve import bind
from eve_jax.model.permute import for_attention, for_projection, permute, to_causal, to_slots
from eve_jax.model.routing import SplitRows
from tests import reference as ref

TEXT = RowShape(0, 0, 128)


def gathered_rows(batch: dict[str, np.ndarray]) -> float:
    """How many whole rows of tokens a layer's attention gathers, forward and backward."""
    cfg = ref.config()
    rows = SplitRows.of(cfg, batch, batch["perm"].shape[1] - batch["text_ids"].shape[1])
    slots = rows.vision_slots, batch["text_ids"].shape[1]
    count, length = batch["perm"].shape
    q, k = (
        tuple(jnp.ones((count, length, heads, cfg.head_dim)) for length in slots)
        for heads in (cfg.num_heads, cfg.num_kv_heads)
    )

    def attended(q, k, v):
        return rows.attend(q, k, v, None, None)[0]

    def both(q, k, v):
        out, back = jax.vjp(attended, q, k, v)
        return back(out)

    shapes = re.findall(r":f32\[([\d,]*)\] = gather\[", str(jax.make_jaxpr(both)(q, k, k)))
    return sum(int(shape.split(",")[1]) for shape in shapes) / length


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_heads_move_at_once(platform, monkeypatch):
    """To the values and gradients of each array moved for itself, also where heads part by slices, and back again."""
    monkeypatch.setattr(permute_module, "platform", lambda: platform)
    batch = ref.distributed_run()
    perm, inv = jnp.asarray(batch["perm"]), jnp.asarray(batch["inv"])
    keys = jax.random.split(jax.random.key(0), 3)
    length, vision = batch["perm"].shape[1], batch["perm"].shape[1] - batch["text_ids"].shape[1]
    sizes = zip(keys, (4, 2, 2), (128, 128, 64), strict=True)
    heads = [jax.random.normal(key, (1, length, n, size)) for key, n, size in sizes]

    def alone(*heads):
        return [permute(x, perm, inv) for x in heads]

    def at_once(*heads):
        return to_causal([(x[:, :vision], x[:, vision:]) for x in heads], perm, inv)

    def there_and_back(*heads):
        return [jnp.concatenate(to_slots(x, perm, inv, vision), axis=1) for x in at_once(*heads)]

    (ours, back), (wanted, their) = (jax.vjp(f, *heads) for f in (at_once, alone))
    for mine, theirs in zip([*ours, *back(wanted)], [*wanted, *their(wanted)], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    in_order, back_in_order = jax.vjp(lambda *heads: [for_projection(x) for x in for_attention(heads)], *heads)
    for mine, theirs in zip([*in_order, *back_in_order(wanted)], [*heads, *wanted], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    same, back = jax.vjp(there_and_back, *heads)
    for mine, theirs in zip([*same, *back(wanted)], [*heads, *wanted], strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(("platform", "size", "slices"), [("cpu", 128, 0), ("tpu", 128, 1), ("tpu", 64, 0)])
def test_heads_of_whole_lanes_part_by_slices_on_a_tpu(platform, size, slices, monkeypatch):
    """Without an array of the whole size for each head on the way back."""
    monkeypatch.setattr(permute_module, "platform", lambda: platform)
    batch = ref.distributed_run()
    vision = batch["perm"].shape[1] - batch["text_ids"].shape[1]
    perm, inv = jnp.asarray(batch["perm"]), jnp.asarray(batch["inv"])
    pair = tuple(jnp.ones((1, slots, 4, size)) for slots in (vision, perm.shape[1] - vision))

    def moved(pair):
        (x,) = to_causal([pair], perm, inv)
        return to_slots(x, perm, inv, vision)

    program = str(jax.make_jaxpr(lambda pair: jax.vjp(moved, pair)[1](pair))(pair))
    assert (" transpose[" in program) == bool(slices)
    assert " pad[" not in program


@pytest.mark.parametrize(("which", "expected"), [("images", 4), ("text", 0)])
def test_a_layer_gathers_no_more_than_it_has_to(which, expected):
    """q, k and v once and the output once, and both again on the way back."""
    batch = ref.distributed_run() if which == "images" else ref.stack([ref.row([2, 2], TEXT)])
    assert gathered_rows(batch) == expected


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
