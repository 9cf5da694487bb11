"""What the processes of an evaluation must agree on: what is left to ask, and what cannot be asked.

Every process reads the same data and runs the same loop; the leader alone reads and writes the folder of answers.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from eve_jax.process.connect import is_leader, peers


def from_leader(name: str, make: Callable[[], Any]) -> Any:
    """Return the JSON value that `make` gives in the process that leads, in every process; all must call it."""
    others = peers()
    if others is None:
        return make()
    return json.loads(others.gather(name, json.dumps(make()) if is_leader() else "")[0])


def of_all(name: str, mine: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of every process's `mine`, of a key that several have the first; all must call it."""
    others = peers()
    if others is None:
        return dict(mine)
    found: dict[str, str] = {}
    for text in others.gather(name, json.dumps(dict(mine))):
        found = json.loads(text) | found
    return found
