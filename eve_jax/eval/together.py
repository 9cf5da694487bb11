"""What the processes of an evaluation must agree on: what is left to ask, what cannot be asked, and what fails.

Every process reads the same data and runs the same loop; the leader alone reads and writes the folder of answers.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from eve_jax.errors import UserError
from eve_jax.process.connect import is_leader, peers

T = TypeVar("T")


def from_leader(name: str, make: Callable[[], Any]) -> Any:
    """Return the JSON value that `make` gives in the process that leads, in every process; all must call it.

    Raise the UserError of `make` in every process, too.
    """
    others = peers()
    if others is None:
        return make()
    value, error = json.loads(others.gather(name, json.dumps(_tried(make) if is_leader() else None))[0])
    if error:
        raise UserError(error)
    return value


def in_every(name: str, make: Callable[[], T]) -> T:
    """Return what `make` gives in this process. Raise UserError in every process where it does in any."""
    value, error = _tried(make)
    if errors := of_all(name, {name: error} if error else {}):
        raise UserError(errors[name])
    assert value is not None
    return value


def _tried(make: Callable[[], T]) -> tuple[T | None, str]:
    try:
        return make(), ""
    except UserError as error:
        return None, str(error)


def of_all(name: str, mine: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of every process's `mine`, of a key that several have the first; all must call it."""
    others = peers()
    if others is None:
        return dict(mine)
    found: dict[str, str] = {}
    for text in others.gather(name, json.dumps(dict(mine))):
        found = json.loads(text) | found
    return found
