"""What a folder of `peft` is checked against before it is written: the run's base, and that base as it was exported."""

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from eve_jax.checkpoint.stage_folder import CONFIG, read_config
from eve_jax.checkpoint.vision_copies import ParamSource
from eve_jax.errors import UserError, warn
from eve_jax.hf.names import Entry
from eve_jax.hf.safetensors_io import TensorInfo, open_tensors
from eve_jax.process.hub import hub_name
from eve_jax.process.paths import no_folder
from eve_jax.process.progress import BYTES, ProgressBar


def open_base(base: str) -> dict[str, TensorInfo]:
    """Return the tensors in the folder `base`; empty for "" and for an id of the hub, which is not looked at.

    Raises UserError for a folder that is not there or holds no exported model.
    """
    if not base or hub_name(base) is not None:
        return {}
    if not Path(base).is_dir():
        raise no_folder(base)
    if (Path(base) / CONFIG).is_file() and "model" in read_config(Path(base)):
        raise UserError(
            f"--base={base} is a stage folder; name what launch.convert export --from={base} makes of it: peft adds "
            "adapters to a Hugging Face folder"
        )
    return open_tensors(Path(base))


def check_base(
    source: ParamSource, table: Iterable[Entry], adapted: Collection[str], found: dict[str, TensorInfo], base: str
) -> None:
    """Read all that the run `source` has from its base, which checks that it is there still, and compare it with the
    tensors `found` in the folder `base`, if any.

    table: the base's names. adapted: of those, the matrices with adapters. Raises UserError where the folder holds
    another model than the base. Warns of weights in a wider type than the adapters saw.
    """
    entries = [entry for entry in table if entry.ours in source.shapes]
    sizes = {e.ours: source.shapes[e.ours].size * source.shapes[e.ours].dtype.itemsize for e in entries}
    seen = np.dtype(source.cfg.frozen_dtype)
    wider: set[str] = set()
    with ProgressBar("compare the base", sum(sizes.values()), unit=BYTES) as bar:
        for entry in entries:
            differ = []
            for name, piece in zip(entry.names(source.cfg), source.pieces(entry.ours), strict=True):
                mine, theirs = entry.to_theirs(piece), found.get(name)
                if theirs is None or theirs.shape != mine.shape:
                    if found and name in adapted:
                        differ.append(f"{name} {f'has the shape {theirs.shape}' if theirs else 'is not there'}")
                elif not _same_values(mine, theirs.read()):
                    differ.append(f"{name} has other values")
                elif name in adapted and theirs.dtype.itemsize > seen.itemsize:
                    wider.add(theirs.dtype.name)
                bar.advance(piece.nbytes)
            if differ:  # only now: the end of the pieces is where the run's own base is checked
                raise UserError(
                    f"--base={base} is not the model that the run's adapters were trained on: {differ[0]}; name what "
                    "launch.convert export makes of the run's config.init"
                )
    for there in sorted(wider):
        warn(
            f"{base} has weights in {there}, of which the adapters were trained on the {seen.name} ones: logits will "
            f"differ by the rounding, unless the base is exported with --dtype={seen.name}"
        )


def _same_values(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are one rounded to different types: bit for bit in the narrower of them.

    Of two types of as many bytes (float16, bfloat16), as closely as the coarser one tells.
    """
    if a.dtype == b.dtype or a.dtype.itemsize != b.dtype.itemsize:
        narrow = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
        with np.errstate(over="ignore"):
            return a.astype(narrow).tobytes() == b.astype(narrow).tobytes()
    return np.allclose(a.astype(np.float32), b.astype(np.float32), rtol=2**-7, atol=2**-24, equal_nan=True)
