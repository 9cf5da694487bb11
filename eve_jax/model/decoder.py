"""A decoder layer of the LLM, whose parts may be divided by modality, and the scan over layers (EVEv2, eqs. 1-4)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from eve_jax.model import dropout
from eve_jax.model.attention import ATTENTION
from eve_jax.model.config import ModelConfig
from eve_jax.model.layer_cache import HeldLayer, LayerCache
from eve_jax.model.layers import MLP, HeadNorm, HeadProjection, OutProjection, RMSNorm, gathered, stacked
from eve_jax.model.place_heads import PlaceHeads
from eve_jax.model.routing import Hidden, Routed, Rows
from eve_jax.model.sight import Kind
from eve_jax.model.weight import EXTRA_GROUP, PLACE_GROUP, normal, regroup
from eve_jax.sharding import constrain, one_cpu


class SelfAttention(nnx.Module):
    """Projections of one attention block; the attention itself belongs to the rows."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        part = cfg.divided("self_attn")
        self.q = Routed(lambda: HeadProjection(cfg, cfg.num_heads, rngs), part)
        self.k = Routed(lambda: HeadProjection(cfg, cfg.num_kv_heads, rngs), part)
        self.v = Routed(lambda: HeadProjection(cfg, cfg.num_kv_heads, rngs), part)
        self.o = Routed(lambda: OutProjection(cfg, rngs), part)
        if cfg.qk_norm != "none":
            self.q_norm = Routed(lambda: HeadNorm(cfg, cfg.num_heads, rngs), part)
            self.k_norm = Routed(lambda: HeadNorm(cfg, cfg.num_kv_heads, rngs), part)
        if cfg.rope == "thw":
            self.q_place = Routed(lambda: PlaceHeads(cfg, cfg.num_heads, rngs, taken_from="q"), part, PLACE_GROUP)
            self.k_place = Routed(lambda: PlaceHeads(cfg, cfg.num_kv_heads, rngs, start=0.0), part, PLACE_GROUP)
        # Kernels divide scores by the square root of a query's size.
        self.q_factor = (cfg.qk_dim / (cfg.attention_size or cfg.head_dim)) ** 0.5

    def project(self, x: Hidden, rows: Rows) -> tuple[Hidden, Hidden, Hidden]:
        """Queries, keys and values of normed hidden states."""
        q, k, v = (rows.route(part, x) for part in (self.q, self.k, self.v))
        if hasattr(self, "q_norm"):
            q, k = rows.route(self.q_norm, q), rows.route(self.k_norm, k)
        if hasattr(self, "q_place"):
            q, k = _beside(q, rows.route(self.q_place, x)), _beside(k, rows.route(self.k_place, x))
        if self.q_factor != 1.0:
            q = jax.tree.map(lambda a: a * self.q_factor, q)
        return q, k, v


class DecoderLayer(nnx.Module):
    """x + o(attention(q, k, v)) and x + mlp, each part by the token's modality.

    `cfg.norms`: whether what attention and mlp read is normed (before), or what they give (after), or both.
    """

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        def norm() -> Routed:
            return Routed(lambda: RMSNorm(cfg, rngs), cfg.divided("layernorm"))

        before, after = cfg.norms != "after", cfg.norms != "before"
        self.input_norm = norm() if before else None
        self.attn = SelfAttention(cfg, rngs)
        self.attn_norm = norm() if after else None
        self.post_norm = norm() if before else None
        self.mlp = Routed(lambda: MLP(cfg, rngs), cfg.divided("mlp"))
        self.mlp_norm = norm() if after else None

    def __call__(self, x: Hidden, rows: Rows, kind: Kind, cache: Any = None) -> tuple[Hidden, Any]:
        """One layer of a `kind` on hidden states `x` as `rows` keeps them; returns them with its cache as updated."""

        def normed(norm: Routed | None, y: Hidden) -> Hidden:
            return y if norm is None else rows.route(norm, y)

        out, cache = rows.attend(*self.attn.project(normed(self.input_norm, x), rows), cache, kind)
        x = _add(x, normed(self.attn_norm, rows.route(self.attn.o, out)))
        x = _add(x, normed(self.mlp_norm, rows.route(self.mlp, normed(self.post_norm, x))))
        return x, cache


def _add(x: Hidden, y: Hidden) -> Hidden:
    return jax.tree.map(lambda a, b: a + b, x, y)


def _beside(x: Hidden, y: Hidden) -> Hidden:
    """Heads of the one with those of the other behind them, as one head each."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=-1), x, y)


def stack_layers(cfg: ModelConfig, rngs: nnx.Rngs, count: int) -> DecoderLayer:
    """`count` layers as one module whose weights have a leading layer axis."""
    return stacked(lambda rngs: DecoderLayer(cfg, rngs), count, rngs)


def extra_layers(cfg: ModelConfig, rngs: nnx.Rngs) -> DecoderLayer:
    """The layers that the base LLM does not have, a group of their own: matrices N(0, EXTRA_STD), norms as they are."""
    layers = regroup(stack_layers(cfg, rngs, cfg.extra_layers), EXTRA_GROUP)
    for _, node in nnx.iter_graph(layers):
        if isinstance(node, nnx.Param) and node.weight.role == "matrix":
            value = node.get_value()
            node.set_value(normal(EXTRA_STD)(rngs.params(), value.shape, value.dtype))
    return layers


HeldGroup = Callable[[Array], LayerCache | HeldLayer]  # what is held for a layer of a group, by its number there
EXTRA_STD = 0.02  # of matrices of the extra layers
UNROLLED = 12  # most layers of which a program holds each for itself: compiling takes longer with each
# What the backward pass finds stored, next to each layer's input.
REMAT = {"full": None, "attention": jax.checkpoint_policies.save_only_these_names(ATTENTION)}


def run_layers(
    stacks: Sequence[DecoderLayer], x: Hidden, rows: Rows, remat: str = "none", keep: bool = False
) -> tuple[Hidden, Any]:
    """Scan over stacked layers, one stack after the other.

    Returns the last hidden states and, with `keep`, every layer's output as `rows.leave` gives it: [layers, R, L, D].
    """
    kept, first = [], 0
    for layers in stacks:
        graph, weights = nnx.split(layers)
        own = _own(weights, rows, first)
        x, out = jax.lax.scan(_body(graph, x, rows, remat, keep), x, own, unroll=_at_once(weights))
        kept.append(out)
        first += count_layers(weights)
    return x, jnp.concatenate(kept) if keep else None


def count_layers(weights: nnx.State) -> int:
    """Return how many layers there are of which `weights` are stacked."""
    return jax.tree.leaves(weights)[0].shape[0]


def _own(weights: nnx.State, rows: Rows, first: int = 0) -> tuple[nnx.State, Kind, Array | None]:
    """What each layer has of its own, in a scan over them: weights, kind, and the key of its dropout.

    first: the number of the first one.
    """
    count = count_layers(weights)
    kinds = jax.tree.map(lambda kind: kind[first : first + count], rows.sight.layers())
    return weights, kinds, dropout.layer_keys(count)


def _at_once(weights: nnx.State) -> int:
    """Layers in a turn of the scan's loop: on one CPU all of a small model, which saves a tenth of a step in copies."""
    count = count_layers(weights)
    return count if one_cpu() and count <= UNROLLED else 1


def _body(graph: Any, x: Hidden, rows: Rows, remat: str, keep: bool = False) -> Callable:
    """What a scan over layers does with each, and its `_own`, on hidden states like `x`."""
    dtype = jax.tree.leaves(x)[0].dtype

    def body(x: Hidden, own: tuple[nnx.State, Kind, Array | None]) -> tuple[Hidden, Any]:
        x = jax.tree.map(lambda a: constrain(a, "batch", None, None), x)
        with dropout.use(own[2]):
            x, _ = nnx.merge(graph, gathered(own[0], dtype))(x, rows, own[1])
        return x, rows.leave(x) if keep else None

    return body if remat == "none" else jax.checkpoint(body, policy=REMAT[remat])


def run_tapped(
    layers: DecoderLayer, x: Hidden, rows: Rows, remat: str, every: int, tap: Callable[[Any, Hidden], Array], taps: Any
) -> tuple[Hidden, Array]:
    """The scan of `run_layers` in segments of `every` layers, counted from the last one.

    Before each segment `tap` sees the hidden states and the segment's slice of `taps` (leading axis of segments).
    Returns the last hidden states and what the taps gave, [segments, ...]; nothing else of the layers is kept.
    """
    graph, weights = nnx.split(layers)
    body = _body(graph, x, rows, remat)
    each = _own(weights, rows)
    below = count_layers(weights) % every
    if below:
        x, _ = jax.lax.scan(body, x, jax.tree.map(lambda a: a[:below], each))
    segments = jax.tree.map(lambda a: a[below:].reshape(-1, every, *a.shape[1:]), each)
    tap = jax.checkpoint(tap)

    def segment(x: Hidden, own: tuple[Any, Any]) -> tuple[Hidden, Array]:
        tapped = tap(own[1], x)
        return jax.lax.scan(body, x, own[0])[0], tapped

    return jax.lax.scan(segment, x, (segments, taps))


def in_groups(stacked: Any, groups: int) -> list[Any]:
    """A tree of arrays with a leading layer axis as `groups` trees of consecutive layers, of the same number each."""
    size = jax.tree.leaves(stacked)[0].shape[0] // groups if jax.tree.leaves(stacked) else 0
    part = jax.lax.slice_in_dim  # indices take longer to trace, which hundreds of arrays make felt
    return [jax.tree.map(lambda x, g=g: part(x, g * size, (g + 1) * size), stacked) for g in range(groups)]


Stack = tuple[nnx.GraphDef, nnx.State]  # layers of one kind of module: what they are, and their stacked weights


def extend_layers(
    groups: list[list[Stack]],
    caches: list[tuple[Array, Array]],
    x: Hidden,
    rows: Rows,
    held: list[HeldGroup] | None = None,
) -> tuple[Hidden, list[tuple[Array, Array]]]:
    """The layers on top of a cache of keys and values, group by group; a scan over each stack of a group.

    A layer gets its `LayerCache`, or, with `held`, a pair: what that has for it, which is only read, and its own.
    Returns the last hidden states and the caches as updated.
    """
    updated = []
    kinds = in_groups(rows.sight.layers(), len(groups))
    alone: dict[nnx.GraphDef, Callable] = {}  # layers that are a group each are alike: traced and lowered once
    for number, (group, cache) in enumerate(zip(groups, caches, strict=True)):
        first = 0
        for graph, weights in group:
            count = count_layers(weights)
            layer = partial(_extend_layer, graph, rows)
            if count == 1:
                layer = alone.setdefault(graph, jax.jit(layer))

            def body(
                carry: tuple[Hidden, tuple[Array, Array]],
                own: tuple[nnx.State, Array, Kind],
                layer: Callable = layer,
                number: int = number,
            ) -> tuple[Any, None]:
                return layer(carry, own, None if held is None else held[number](own[1])), None

            each = jnp.arange(first, first + count)
            of_layers = jax.tree.map(lambda k, first=first, count=count: k[first : first + count], kinds[number])
            (x, cache), _ = jax.lax.scan(body, (x, cache), (weights, each, of_layers), unroll=count == 1)
            first += count
        updated.append(cache)
    return x, updated


def _extend_layer(
    graph: nnx.GraphDef,
    rows: Rows,
    carry: tuple[Hidden, tuple[Array, Array]],
    own: tuple[nnx.State, Array, Kind],
    held: LayerCache | HeldLayer | None,
) -> tuple[Hidden, tuple[Array, Array]]:
    """A layer of `extend_layers`: hidden states and the cache after it; `own` are its weights, number and kind."""
    x, cache = carry
    weights, number, kind = own
    recent: Any = LayerCache(*cache, number)
    pair = recent if held is None else (held, recent)
    x, pair = nnx.merge(graph, gathered(weights, jax.tree.leaves(x)[0].dtype))(x, rows, kind, pair)
    recent = pair if held is None else pair[1]
    return x, (recent.keys, recent.values)
