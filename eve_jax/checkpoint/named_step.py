"""A checkpoint of a stage folder that is named by its step, FOLDER@STEP (`eve_jax.process.at_step`)."""

from pathlib import Path

from eve_jax.checkpoint.shared_sums import damage_seen_by_all
from eve_jax.checkpoint.stage_folder import AGAIN, CHECKPOINTS, steps_in
from eve_jax.errors import UserError
from eve_jax.process.at_step import at_step
from eve_jax.process.hub import find_folder, hub_name, refuse_empty
from eve_jax.process.peers import Peers


def find_checkpoint(given: str | Path) -> Path:
    """Return the name of a checkpoint that is here, FOLDER or FOLDER@STEP, for a folder, a step of one or an id of the
    hub.

    Raise UserError where there is no such folder, nor a model of the hub, and as `check_step` for a step.
    """
    refuse_empty(given)
    place, step = at_step(given)
    if step is None or hub_name(str(given)) is not None:
        return find_folder(given)
    folder = find_folder(place)
    if (folder / CHECKPOINTS).is_dir():
        check_step(folder, step)
    return Path(f"{folder}@{step}")


def check_step(folder: Path, step: int, together: Peers | None = None) -> None:
    """Raise UserError, which names the steps that are there, unless the stage folder has a sound checkpoint of `step`.

    together: as for `newest_step`.
    """
    if step not in (steps := steps_in(folder)):
        there = ", ".join(map(str, steps)) or "none"
        raise UserError(
            f"{folder}@{step}: the folder has no checkpoint of step {step}; steps that it has: {there}. "
            "A run keeps the newest ones, and those that config.train.keep_every divides"
        )
    if found := damage_seen_by_all(folder / CHECKPOINTS / str(step), together, ("params", "meta")):
        raise UserError(f"{folder}@{step}: the checkpoint is damaged: {found}; {AGAIN}")
