"""The vision tower of CLIP, frozen: the teacher of EVEv1's patch aligning layer.

Dimensions: B images, G patches of an image, C width, N heads, H head size.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from eve_jax.model.attention import plain_attention
from eve_jax.model.config import ClipConfig, ModelConfig
from eve_jax.model.layers import LayerNorm, Linear, gathered, in_use, stacked
from eve_jax.model.patch_embed import normalised
from eve_jax.model.weight import normal, param


class ClipLayer(nnx.Module):
    """Pre-norm attention over all patches and a two-layer MLP."""

    def __init__(self, cfg: ModelConfig, clip: ClipConfig, rngs: nnx.Rngs):
        c, f = clip.hidden_size, clip.intermediate_size
        self.heads, self.act = clip.num_heads, clip.hidden_act
        self.norm1 = LayerNorm(cfg, rngs, c, clip.layer_norm_eps)
        self.q, self.k, self.v, self.out = (Linear(cfg, rngs, c, c) for _ in range(4))
        self.norm2 = LayerNorm(cfg, rngs, c, clip.layer_norm_eps)
        self.up, self.down = Linear(cfg, rngs, c, f), Linear(cfg, rngs, f, c)

    def __call__(self, x: Float[Array, "B G C"]) -> Float[Array, "B G C"]:
        h = self.norm1(x)
        q, k, v = (part(h).reshape(*h.shape[:2], self.heads, -1) for part in (self.q, self.k, self.v))
        x = x + self.out(plain_attention(q, k, v, jnp.ones((1, 1, 1), bool)).reshape(h.shape))
        h = self.up(self.norm2(x))
        h = h * jax.nn.sigmoid(1.702 * h) if self.act == "quick_gelu" else jax.nn.gelu(h, approximate=False)
        return x + self.down(h)


class ClipEmbed(nnx.Module):
    """Patch convolution, class token and learned positions."""

    def __init__(self, cfg: ModelConfig, clip: ClipConfig, rngs: nnx.Rngs):
        self.clip, self.dtype = clip, jnp.dtype(cfg.dtype)
        c, size = clip.hidden_size, 3 * clip.patch_size**2
        self.conv = param(cfg, rngs, (size, c), (None, "patch"), normal((3 * size) ** -0.5), "matrix")
        self.class_token = param(cfg, rngs, (c,), (None,), normal(c**-0.5), "table")
        self.position = param(cfg, rngs, (clip.cells**2 + 1, c), (None, "patch"), normal(0.02), "table")
        self.norm = LayerNorm(cfg, rngs, c, clip.layer_norm_eps)

    def __call__(self, images: UInt8[Array, "B S S 3"]) -> Float[Array, "B G C"]:
        n, p = self.clip.cells, self.clip.patch_size
        blocks = images.reshape(-1, n, p, n, p, 3).swapaxes(2, 3).reshape(-1, n * n, 3 * p * p)
        x = normalised(blocks).astype(self.dtype) @ self.conv[...]
        first = jnp.broadcast_to(self.class_token[...], (x.shape[0], 1, x.shape[2]))
        return self.norm(jnp.concatenate([first, x], axis=1) + self.position[...])


class ClipVision(nnx.Module):
    """The tower; its last layer and norm are there to be complete, EVEv1 does not look at them."""

    def __init__(self, cfg: ModelConfig, clip: ClipConfig, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(cfg.dtype)
        self.embed = ClipEmbed(cfg, clip, rngs)
        self.layers = stacked(lambda rngs: ClipLayer(cfg, clip, rngs), clip.num_layers, rngs)
        self.post_norm = LayerNorm(cfg, rngs, clip.hidden_size, clip.layer_norm_eps)  # of the class token

    def __call__(self, images: UInt8[Array, "B S S 3"], drop: int = 1) -> Float[Array, "B G C"]:
        """The residual stream before the last `drop` layers: the class token, then the patches row by row.

        EVEv1 learns from the patches with `drop` 1 (layer -2 of the original's count).
        """
        x = in_use(self.embed, self.dtype)(images)
        graph, weights = nnx.split(self.layers)

        def body(x: Array, layer: nnx.State) -> tuple[Array, None]:
            return nnx.merge(graph, gathered(layer, self.dtype))(x), None

        kept = jax.tree.map(lambda a: a[: a.shape[0] - drop], weights)
        return jax.lax.scan(body, x, kept)[0]
