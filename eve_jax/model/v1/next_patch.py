"""EVEv1's aligning loss with the next patch of an image as the target (`ModelConfig.align_target`)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eve_jax.model.config import ModelConfig


def share_of_next(cfg: ModelConfig, index: Int[Array, "R A"], share: Float[Array, "R A"]) -> Float[Array, "R A"]:
    """Return the shares of the places behind which another patch of their image comes, 0 for its last one.

    index: the teacher's patch at each place, among all of the row's images. share: 1 / places of the image.
    """
    assert cfg.teacher is not None
    after, patches = jnp.roll(index, -1, axis=1), cfg.teacher.cells**2
    follows = (after > index) & (after // patches == index // patches) & (jnp.roll(share, -1, axis=1) > 0)
    return jnp.where(follows, share / jnp.maximum(1 - share, 1e-6), 0)
