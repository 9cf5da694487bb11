"""Figures by their names, as lines or as one line of JSON, for curate_caption.py and curate_experts.py."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eve_jax.errors import UserError


def show(known: Mapping[str, Callable[[], dict[str, Any]]], names: Sequence[str], as_json: bool) -> None:
    """Measure those of `known` that are named, and print them. Raises UserError for a name that is not known."""
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--what={unknown[0]}: expected one of {', '.join(known)}")
    found = {name: known[name]() for name in names}
    if as_json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(name)
        for key, value in figures.items():
            print(f"  {key:24} {value:.4g}" if isinstance(value, float) else f"  {key:24} {value}")
