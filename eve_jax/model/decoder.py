"""A decoder layer of the LLM, whose parts may be divided by modality, and the scan over layers (EVEv2, eqs. 1-4)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from eve_jax.model import dropout
from eve_jax.model.attention import ATTENTION
from eve_jax.model.config import ModelConfig
from eve_jax.model.layer_cache import HeldLayer, LayerCache
from eve_jax.model.layers import MLP, RMSNorm, gathered, stacked
from eve_jax.model.routing import Hidden, Routed, Rows
from eve_jax.model.self_attention import SelfAttention
from eve_jax.model.sight import Kind
from eve_jax.model.turns import turns
from eve_jax.model.weight import EXTRA_GROUP, declare, normal, ones, param, regroup
from eve_jax.sharding import constrain, one_cpu


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
        one = param(cfg, rngs, (1,), (None,), ones, "norm") if cfg.layer_scale else None
        self.scale = None if one is None else declare(one, "text", works_on="all")

    def __call__(self, x: Hidden, rows: Rows, kind: Kind, cache: Any = None) -> tuple[Hidden, Any]:
        """One layer of a `kind` on hidden states `x` as `rows` keeps them; returns them with its cache as updated."""

        def normed(norm: Routed | None, y: Hidden) -> Hidden:
            return y if norm is None else rows.route(norm, y)

        out, cache = rows.attend(*self.attn.project(normed(self.input_norm, x), rows), cache, kind)
        x = _add(x, normed(self.attn_norm, rows.route(self.attn.o, out)))
        x = _add(x, normed(self.mlp_norm, rows.route(self.mlp, normed(self.post_norm, x))))
        if self.scale is not None:  # a constant, as in transformers
            scale = jax.lax.stop_gradient(self.scale[...])
            x = jax.tree.map(lambda a: a * scale.astype(a.dtype), x)
        return x, cache


def _add(x: Hidden, y: Hidden) -> Hidden:
    return jax.tree.map(lambda a, b: a + b, x, y)


def stack_layers(cfg: ModelConfig, rngs: nnx.Rngs, count: int) -> DecoderLayer:
    """`count` layers as one module whose weights have a leading layer axis."""
    return stacked(lambda rngs: DecoderLayer(cfg, rngs), count, rngs)


class TurnLayers(nnx.Module):
    """Layers of several kinds that take turns (`eve_jax.model.turns`): those of each place in a turn are stacked."""

    def __init__(self, cfg: ModelConfig, rngs: nnx.Rngs):
        self.places = len(cfg.layer_kinds)
        for place, own in enumerate(turns(cfg)):
            setattr(self, f"turn{place}", stack_layers(own, rngs, cfg.num_layers // self.places))

    @property
    def each(self) -> list[DecoderLayer]:
        """The layers of each place."""
        return [getattr(self, f"turn{place}") for place in range(self.places)]


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
INPUT = "layer_input"  # name under which remat policies know a layer's input
# What the backward pass finds stored, next to each layer's input; with `host` both wait in the host's memory.
REMAT = {
    "full": None,
    "attention": jax.checkpoint_policies.save_only_these_names(ATTENTION),
    "host": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[INPUT, ATTENTION],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


def run_layers(
    stacks: Sequence[Sequence[DecoderLayer]], x: Hidden, rows: Rows, remat: str = "none", keep: bool = False
) -> tuple[Hidden, Any]:
    """Scan over stacked layers, one stack after the other; of each, layers of several modules take turns.

    Returns the last hidden states and, with `keep`, every layer's output as `rows.leave` gives it: [layers, R, L, D].
    """
    kept, first = [], 0
    for modules in stacks:
        graphs, states = zip(*map(nnx.split, modules), strict=True)
        count = count_layers(states[0])
        own = tuple(_own(weights, rows, first) for weights in states)
        x, out = jax.lax.scan(_body(graphs, x, rows, remat, keep), x, own, unroll=_at_once(count, len(modules)))
        kept.append(jax.tree.map(lambda each: each.reshape(-1, *each.shape[2:]), out))
        first += count * len(modules)
    return x, jnp.concatenate(kept) if keep else None


def count_layers(weights: nnx.State) -> int:
    """Return how many layers there are of which `weights` are stacked."""
    return jax.tree.leaves(weights)[0].shape[0]


Own = tuple[nnx.State, Kind, Array | None]


def _own(weights: nnx.State, rows: Rows, first: int = 0) -> Own:
    """What each layer has of its own, in a scan over them: weights, kind, and the key of its dropout.

    first: the number of the first one.
    """
    count = count_layers(weights)
    kinds = jax.tree.map(lambda kind: kind[first : first + count], rows.sight.layers())
    return weights, kinds, dropout.layer_keys(count)


def _at_once(count: int, turns: int = 1) -> int:
    """Turns of a scan that are one of its loop: on one CPU all of a small model, which saves a tenth of a step."""
    return count if one_cpu() and count * turns <= UNROLLED else 1


def _body(graphs: Sequence[Any], x: Hidden, rows: Rows, remat: str, keep: bool = False) -> Callable:
    """What a scan does with the layers of a turn, and the `_own` of each, on hidden states like `x`."""
    dtype = jax.tree.leaves(x)[0].dtype

    def layer(x: Hidden, own: Own, place: int) -> tuple[Hidden, Any]:
        x = jax.tree.map(lambda a: checkpoint_name(constrain(a, "batch", None, None), INPUT), x)
        with dropout.use(own[2]):
            kind = own[1] if len(graphs) == 1 else rows.sight.of_layers[place]
            x, _ = nnx.merge(graphs[place], gathered(own[0], dtype))(x, rows, kind)
        return x, rows.leave(x) if keep else None

    one = layer if remat == "none" else jax.checkpoint(layer, policy=REMAT[remat], static_argnums=2)

    def body(x: Hidden, turn: tuple[Own, ...]) -> tuple[Hidden, Any]:
        kept = []
        for place, own in enumerate(turn):
            x, out = one(x, own, place)
            kept.append(out)
        return x, jnp.stack(kept) if keep else None

    return body


def run_tapped(
    layers: DecoderLayer, x: Hidden, rows: Rows, remat: str, every: int, tap: Callable[[Any, Hidden], Array], taps: Any
) -> tuple[Hidden, Array]:
    """The scan of `run_layers` in segments of `every` layers, counted from the last one.

    Before each segment `tap` sees the hidden states and the segment's slice of `taps` (leading axis of segments).
    Returns the last hidden states and what the taps gave, [segments, ...]; nothing else of the layers is kept.
    """
    graph, weights = nnx.split(layers)
    body = _body([graph], x, rows, remat)
    each = (_own(weights, rows),)
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


class Stack(NamedTuple):
    """Layers of one kind of module: what they are, their stacked weights; their kind, where others take turns."""

    graph: nnx.GraphDef
    weights: nnx.State
    kind: int | None


Turns = list[Stack]  # of the same number of layers each
Grown = tuple[nnx.State, Array, Kind]  # of a layer on top of a cache: weights, number, kind


def grouped(stacks: Sequence[Sequence[DecoderLayer]], kinds: Sequence[int], groups: int) -> list[list[Turns]]:
    """The layers as `extend_layers` takes them, in one group or in a group for each (`groups`).

    kinds: of the layers of a stack that take turns, none where they do not.
    """
    own: Sequence[int | None] = kinds or [None]
    given = [
        [Stack(*nnx.split(layers), kind) for layers, kind in zip(modules, own, strict=False)] for modules in stacks
    ]
    if groups == 1:
        return [given]
    each = [
        [[stack._replace(weights=one)]]
        for turns in given
        for turn in zip(*(in_groups(s.weights, count_layers(s.weights)) for s in turns), strict=True)
        for stack, one in zip(turns, turn, strict=True)
    ]
    assert len(each) == groups, "one group, or one for each layer"
    return each


def extend_layers(
    groups: list[list[Turns]],
    caches: list[tuple[Array, Array]],
    x: Hidden,
    rows: Rows,
    held: list[HeldGroup] | None = None,
) -> tuple[Hidden, list[tuple[Array, Array]]]:
    """The layers on top of a cache of keys and values, group by group; a scan over the turns of each of a group.

    A layer gets its `LayerCache`, or, with `held`, a pair: what that has for it, which is only read, and its own.
    Returns the last hidden states and the caches as updated.
    """
    updated = []
    kinds = in_groups(rows.sight.layers(), len(groups))
    alone: dict[Any, Callable] = {}  # layers that are a group each are alike: traced and lowered once
    for number, (group, cache) in enumerate(zip(groups, caches, strict=True)):
        first = 0
        for stacks in group:
            count, each_turn = count_layers(stacks[0].weights), len(stacks)
            alike = tuple((stack.graph, stack.kind) for stack in stacks)
            turn: Callable = partial(_extend_turn, alike, rows)
            if count == 1:
                turn = alone.setdefault(alike, jax.jit(turn))

            def body(
                carry: tuple[Hidden, tuple[Array, Array]],
                own: tuple[Grown, ...],
                turn: Callable = turn,
                number: int = number,
            ) -> tuple[Any, None]:
                return turn(carry, own, tuple(None if held is None else held[number](one[1]) for one in own)), None

            places = first + jnp.arange(count * each_turn).reshape(count, each_turn)
            of_layers = jax.tree.map(lambda k, first=first, count=count: k[first : first + count], kinds[number])
            each = tuple((stack.weights, places[:, turn], of_layers) for turn, stack in enumerate(stacks))
            (x, cache), _ = jax.lax.scan(body, (x, cache), each, unroll=count == 1)
            first += count * each_turn
        updated.append(cache)
    return x, updated


def _extend_turn(
    alike: tuple[tuple[nnx.GraphDef, int | None], ...],
    rows: Rows,
    carry: tuple[Hidden, tuple[Array, Array]],
    own: tuple[Grown, ...],
    held: tuple[LayerCache | HeldLayer | None, ...],
) -> tuple[Hidden, tuple[Array, Array]]:
    """A turn of `extend_layers`, of whose layers `alike` has module and kind; hidden states and the cache after it."""
    x, cache = carry
    dtype = jax.tree.leaves(x)[0].dtype
    for (graph, own_kind), (weights, place, kind), before in zip(alike, own, held, strict=True):
        kind = kind if own_kind is None else own_kind
        fold = rows.sight.fold(kind)
        recent: Any = LayerCache(*cache, place, fold)
        pair = recent if before is None else (before._replace(fold=fold), recent)
        x, pair = nnx.merge(graph, gathered(weights, dtype))(x, rows, kind, pair)
        recent = pair if before is None else pair[1]
        cache = recent.keys, recent.values
    return x, cache
