"""Weights that are zero everywhere, as a conversion or a download that failed leaves them.

Without embeddings, head or final norm every answer is the same token again and again: refused. Any other matrix or norm
may be zero on purpose, as the output of a layer that was switched off: warned about. Biases, gates and deltas start at
zero, and are not looked at.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from eve_jax.errors import UserError, warn

NEEDED = ("embed", "head", "norm.scale")  # parameters without which there is no answer
ROLES = ("matrix", "table", "norm")  # of weights that training leaves at zero nowhere
SAMPLE = 1024  # values that are looked at first


def is_zero(values: np.ndarray) -> bool:
    """Return whether all values are zero."""
    flat = values.reshape(-1)
    return not flat[:: max(1, flat.size // SAMPLE)].any() and not flat.any()


def check_zero(parameter: str, role: str, zero: Mapping[str, Path], tensors: int) -> None:
    """Raise `UserError`, or warn, about the tensors of a parameter that are zero everywhere.

    role: of `eve_jax.model.weight.ROLES`. zero: the file of each of these tensors. tensors: how many there are in all.
    """
    if not zero or role not in ROLES:
        return
    first, file = next(iter(zero.items()))
    if parameter in NEEDED:
        raise UserError(
            f"{file}: tensor {first} is zero everywhere, with which every answer is the same token again and again; "
            "fetch or convert the checkpoint anew"
        )
    more = f", like {len(zero) - 1} more of its {tensors} layers," if len(zero) > 1 else ""
    warn(f"{file}: tensor {first}{more} is zero everywhere, as if it had not been trained or not been copied")
