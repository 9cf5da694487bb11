"""Convolutions of the experts' networks, on [B, H, W, C] with TensorFlow's paddings "SAME" and "VALID"."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(
    x: Float[Array, "B H W C"], kernel: Float[Array, "h w C D"], stride: int, padding: str = "SAME"
) -> Float[Array, "B P Q D"]:
    """Return the convolution of `x` with `kernel`; with SAME, P and Q are H and W divided by `stride`, rounded up."""
    if kernel.shape[:2] == (1, 1) and stride == 1:
        return jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0])
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT)


def convolve_channels(
    x: Float[Array, "B H W C"], kernel: Float[Array, "h w C"], stride: int, padding: str = "SAME"
) -> Float[Array, "B P Q C"]:
    """Return the convolution of each channel of `x` with its own kernel.

    It is the sum of shifted products: XLA's grouped convolution is much slower on a CPU.
    """
    height, width = kernel.shape[:2]
    pads = jax.lax.padtype_to_pads(x.shape[1:3], (height, width), (stride, stride), padding)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    high, wide = ((size - side) // stride + 1 for size, side in zip(padded.shape[1:3], (height, width), strict=True))
    total = jnp.zeros((x.shape[0], high, wide, x.shape[3]), x.dtype)
    for top in range(height):
        for left in range(width):
            ends = (top + stride * (high - 1) + 1, left + stride * (wide - 1) + 1)
            total += padded[:, top : ends[0] : stride, left : ends[1] : stride] * kernel[top, left]
    return total
