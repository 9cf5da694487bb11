"""Weights whose attention heads a mesh with more tensor shards than key/value heads divides (`head_groups`).

They are those of another model with the same outputs; nothing else knows of it.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array

from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import LAYERS, Params, logical_axes
from eve_jax.model.head_groups import grouped_heads
from eve_jax.model.quantized import is_quantized, refined
from eve_jax.sharding import parameter_sharding, shards

OF_HEADS = ("heads", "head_rows")  # logical axes that heads lie along
# Heads [..., groups, heads of each, H, ...] to others; `axis` is that of a group's heads, `of_kv` true for k and v.
Change = Callable[..., Array]


def regrouped_sizes(cfg: ModelConfig, mesh: Mesh | None) -> ModelConfig:
    """Sizes of the model whose heads `mesh` divides; `cfg` itself where it divides them as they are.

    Raises UserError for heads that cannot be filled up.
    """
    parts = shards(mesh, "heads")
    heads, kv_heads = grouped_heads(cfg.num_heads, cfg.num_kv_heads, parts)
    if kv_heads == cfg.num_kv_heads:
        return cfg
    if cfg.in_turns:
        raise UserError(
            f"tensor:{parts} does not divide {cfg.num_kv_heads} key/value heads, which other layers have of another "
            "size: use fewer tensor shards"
        )
    if cfg.qk_norm == "projection" and heads != cfg.num_heads:  # heads of zeros would count in their mean
        raise UserError(
            f"tensor:{parts} does not divide {cfg.num_heads} query heads, which this model norms together: use fewer "
            "tensor shards"
        )
    return dataclasses.replace(cfg, num_heads=heads, num_kv_heads=kv_heads)


def regrouped(cfg: ModelConfig, params: Params, mesh: Mesh | None) -> tuple[ModelConfig, Params]:
    """Sizes and weights of a model with the same outputs whose heads `mesh` divides.

    `params` lie on the mesh; those that have no heads are shared. (cfg, params) themselves where the mesh divides the
    heads as they are.
    """
    new = regrouped_sizes(cfg, mesh)
    copies, most = new.num_kv_heads // cfg.num_kv_heads, new.num_heads // cfg.num_kv_heads

    def change(heads: Array, axis: int, of_kv: bool) -> Array:
        if of_kv:
            return jnp.repeat(heads, copies, axis=axis)
        lacking = [(0, 0)] * heads.ndim
        lacking[axis] = (0, most - heads.shape[axis])
        return jnp.pad(heads, lacking)

    return new, _changed(cfg, new, params, mesh, change)


def as_given(cfg: ModelConfig, new: ModelConfig, params: Params, mesh: Mesh | None) -> Params:
    """The weights of sizes `cfg` that `regrouped` made those of sizes `new` from, on `mesh`."""
    each = cfg.num_heads // cfg.num_kv_heads

    def change(heads: Array, axis: int, of_kv: bool) -> Array:
        return jax.lax.slice_in_dim(heads, 0, 1 if of_kv else each, axis=axis)

    return _changed(new, cfg, params, mesh, change, cfg.num_kv_heads)


def _changed(
    cfg: ModelConfig, new: ModelConfig, params: Params, mesh: Mesh | None, change: Change, groups: int = 0
) -> Params:
    """`params` of sizes `cfg` with `change` made to the heads of each of `groups` (0: `cfg.num_kv_heads`)."""
    if new == cfg or mesh is None:
        return params
    out = dict(params)
    for name, axes in logical_axes(cfg).items():
        part = name.split(".")
        if name.startswith(LAYERS) and part[1] == "attn" and set(axes) & set(OF_HEADS):
            axis = next(number for number, logical in enumerate(axes) if logical in OF_HEADS)
            of_kv = part[2] in ("k", "v", "k_norm", "k_place")
            sizes = (groups or cfg.num_kv_heads, cfg.num_kv_heads if of_kv else cfg.num_heads, axis)
            move = partial(_by_group, sizes=sizes, change=partial(change, axis=axis + 1, of_kv=of_kv))
            value = refined(params[name], cfg.head_dim) if is_quantized(params[name]) else params[name]
            out[name] = jax.tree.map(partial(_placed, move, axes, mesh), value)
    return out


def _placed(move: Callable[[Array], Array], axes: tuple[str | None, ...], mesh: Mesh, x: Array) -> Array:
    """`x`, a weight or a part of a quantized one, with its heads moved; as it is where it has no heads."""
    along = next(number for number, logical in enumerate(axes) if logical in OF_HEADS)
    return x if x.shape[along] == 1 else _along_whole(x, move, axes, along, mesh)


def _along_whole(
    x: Array, change: Callable[[Array], Array], axes: tuple[str | None, ...], along: int, mesh: Mesh
) -> Array:
    """`change` made to a parameter [layers, ...] of logical `axes`, which lies on `mesh` and whose result lies there.

    `change` mixes what lies along the dimension `along`, and changes only its size. Each device gathers that dimension
    of a layer at a time, so that none holds more than its share and a layer; the compiler, left to itself, replicates
    the parameter.
    """
    new = jax.eval_shape(change, x).shape
    before, after = parameter_sharding(mesh, axes, x.shape), parameter_sharding(mesh, axes, new)
    divided, wanted = before.spec[along], after.spec[along]
    size = after.shard_shape(new)[along]

    def one(layer: Array) -> Array:
        # Collectives of int4 are not to be had on every platform.
        whole = layer[None].astype(jnp.int8) if layer.dtype == jnp.int4 else layer[None]
        if divided:
            whole = jax.lax.all_gather(whole, divided, axis=along, tiled=True)
        whole = change(whole)
        if wanted:
            whole = jax.lax.dynamic_slice_in_dim(whole, jax.lax.axis_index(wanted) * size, size, along)
        return whole[0].astype(layer.dtype)

    by_layer = partial(jax.lax.map, one)
    moved = jax.shard_map(by_layer, mesh=mesh, in_specs=before.spec, out_specs=after.spec, check_vma=False)
    return jax.jit(moved)(x)


def _by_group(x: Array, sizes: tuple[int, int, int], change: Callable[[Array], Array]) -> Array:
    """`x` with `change` made to it as [..., groups, heads of each, H, ...]; `sizes`: groups, all heads, their axis."""
    groups, heads, axis = sizes
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    changed = change(x.reshape(*before, groups, heads // groups, x.shape[axis] // heads, *after))
    return changed.reshape(*before, -1, *after)
