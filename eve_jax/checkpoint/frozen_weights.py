"""Where the frozen weights of a partial checkpoint are: the folders they came from, with a fingerprint of each weight.

Stages that train a part of the model store that part; `meta` of such a checkpoint has a list `frozen` of origins:

    {"path": relative to the stage folder, "absolute": ..., "step": of a checkpoint of ours or null,
     "seed", "patch_hidden": as for `open_checkpoint`, "weights": {name: [dtype, fingerprint]}}

A weight is read from its origin as the stage did when it started (vision copies made from text weights where the
origin has none), cast to `dtype`, and must then have the fingerprint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from eve_jax.checkpoint.stage_folder import CONFIG, read_meta
from eve_jax.checkpoint.weight_fingerprint import fingerprints
from eve_jax.errors import UserError
from eve_jax.model.config import DTYPES
from eve_jax.model.eve import Params
from eve_jax.process.hub import put_back
from eve_jax.process.stored_path import StoredPath

FROZEN = "frozen"


@dataclass(frozen=True)
class Origin:
    """A folder that some frozen weights came from, see above."""

    path: str
    absolute: str
    step: int | None
    seed: int
    patch_hidden: int
    weights: Mapping[str, Sequence[str]]

    def find(self, folder: Path) -> Path:
        """The origin's folder now, for the stage in `folder`; UserError when it is gone."""
        place = StoredPath(self.path, self.absolute).find(folder, lambda p: (p / CONFIG).is_file())
        if place is not None:
            return place
        if put_back(Path(self.absolute)):
            return Path(self.absolute)
        raise UserError(
            f"{folder} stores only what its stage trained; the rest of the weights is in {self.absolute}, which is no "
            "longer there: put it back, there or in the same place relative to this folder"
        )

    def check(self, folder: Path, found: Mapping[str, str]) -> None:
        """UserError unless the fingerprints of weights read from the origin are those of the stage in `folder`."""
        for name, fingerprint in found.items():
            if fingerprint != self.weights[name][1]:
                raise UserError(
                    f"{folder} was trained on other weights than {self.find(folder)} now holds ({name} differs); "
                    "put back the folder that it started from"
                )


def origins(folder: Path, step: int) -> list[Origin]:
    """Return where the frozen weights of checkpoint `step` of a stage folder are; empty when it holds all of them.

    Raise UserError for metadata that are damaged.
    """
    entries = read_meta(folder, step).get(FROZEN, [])
    if not isinstance(entries, list) or not all(map(_is_origin, entries)):
        raise UserError(
            f"{folder}: the metadata of checkpoint {step} are damaged: {FROZEN} does not say where the weights that "
            "did not train are"
        )
    return [Origin(**entry) for entry in entries]


def _is_origin(entry: Any) -> bool:
    """Whether an entry of the list `frozen` has all fields of an `Origin`, each of its type."""
    if not isinstance(entry, dict) or entry.keys() != {field.name for field in fields(Origin)}:
        return False
    weights = entry["weights"]
    return (
        all(isinstance(entry[name], str) for name in ("path", "absolute"))
        and all(isinstance(entry[name], int) for name in ("seed", "patch_hidden"))
        and isinstance(entry["step"], int | None)
        and isinstance(weights, dict)
        and all(isinstance(pair, list) and len(pair) == 2 and pair[0] in DTYPES for pair in weights.values())
    )


def frozen_origins(
    frozen: Params, folder: Path, origin: Path, step: int | None, seed: int, patch_hidden: int
) -> list[dict[str, Any]]:
    """The list `frozen` for a stage in `folder` that started from `origin` (at `step` if ours) and keeps `frozen`.

    What the origin itself refers to is referred to directly, as far as it is the very same weight.
    """
    left = {n: [str(v.dtype), f] for (n, f), v in zip(fingerprints(frozen).items(), frozen.values(), strict=True)}
    found: list[Origin] = []
    for further in origins(origin, step) if step is not None else []:
        same = {n: w for n, w in left.items() if list(further.weights.get(n, ())) == w}
        if same:
            found.append(replace(_placed(further, folder, further.find(origin)), weights=same))
            left = {n: w for n, w in left.items() if n not in same}
    if left:
        found.append(_placed(Origin("", "", step, seed, patch_hidden, left), folder, origin))
    return [asdict(o) for o in found]


def _placed(entry: Origin, folder: Path, origin: Path) -> Origin:
    stored = StoredPath.of(origin, folder)
    return replace(entry, path=stored.relative, absolute=stored.absolute)
