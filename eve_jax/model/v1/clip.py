"""The vision tower of CLIP: the frozen teacher of EVEv1's patch aligning layer, or a model's vision encoder.

Dimensions: B images, G patches of an image, C width, N heads, H head size, E bytes of a patch.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from eve_jax.model.chunked import plain_attention
from eve_jax.model.clip_config import ClipConfig
from eve_jax.model.config import ModelConfig
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
        init = normal((3 * size) ** -0.5)
        self.conv = param(cfg, rngs, (size, c), (None, "patch"), init, "matrix", input_grad=False)
        self.class_token = param(cfg, rngs, (c,), (None,), normal(c**-0.5), "table")
        self.position = param(cfg, rngs, (clip.cells**2 + 1, c), (None, "patch"), normal(0.02), "table")
        self.norm = LayerNorm(cfg, rngs, c, clip.layer_norm_eps)

    def cut(self, images: UInt8[Array, "B S S 3"]) -> UInt8[Array, "B G E"]:
        """The patches of `images`, row by row, each as (y, x, channel)."""
        n, p = self.clip.cells, self.clip.patch_size
        return images.reshape(-1, n, p, n, p, 3).swapaxes(2, 3).reshape(-1, n * n, 3 * p * p)

    def __call__(self, patches: UInt8[Array, "B G E"]) -> Float[Array, "B G+1 C"]:
        x = normalised(patches).astype(self.dtype) @ self.conv[...]
        first = jnp.broadcast_to(self.class_token[...], (x.shape[0], 1, x.shape[2]))
        return self.norm(jnp.concatenate([first, x], axis=1) + self.position[...])


class ClipVision(nnx.Module):
    """The tower; its last layer and norm are there to be complete, EVEv1 does not look at them."""

    def __init__(self, cfg: ModelConfig, clip: ClipConfig, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(cfg.dtype)
        self.embed = ClipEmbed(cfg, clip, rngs)
        self.layers = stacked(lambda rngs: ClipLayer(cfg, clip, rngs), clip.num_layers, rngs)
        self.post_norm = LayerNorm(cfg, rngs, clip.hidden_size, clip.layer_norm_eps)  # of the class token

    def __call__(self, images: UInt8[Array, "B S S 3"], drop: int = 1) -> Float[Array, "B G+1 C"]:
        """`of_patches` of complete images."""
        return self.of_patches(self.embed.cut(images), drop)

    def of_patches(self, patches: UInt8[Array, "B G E"], drop: int = 1, remat: bool = False) -> Float[Array, "B G+1 C"]:
        """The residual stream before the last `drop` layers: the class token, then the patches row by row.

        EVEv1 and LLaVA-1.5 use the patches with `drop` 1 (layer -2 of the originals' count). remat: layers are computed
        again in the backward pass.
        """
        x = in_use(self.embed, self.dtype)(patches)
        graph, weights = nnx.split(self.layers)

        def body(x: Array, layer: nnx.State) -> tuple[Array, None]:
            return nnx.merge(graph, gathered(layer, self.dtype))(x), None

        kept = jax.tree.map(lambda a: a[: a.shape[0] - drop], weights)
        return jax.lax.scan(jax.checkpoint(body) if remat else body, x, kept)[0]
