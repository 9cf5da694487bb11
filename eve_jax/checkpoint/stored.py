"""The parameters that a checkpoint of a stage folder holds, read by one process alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from eve_jax.checkpoint.bucket_parts import in_parts, read
from eve_jax.checkpoint.checksums import refuse_pipes
from eve_jax.checkpoint.stage_folder import AGAIN, CHECKPOINTS
from eve_jax.errors import UserError, shorten
from eve_jax.model.eve import Params
from eve_jax.process.hush import hush_orbax

OPTIMIZER = "optimizer"
AVERAGE = "average"  # of the parts of the optimizer's state: the moving average of the weights


def stored_shapes(folder: Path, step: int) -> Params:
    """Return shape and dtype of every parameter that checkpoint `step` of a stage folder holds. Raise UserError."""
    return {name: jax.ShapeDtypeStruct(m.shape, m.dtype) for name, m in _tree(folder, step, "params").items()}


def stored_averages(folder: Path, step: int) -> set[str]:
    """Return the names of the parameters whose average is in the optimizer of checkpoint `step`. Raise UserError."""
    if not (folder / CHECKPOINTS / str(step) / OPTIMIZER).is_dir():
        return set()
    tree = _tree(folder, step, OPTIMIZER)
    return set(tree[AVERAGE]) if isinstance(tree, dict) and AVERAGE in tree else set()


def _tree(folder: Path, step: int, item: str) -> Any:
    """Return the tree of what is known of the arrays of an item of checkpoint `step`. Raise UserError."""
    with _reader(folder / CHECKPOINTS / str(step)) as reader:
        return reader.metadata(folder.resolve() / CHECKPOINTS / str(step) / item).item_metadata.tree


def load_stored(folder: Path, step: int, wanted: Params) -> Params:
    """Some of the parameters of checkpoint `step`: `wanted` are shapes with shardings, by name."""
    places = {name: ocp.ArrayRestoreArgs(sharding=w.sharding, dtype=w.dtype) for name, w in wanted.items()}
    step_folder = folder / CHECKPOINTS / str(step)
    if in_parts(step_folder):
        return read(step_folder, "params", wanted)
    args = ocp.args.PyTreeRestore(wanted, restore_args=places, partial_restore=True)
    with _reader(folder / CHECKPOINTS / str(step)) as reader:
        return reader.restore(folder.resolve() / CHECKPOINTS / str(step) / "params", args=args)


@contextmanager
def _reader(step: Path) -> Iterator[ocp.Checkpointer]:
    """Read trees of arrays of the checkpoint `step`, for one process on its own: others may not read at all.

    Raise UserError when they cannot be read: of a checkpoint without a manifest, that shows no sooner.
    """
    hush_orbax()
    refuse_pipes(step)
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"{me}")
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
        try:
            yield reader
        except (jax.errors.JaxRuntimeError, MemoryError):  # of the device's memory, not of the file
            raise
        except Exception as error:  # Orbax and TensorStore raise errors of all kinds
            why = shorten(str(error) or type(error).__name__)
            raise UserError(f"{step} cannot be read ({why}); {AGAIN}") from error
