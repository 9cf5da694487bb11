"""Arguments of a config, `--config=NAME:key=value,switch`."""

import os
from collections.abc import Iterator
from typing import Any

from eve_jax.errors import UserError


def parse_args(name: str, arg: str, **defaults: Any) -> dict[str, Any]:
    """Values of `arg` over `defaults`; a bare word sets a switch (a default of False) or, if unknown, is refused.

    Raises UserError naming the argument and those that the config knows, also for one without a value or given twice.
    """
    values, given = dict(defaults), set()
    for item in _items(arg):
        key, equals, value = item.partition("=")
        if key not in defaults:
            known = ", ".join(k if v is False else f"{k}=..." for k, v in defaults.items())
            raise UserError(f"--config={name}:{arg}: unknown argument {key!r}; known: {known}")
        switch = isinstance(defaults[key], bool)
        if equals if switch else not value:
            raise UserError(f"--config={name}:{arg}: {key} {'takes no value' if switch else f'requires {key}=VALUE'}")
        if key in given:
            raise UserError(f"--config={name}:{arg}: {key} is given twice")
        given.add(key)
        values[key] = True if switch else value
    return values


def _items(arg: str) -> Iterator[str]:
    """The parts of `arg` between commas; a comma belongs to a value where a file or folder has that name."""
    parts = [part for part in arg.split(",") if part]
    while parts:
        ends = range(len(parts), 1, -1)
        named = (n for n in ends if os.path.exists(os.path.expanduser(",".join(parts[:n]).partition("=")[2])))
        end = next(named, 1) if "=" in parts[0] else 1  # a switch has no value
        yield ",".join(parts[:end])
        del parts[:end]
