"""The encoder of a VQGAN, which makes an image a grid of codes (docs/model.md#patch-embedding-by-codes).

One module with a few numbers is the encoder of SBER-MoVQGAN, Kandinsky's movq, Chameleon, LlamaGen and Janus.

Dimensions: B images, S pixels a side, h rows and columns of codes, C channels.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int32, UInt8

from eve_jax.errors import Field, FieldError
from eve_jax.model.clip_config import DEEPEST, LARGEST
from eve_jax.process.section import Section, setting

GROUPS, EPS = 32, 1e-6  # of every GroupNorm
EXACT = jax.lax.Precision.HIGHEST  # a code is decided by small differences


@dataclass(frozen=True)
class VqConfig(Section):
    """Sizes of the encoder, by default those of SBER-MoVQGAN 67M and Kandinsky 2.2.

    multipliers: channels of each level as multiples of `channels`; a level has half the side of the one before. blocks:
    residual blocks of a level. attention: whether blocks of the last level have attention. latent: channels that the
    encoder ends with. code_dim, codes: of the table of codes. cosine: whether codes are compared by their angle
    (LlamaGen) instead of their distance.
    """

    PATH = "vq."

    image_size: int = setting(256, low=1, high=LARGEST)
    channels: int = setting(128, low=1, high=LARGEST, multiple=GROUPS)
    multipliers: tuple[int, ...] = setting((1, 2, 2, 4), low=1, high=LARGEST)
    blocks: int = setting(2, low=1, high=DEEPEST)
    attention: bool = True
    latent: int = setting(4, low=1, high=LARGEST)
    code_dim: int = setting(4, low=1, high=LARGEST)
    codes: int = setting(16_384, low=1, high=1 << 15)
    cosine: bool = False

    def check(self) -> None:
        """Raise FieldError for sizes that do not fit each other."""
        if not self.multipliers:
            raise FieldError(Field("vq.multipliers"), " is empty: name the levels' multiples of the channels")
        if self.image_size % self.patch:
            text = f"={self.image_size} is not a multiple of the {self.patch} pixels of a code"
            raise FieldError(Field("vq.image_size"), text)

    @property
    def patch(self) -> int:
        """Pixels along a side that a code stands for."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def cells(self) -> int:
        """Codes along a side of an image."""
        return self.image_size // self.patch


def _conv(rngs: nnx.Rngs, width: int, out: int, side: int = 3) -> nnx.Conv:
    return nnx.Conv(width, out, (side, side), padding="SAME", precision=EXACT, rngs=rngs)


def _norm(rngs: nnx.Rngs, width: int) -> nnx.GroupNorm:
    return nnx.GroupNorm(width, GROUPS, epsilon=EPS, use_fast_variance=False, rngs=rngs)


class Residual(nnx.Module):
    """x + two times norm, swish, convolution; x by a convolution of one pixel where the channels change."""

    def __init__(self, rngs: nnx.Rngs, width: int, out: int):
        self.norm1, self.conv1 = _norm(rngs, width), _conv(rngs, width, out)
        self.norm2, self.conv2 = _norm(rngs, out), _conv(rngs, out, out)
        self.shortcut = _conv(rngs, width, out, 1) if width != out else None

    def __call__(self, x: Float[Array, "B h h C"]) -> Float[Array, "B h h D"]:
        y = self.conv1(nnx.swish(self.norm1(x)))
        y = self.conv2(nnx.swish(self.norm2(y)))
        return y + (x if self.shortcut is None else self.shortcut(x))


class Attention(nnx.Module):
    """x + attention of one head over all pixels of the normed x."""

    def __init__(self, rngs: nnx.Rngs, width: int):
        self.norm = _norm(rngs, width)
        self.q, self.k, self.v, self.out = (_conv(rngs, width, width, 1) for _ in range(4))

    def __call__(self, x: Float[Array, "B h h C"]) -> Float[Array, "B h h C"]:
        y, (rows, h, w, width) = self.norm(x), x.shape
        q, k, v = (part(y).reshape(rows, h * w, width) for part in (self.q, self.k, self.v))
        weights = jax.nn.softmax(jnp.einsum("BQC,BKC->BQK", q, k, precision=EXACT) * width**-0.5, axis=-1)
        return x + self.out(jnp.einsum("BQK,BKC->BQC", weights, v, precision=EXACT).reshape(x.shape))


class Level(nnx.Module):
    """Residual blocks, with attention after each if asked for, and a convolution that halves the side."""

    def __init__(self, rngs: nnx.Rngs, width: int, out: int, blocks: int, attends: bool, halves: bool):
        widths = [width] + [out] * (blocks - 1)
        self.blocks = nnx.List([Residual(rngs, n, out) for n in widths])
        self.attention = nnx.List([Attention(rngs, out) for _ in range(blocks if attends else 0)])
        conv = partial(nnx.Conv, padding=((0, 1), (0, 1)), strides=2, precision=EXACT, rngs=rngs)
        self.halve = conv(out, out, (3, 3)) if halves else None

    def __call__(self, x: Float[Array, "B h h C"]) -> Float[Array, "B i i D"]:
        for number, block in enumerate(self.blocks):
            x = block(x)
            if len(self.attention):
                x = self.attention[number](x)
        return x if self.halve is None else self.halve(x)


class VqEncoder(nnx.Module):
    """Pixels to codes, float32."""

    def __init__(self, cfg: VqConfig, rngs: nnx.Rngs):
        self.cfg = cfg
        widths = [cfg.channels * n for n in (1, *cfg.multipliers)]
        self.first = _conv(rngs, 3, cfg.channels)
        last = len(cfg.multipliers) - 1
        self.levels = nnx.List(
            [
                Level(rngs, widths[n], widths[n + 1], cfg.blocks, cfg.attention and n == last, n < last)
                for n in range(last + 1)
            ]
        )
        width = widths[-1]
        self.middle = nnx.List([Residual(rngs, width, width), Attention(rngs, width), Residual(rngs, width, width)])
        self.norm, self.last = _norm(rngs, width), _conv(rngs, width, cfg.latent)
        self.project = _conv(rngs, cfg.latent, cfg.code_dim, 1)
        self.table = nnx.Param(jax.random.normal(rngs.params(), (cfg.codes, cfg.code_dim)))

    def latents(self, images: UInt8[Array, "B S S 3"]) -> Float[Array, "B h h C"]:
        """What is compared with the table, for RGB images."""
        x = self.first(images.astype(jnp.float32) / 127.5 - 1)
        for level in self.levels:
            x = level(x)
        for block in self.middle:
            x = block(x)
        return self.project(self.last(nnx.swish(self.norm(x))))

    def __call__(self, images: UInt8[Array, "B S S 3"]) -> Int32[Array, "B h h"]:
        """The number of the code that is nearest to each latent, the first of several."""
        z, table = self.latents(images), self.table[...]
        if self.cfg.cosine:
            z, table = (x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12) for x in (z, table))
        squares = jnp.sum(z**2, axis=-1, keepdims=True) + jnp.sum(table**2, axis=-1)
        return jnp.argmin(squares - 2 * jnp.einsum("BhwC,QC->BhwQ", z, table, precision=EXACT), axis=-1)


def vq_shapes(cfg: VqConfig) -> dict[str, Any]:
    """Return shape and dtype of every parameter of the encoder, by its name."""
    state = nnx.state(nnx.eval_shape(lambda: VqEncoder(cfg, nnx.Rngs(0))), nnx.Param)
    return {".".join(map(str, path)): v.get_value() for path, v in nnx.to_flat_state(state)}


@partial(jax.jit, static_argnums=0)
def codes_of(cfg: VqConfig, params: dict[str, Array], images: UInt8[Array, "B S S 3"]) -> Int32[Array, "B h h"]:
    """Return the codes of images by the encoder with `params`, names as `vq_shapes` has them."""
    module = nnx.eval_shape(lambda: VqEncoder(cfg, nnx.Rngs(0)))
    graph, state, *rest = nnx.split(module, nnx.Param, ...)
    flat = {path: v.replace(params[".".join(map(str, path))]) for path, v in nnx.to_flat_state(state)}
    return nnx.merge(graph, nnx.from_flat_state(list(flat.items())), *rest)(images)
