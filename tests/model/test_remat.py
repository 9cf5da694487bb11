"""What layers keep for the backward pass in the host's memory."""

import dataclasses

import jax
import numpy as np

from eve_jax.train.step import Sums, gradient_sums
from tests import reference as ref


def test_layers_wait_in_the_hosts_memory():
    """The layers' inputs and the attention's output; losses and gradients as without, bit for bit."""
    cfg, batch = ref.config(), ref.distributed_run()
    params = ref.params(cfg)

    def sums(remat: str) -> tuple[Sums, str]:
        traced = jax.jit(gradient_sums, static_argnums=0).trace(
            dataclasses.replace(cfg, remat=remat), params, {}, batch
        )
        return traced.lower().compile()(params, {}, batch), str(traced.jaxpr)

    (kept, ours), (at_hand, theirs) = sums("host"), sums("attention")
    for stacked in ("[3,1,32,64]", "[3,1,96,64]", "[3,1,128,4,16]"):  # vision, text, attention's output, of all layers
        assert f"f32<host>{stacked}" in ours and f"f32{stacked}" not in ours
        assert f"f32{stacked}" in theirs
    for mine, other in zip(jax.tree.leaves(kept), jax.tree.leaves(at_hand), strict=True):
        np.testing.assert_array_equal(mine, other)
