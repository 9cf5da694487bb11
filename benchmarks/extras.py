"""Packages of the project's extras that a benchmark needs."""

import importlib.util

from eve_jax.errors import UserError, install


def want(package: str, extra: str, instead: str = "") -> None:
    """Raise UserError where a package of the project's extra is missing, before anything is measured.

    instead: what can be done without it.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{package} is missing: {install(extra)}{instead and f', or {instead}'}")
