"""Weight changes of a model by layer and by kind of weight (EVEv2 paper, Fig. 2 and Fig. 3)."""

import math
from collections.abc import Mapping
from typing import Any

from eve_jax.checkpoint.vision_copies import ParamSource, copied_from
from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import declared
from eve_jax.model.weight import TRAINING_ONLY
from eve_jax.process.progress import ProgressBar
from eve_jax.weights.changes import NONE, TABLES, Change, change_of, folded

# Kinds in the order of the paper's figure; behind it what that does not show.
KINDS = (
    "V",
    "Q",
    "O",
    "Gate",
    "Down",
    "K",
    "Up",
    "LN1",
    "LN2",
    "QK norm",
    "QK place",
    "Emb",
    "Norm",
    "Head",
    "Patch",
    "Encoder",
    "Codes",
)
OF_LAYER = {
    "input_norm": "LN1",
    "attn_norm": "LN1",
    "post_norm": "LN2",
    "mlp_norm": "LN2",
    "gate": "Gate",
    "up": "Up",
    "down": "Down",
    "q_norm": "QK norm",
    "k_norm": "QK norm",
    "q_place": "QK place",
    "k_place": "QK place",
    **{name: name.upper() for name in "qkvo"},
}
OF_GROUP = {"patch_embed": "Patch", "encoder": "Encoder", "vocabulary": "Codes"}
OTHERS = {"embed": "Emb", "norm": "Norm", "head": "Head"}
SIZES = ("hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "intermediate_size")


def kind_of(cfg: ModelConfig, name: str) -> str:
    """Return the kind, of KINDS, of the weight `name`."""
    group, parts = declared(cfg)[name].group, name.split(".")
    if group in OF_GROUP:
        return OF_GROUP[group]
    if parts[0] not in ("layers", "extra"):
        return OTHERS[parts[0]]
    return next(OF_LAYER[part] for part in parts[1:] if part in OF_LAYER)


def check_sizes(names: tuple[str, str], before: ModelConfig, after: ModelConfig) -> None:
    """Raise UserError, naming the size, for models `names` whose layers cannot be compared."""
    for field in SIZES:
        one, other = getattr(before, field), getattr(after, field)
        if one != other:
            raise UserError(
                f"{names[0]} and {names[1]} cannot be compared weight by weight: {field} is {one} and {other}; name "
                "models of one base, or leave the weights out by --parts=texts,questions,filters"
            )


def compared_weights(before: ParamSource, after: ParamSource, label: str, quiet: bool = False) -> dict[str, Any]:
    """Return what changed from `before` to `after`, models of the same sizes of layers.

    {group: {"by_layer": [change ..], "by_kind": {kind: change}, "each": {weight: [change a layer]}}}, a change being
    {"mean": of |dw|, "relative": sum |dw| / sum |w before|}; groups are text, vision (against the text weights that
    they start as), and those of further parts, as patch_embed. "new": weights that only `after` has, "gone": only
    `before`.
    """
    before, after = folded(before), folded(after)
    weights, shapes = declared(after.cfg), after.shapes
    names = [name for name in shapes if weights[name].group not in TRAINING_ONLY]
    pairs = {name: copied_from(after.cfg, name) for name in names}
    both = [name for name in names if _fit(name, before.shapes.get(pairs[name]), shapes[name])]
    sizes = {name: math.prod(shapes[name].shape) for name in both}
    each: dict[str, list[Change]] = {}
    with ProgressBar(f"weights of {label}", sum(sizes.values()), unit="weights", keep=True, off=quiet) as bar:
        for name in both:
            each[name] = change_of(before, after, name, bar.advance)
    groups: dict[str, dict[str, list[Change]]] = {}
    for name, changes in each.items():
        groups.setdefault(weights[name].group, {})[name] = changes
    used, own = set(pairs.values()), declared(before.cfg)
    gone = [name for name in before.shapes if name not in used and own[name].group not in TRAINING_ONLY]
    return {
        "groups": {group: _summed(after.cfg, found) for group, found in groups.items()},
        "new": [name for name in names if name not in each],
        "gone": gone,
    }


def _fit(name: str, before: Any, after: Any) -> bool:
    if before is None:
        return False
    return before.shape == after.shape or (name in TABLES and before.shape[1:] == after.shape[1:])


def _summed(cfg: ModelConfig, each: Mapping[str, list[Change]]) -> dict[str, Any]:
    layers = {name: changes for name, changes in each.items() if name.startswith("layers.")}
    by_layer = [sum(column, NONE) for column in zip(*layers.values(), strict=True)] if layers else []
    by_kind: dict[str, Change] = {}
    for name, changes in each.items():
        kind = kind_of(cfg, name)
        by_kind[kind] = sum(changes, by_kind.get(kind, NONE))
    return {
        "by_layer": [_numbers(one) for one in by_layer],
        "by_kind": {kind: _numbers(by_kind[kind]) for kind in KINDS if kind in by_kind},
        "each": {name: [_numbers(one) for one in changes] for name, changes in each.items()},
    }


def _numbers(change: Change) -> dict[str, float | None]:
    relative = change.relative
    return {"mean": change.mean, "relative": relative if math.isfinite(relative) else None}
