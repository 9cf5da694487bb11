"""Weights that are zero everywhere, as a conversion or a download that failed leaves them.

Without embeddings, head or final norm every answer is the same token again and again: refused. Any other matrix or norm
may be zero on purpose, as the output of a layer that was switched off: warned about in Hugging Face folders. Biases,
gates and deltas start at zero, and are not looked at.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eve_jax.errors import UserError, warn

NEEDED = ("embed", "head", "norm.scale")  # parameters without which there is no answer
ROLES = ("matrix", "table", "norm")  # of weights that training leaves at zero nowhere
_ZERO = "is zero everywhere, with which every answer is the same token again and again"
SAMPLE = 1024  # values that are looked at first


def is_zero(values: np.ndarray) -> bool:
    """Return whether all values are zero."""
    flat = values.reshape(-1)
    return not flat[:: max(1, flat.size // SAMPLE)].any() and not flat.any()


def check_needed(where: str, params: Mapping[str, jax.Array | np.ndarray]) -> None:
    """Raise `UserError` for parameters of our own checkpoint `where` that are zero everywhere and needed for an answer.

    Arrays that other processes hold parts of are not looked at.
    """
    for name in NEEDED:
        value = params.get(name)
        if isinstance(value, jax.Array) and value.is_fully_addressable:
            if bool(_has_value(value)):
                continue
        elif value is None or not isinstance(value, np.ndarray) or not is_zero(value):
            continue
        raise UserError(f"{where}: parameter {name} {_ZERO}; use another checkpoint, or convert or train it anew")


@jax.jit
def _has_value(values: Any) -> Any:
    return jnp.any(values != 0)


def check_zero(parameter: str, role: str, zero: Mapping[str, Path], tensors: int) -> None:
    """Raise `UserError`, or warn, about the tensors of a parameter that are zero everywhere.

    role: of `eve_jax.model.weight.ROLES`. zero: the file of each of these tensors. tensors: how many there are in all.
    """
    if not zero or role not in ROLES:
        return
    first, file = next(iter(zero.items()))
    if parameter in NEEDED:
        raise UserError(f"{file}: tensor {first} {_ZERO}; fetch or convert the checkpoint anew")
    more = f", like {len(zero) - 1} more of its {tensors} layers," if len(zero) > 1 else ""
    warn(f"{file}: tensor {first}{more} is zero everywhere, as if it had not been trained or not been copied")
