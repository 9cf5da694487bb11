"""What a weight is, declared where it is made: nothing else in the package tells it from a name.

A weight states its shape, logical axes, initializer and role itself (`param`). The part of the model that it belongs to
states the group that it trains with and the tokens that it works on, for all its weights at once (`declare`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from eve_jax.model.config import PARTS, ModelConfig

Init = Callable[[Array, tuple[int, ...], jnp.dtype], Array]

# Groups that train, or stay frozen, together; `groups` has also those of further sets of weights.
# place: the parts of queries and keys for rows and columns (rope=thw). extra: layers that the base LLM does not have.
PLACE_GROUP, EXTRA_GROUP = "place", "extra"
GROUPS = ("patch_embed", "vision", "text", PLACE_GROUP, EXTRA_GROUP, "align", "teacher", "encoder", "vocabulary")
NEVER_TRAINED = ("teacher",)
TRAINING_ONLY = ("align", "teacher")  # groups that only training needs
# matrix: of a product. table: rows that are looked up, or compared with. delta: what is added to a matrix, scaled by a
# gate of one number. lora_a, lora_b: the two matrices of an adapter.
ROLES = ("matrix", "table", "bias", "norm", "delta", "gate", "lora_a", "lora_b")
DECAYED = ("matrix", "table", "delta", "lora_a", "lora_b")  # roles that weight decay applies to
TOKENS = ("patches", "specials", "vision", "text", "all", "targets", "")  # "": takes part in no product


def groups() -> tuple[str, ...]:
    """Return the names of all groups: GROUPS, then further sets of weights that PARTS has."""
    return tuple(dict.fromkeys((*GROUPS, *(name for part in PARTS.values() for name in part.sets))))


def trainable_groups() -> tuple[str, ...]:
    """Return the names of the groups that a stage may train."""
    return tuple(group for group in groups() if group not in NEVER_TRAINED)


class Weight(NamedTuple):
    """What a weight is.

    group: of `groups`. role: of ROLES. works_on: the tokens that meet it, of TOKENS, each `times` times. input_grad:
    False where its input has no gradient (pixels, token numbers). ends_layer: nothing in the layer comes after its
    product but an addition. start: the value that a new one has everywhere, where that is one number. branch: name of
    the modality's own set of weights (`Routed`) that it belongs to, "" for shared ones. adds_to: attribute, in
    the module around its own, of the matrix that a delta, gate or adapter changes. taken_from: attribute, in the module
    around those of each modality, of the matrix that a new one is made from (`eve_jax.model.place_heads`).

    Filled in by `eve_jax.model.eve.declared`: stacked, True for a leading axis of layers; copy_of, the name of the text
    weight that a vision weight starts as; made_of, of the matrix that a new one is made from; delta_of, of the matrix
    that a delta, gate or adapter belongs to.
    """

    role: str
    group: str = ""
    works_on: str | None = None
    times: int = 1
    input_grad: bool = True
    ends_layer: bool = False
    start: float | None = None
    branch: str = ""
    adds_to: str = ""
    taken_from: str = ""
    stacked: bool = False
    copy_of: str = ""
    made_of: str = ""
    delta_of: str = ""

    @property
    def changes_matrix(self) -> bool:
        """True for a gated delta's weight and gate."""
        return self.role in ("delta", "gate")


def normal(std: float) -> Init:
    """Initializer: Gaussian of standard deviation `std`."""
    return lambda key, shape, dtype: std * jax.random.normal(key, shape, dtype)


def zeros(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Initializer: zeros (biases)."""
    return jnp.zeros(shape, dtype)


def constant(value: float) -> Init:
    """Initializer: `value` everywhere."""
    return lambda key, shape, dtype: jnp.full(shape, value, dtype)


def ones(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Initializer: ones (norm weights)."""
    return jnp.ones(shape, dtype)


def param(
    cfg: ModelConfig,
    rngs: nnx.Rngs,
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
    init: Init,
    role: str,
    **use: Any,
) -> nnx.Param:
    """Return a weight of `shape`, with one logical axis name (or None) a dimension, and its `role`.

    `use`: further fields of `Weight`. Raises ValueError for axes that do not fit the shape, or an unknown role.
    """
    if len(axes) != len(shape):
        raise ValueError(f"{len(axes)} axes for shape {shape}")
    if role not in ROLES:
        raise ValueError(f"role {role!r} is not one of {', '.join(ROLES)}")
    return nnx.Param(init(rngs.params(), shape, jnp.dtype(cfg.param_dtype)), axes=axes, weight=Weight(role, **use))


def regroup(module: Any, group: str) -> Any:
    """Return `module` with all its weights in `group`, whatever they stated."""
    for _, node in nnx.iter_graph(module):
        if isinstance(node, nnx.Param):
            node.set_metadata(weight=node.weight._replace(group=group))
    return module


def declare(module: Any, group: str, works_on: str | None = None, branch: str = "") -> Any:
    """Return `module` (or a single weight) after stating what its weights have in common.

    group: of `groups`, and works_on: of TOKENS, for the weights that do not state them themselves. branch: of the
    modality whose own weights these are.
    """
    if group not in groups() or (works_on is not None and works_on not in TOKENS):
        raise ValueError(f"group {group!r} or works_on {works_on!r} is unknown")
    for _, node in [((), module)] if isinstance(module, nnx.Param) else nnx.iter_graph(module):
        if isinstance(node, nnx.Param):
            weight: Weight = node.weight
            tokens = weight.works_on if weight.works_on is not None else works_on
            node.set_metadata(weight=weight._replace(group=weight.group or group, works_on=tokens, branch=branch))
    return module
