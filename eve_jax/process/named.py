"""Python objects that a setting names as `module:NAME`: a user's own source of records, metric or writer."""

import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterable
from typing import Any

from eve_jax.errors import UserError

NAMED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_named(text: str) -> bool:
    """Whether `text` has the form `module:NAME`, with dots in the module's name perhaps."""
    return NAMED.fullmatch(text) is not None


def load_named(text: str, field: str) -> Any:
    """Return what `text`, `module:NAME`, stands for; modules in the current folder are found too, after all others.

    field: of the config, for messages. Raises UserError that says what is missing: the form, the module or the name.
    """
    about = f"{field}: {text}"
    if not is_named(text):
        raise UserError(f"{about} has not the form module:NAME")
    module, _, name = text.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # an installed command does not look there
    importlib.invalidate_caches()
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise UserError(
                f"{about}: there is no module {error.name}; put it into the current folder or on PYTHONPATH"
            ) from error
        raise UserError(f"{about}: module {module} cannot be imported: {describe_error(error)}") from error
    except Exception as error:
        raise UserError(f"{about}: module {module} cannot be imported: {describe_error(error)}") from error
    if not hasattr(found, name):
        raise UserError(f"{about}: module {module} ({getattr(found, '__file__', '')}) has no {name}")
    return getattr(found, name)


def load_class(text: str, field: str, what: str) -> type:
    """Return the class of a `what` that `text` stands for, as `load_named`; raise UserError for what is no class."""
    kind = load_named(text, field)
    if not isinstance(kind, type):
        raise UserError(f"{field}: {text} is no class; expected the class of a {what}")
    return kind


def make_named(text: str, field: str, members: Iterable[str], what: str, *arguments: Any) -> Any:
    """Return a new object of the class that `text`, `module:NAME`, stands for, which is called with `arguments`.

    members: attributes and methods that a `what` has. Raises UserError as `load_class`, for a class without one of the
    members, and when it cannot be made.
    """
    kind = load_class(text, field, what)
    try:
        made = kind(*arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{field}: {text}() failed: {describe_error(error)}") from error
    missing = [name for name in members if not hasattr(made, name)]
    if missing:
        raise UserError(f"{field}: class {text} has no {', '.join(missing)}; a {what} has {', '.join(members)}")
    return made


def describe_error(error: BaseException) -> str:
    """Return kind and text of an exception in one line, and the file and line where it was raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}".split()) + place
