"""The equations of a decoder layer's parts: RMSNorm, projections, gated feed-forward.

Dimensions: B rows, T tokens, D hidden size, N query heads, K key/value heads, H head size, F feed-forward size.
Every weight declares what it is in one place (`eve_jax.model.weight.param`); shardings derive from its axes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from eve_jax.model.config import DELTA, ModelConfig
from eve_jax.model.lora import adapted
from eve_jax.model.product import computed_once, product
from eve_jax.model.quantized import is_quantized
from eve_jax.model.weight import constant, normal, ones, param, zeros
from eve_jax.sharding import constrain, gather

GATE = 0.1  # where the gate of a delta starts: tanh(1) = 0.76
M = TypeVar("M", bound=nnx.Module)
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}


def gathered(weights: nnx.State, dtype: jnp.dtype) -> nnx.State:
    """The weights of one layer in `dtype`, each gathered from where it is stored (see `sharding.gather`).

    Quantized ones keep their types.
    """

    def of(variable: nnx.Variable) -> nnx.Variable:
        value, axes = variable.get_value(), variable.axes
        if is_quantized(value):
            return variable.replace(jax.tree.map(lambda part: gather(part, axes, part.dtype), value))
        return variable.replace(gather(value, axes, dtype))

    return jax.tree.map(of, weights, is_leaf=lambda v: isinstance(v, nnx.Variable))


def in_use(module: nnx.Module, dtype: jnp.dtype) -> Any:
    """`module` with its weights gathered in `dtype`, as `gathered` has them."""
    graph, weights = nnx.split(module)
    return nnx.merge(graph, gathered(weights, dtype))


def stacked(make: Callable[[nnx.Rngs], M], count: int, rngs: nnx.Rngs) -> M:
    """`count` modules as one whose weights have a leading axis of layers."""
    return nnx.split_rngs(splits=count)(nnx.vmap(in_axes=0, out_axes=0)(make))(rngs)


class RMSNorm(nnx.Module):
    """x / rms(x) * scale over the last axis; the mean square is taken in float32.

    With `norm_plus_one` (Gemma) the weight is `offset`, the scale less one, which is added in float32. `width` and
    `axis`: of the last axis, by default that of hidden states.
    """

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs, width: int = 0, axis: str | None = None):
        self.eps = cfg.rms_norm_eps
        shape, axes = (width or cfg.hidden_size,), (axis,)
        if cfg.norm_plus_one:
            self.offset = param(cfg, rngs, shape, axes, zeros, "bias")
        else:
            self.scale = param(cfg, rngs, shape, axes, ones, "norm")

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        if hasattr(self, "offset"):
            return (normed * (1 + self.offset[...].astype(jnp.float32))).astype(x.dtype)
        return normed.astype(x.dtype) * self.scale[...].astype(x.dtype)


class HeadNorm(RMSNorm):
    """RMSNorm of queries or keys: of each head for itself, or with `qk_norm` projection of all heads together."""

    def __init__(self, cfg: ModelConfig, heads: int, rngs: nnx.Rngs):
        self.together = cfg.qk_norm == "projection"
        width, axis = (heads * cfg.head_dim, "heads") if self.together else (cfg.head_dim, None)
        super().__init__(cfg, rngs, width, axis)

    def __call__(self, x: Float[Array, "B T N H"]) -> Float[Array, "B T N H"]:
        if not self.together:
            return super().__call__(x)
        normed = super().__call__(x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])).reshape(x.shape)
        return constrain(normed, "batch", None, "heads", None)


class LayerNorm(nnx.Module):
    """(x - mean(x)) / std(x) * scale + bias over the last axis, in float32 (EVEv1's own parts and CLIP)."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs, width: int, eps: float = 1e-5):
        self.eps = eps
        self.scale = param(cfg, rngs, (width,), (None,), ones, "norm")
        self.bias = param(cfg, rngs, (width,), (None,), zeros, "bias")

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B C"]:
        x32 = x.astype(jnp.float32)
        x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return normed.astype(x.dtype) * self.scale[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class Linear(nnx.Module):
    """x @ kernel + bias, the kernel [in, out] with its rows sharded; `use`: fields of `Weight`, of the kernel."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs, width: int, out: int, bias: bool = True, **use: Any):
        self.kernel = param(cfg, rngs, (width, out), ("embed", None), normal((3 * width) ** -0.5), "matrix", **use)
        if bias:
            self.bias = param(cfg, rngs, (out,), (None,), zeros, "bias")

    def __call__(self, x: Float[Array, "*B C"]) -> Float[Array, "*B O"]:
        y = adapted(self, "kernel", x, product(x, self.kernel[...]))
        return y + self.bias[...].astype(x.dtype) if hasattr(self, "bias") else y


class HeadProjection(nnx.Module):
    """Hidden states to heads, with a bias where the backbone has one (Qwen2: q, k, v).

    The kernel is a matrix, [D, N H]: accelerators would pad an axis of a few heads.
    """

    def __init__(self, cfg: ModelConfig, heads: int, rngs: nnx.Rngs):
        self.heads = heads
        width = heads * cfg.head_dim
        init = normal(cfg.hidden_size**-0.5)
        self.kernel = param(cfg, rngs, (cfg.hidden_size, width), ("embed", "heads"), init, "matrix")
        if cfg.qkv_bias:
            self.bias = param(cfg, rngs, (width,), ("heads",), zeros, "bias")

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T N H"]:
        y = adapted(self, "kernel", x, product(x, self.kernel[...]))
        if hasattr(self, "bias"):
            y = y + self.bias[...].astype(x.dtype)
        return constrain(y.reshape(*y.shape[:-1], self.heads, y.shape[-1] // self.heads), "batch", None, "heads", None)


class OutProjection(nnx.Module):
    """Heads back to hidden states by a kernel [N H, D], no bias."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        fan_in = cfg.num_heads * cfg.head_dim
        init = normal((2 * cfg.num_layers * fan_in) ** -0.5)
        self.kernel = param(cfg, rngs, (fan_in, cfg.hidden_size), ("head_rows", None), init, "matrix")

    def __call__(self, x: Float[Array, "B T N H"]) -> Float[Array, "B T D"]:
        x = x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
        return adapted(self, "kernel", x, product(x, self.kernel[...]))


class GatedDelta(nnx.Module):
    """A learned addition to a weight, W + tanh(10 g) dW with a scalar g (ReP; docs/model.md#the-family).

    dW starts at zero, so the model starts as the LLM; g starts at GATE, where dW has a gradient from the first step.
    It works on all tokens and trains with the vision weights, in whose place it stands.
    """

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs, shape: tuple[int, int], axes: tuple[str | None, ...], to: str):
        """`to`: the attribute, in the module that this is made for, of the weight that it is added to."""
        self.weight = param(cfg, rngs, shape, axes, zeros, "delta", group="vision", start=0.0, adds_to=to)
        self.gate = param(cfg, rngs, (1,), (None,), constant(GATE), "gate", group="vision", start=GATE, adds_to=to)

    def __call__(self, weight: Float[Array, "D F"]) -> Float[Array, "D F"]:
        return folded(weight, self.weight[...], self.gate[...])


def folded(weight: Array, delta: Array, gate: Float[Array, "*L 1"]) -> Array:
    """`weight` + tanh(10 `gate`) `delta`, in float32; weights may be stacked over layers [L, D, F]."""
    return weight.astype(jnp.float32) + jnp.tanh(10 * gate.astype(jnp.float32))[..., None] * delta.astype(jnp.float32)


class MLP(nnx.Module):
    """SwiGLU or GeGLU: down(act(gate(x)) * up(x)), no biases; up and down may carry gated deltas."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        d, f = cfg.hidden_size, cfg.intermediate_size
        self.gate = param(cfg, rngs, (d, f), ("embed", "mlp"), normal(d**-0.5), "matrix")
        self.up = param(cfg, rngs, (d, f), ("embed", "mlp"), normal(d**-0.5), "matrix")
        init = normal((2 * cfg.num_layers * f) ** -0.5)
        self.down = param(cfg, rngs, (f, d), ("mlp_rows", None), init, "matrix", ends_layer=cfg.norms == "before")
        self.activation = ACTIVATIONS[cfg.activation]
        if DELTA in cfg.parts:
            self.delta_up = GatedDelta(cfg, rngs, (d, f), ("embed", "mlp"), "up")
            self.delta_down = GatedDelta(cfg, rngs, (f, d), ("mlp_rows", None), "down")

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        up_weight, down_weight = self.up[...], self.down[...]
        if hasattr(self, "delta_up"):
            up_weight, down_weight = self.delta_up(up_weight), self.delta_down(down_weight)
        gate = adapted(self, "gate", x, product(x, self.gate[...]))
        hidden = self.activation(gate) * adapted(self, "up", x, product(x, up_weight))
        hidden = computed_once(constrain(hidden, "batch", None, "mlp"))
        return adapted(self, "down", hidden, product(hidden, down_weight))
