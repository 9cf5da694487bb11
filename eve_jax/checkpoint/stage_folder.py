"""Orbax checkpoints of a stage folder: parameters and optimizer as separate items, the rest as JSON.

FOLDER/config.json, FOLDER/tokenizer.json, FOLDER/checkpoints/<step>/{params,optimizer,meta,manifest.json}. Parameters
have the flat names of `eve_jax.model.eve.Params`; of a partial checkpoint, only what trains is there and `meta` says
where the rest is (`eve_jax.checkpoint.frozen_weights`).
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSteps, LatestN

from eve_jax.checkpoint.best import Best
from eve_jax.checkpoint.bucket_parts import read
from eve_jax.checkpoint.bucket_saves import BucketSaves, each_on_its_own
from eve_jax.checkpoint.checksums import has_manifest, refuse_pipes
from eve_jax.checkpoint.local_copies import LocalCopies
from eve_jax.checkpoint.orbax_errors import disk_reason
from eve_jax.checkpoint.shared_sums import Sums, damage_seen_by_all
from eve_jax.errors import InUse, UserError, shorten
from eve_jax.model.eve import Params
from eve_jax.process import buckets, places
from eve_jax.process.connect import peers
from eve_jax.process.files import read_json
from eve_jax.process.hush import hush_orbax
from eve_jax.process.peers import Peers
from eve_jax.process.published import published
from eve_jax.version import versioned

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
UNFINISHED = ".orbax-checkpoint-tmp"  # Orbax's suffix of a folder that has not got its name yet
SET_ASIDE = ".damaged"
AGAIN = "copy it again from where it was made, rerun its training, or remove the folder and rerun its import"


class Checkpoints:
    """The checkpoints of one run, for the processes that train it.

    Saving is asynchronous and atomic: a checkpoint takes its name when its files and their checksums are written, and
    only then older ones go. Kept are the newest `keep`, all of steps that `keep_every` divides (0: none), and the
    `best` by a metric.
    """

    def __init__(
        self,
        folder: Path,
        keep: int = 2,
        keep_every: int = 0,
        best: Best | None = None,
        local: LocalCopies | None = None,
    ):
        self.folder = (folder / CHECKPOINTS).resolve()
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; checkpoints are kept in a folder of that name")
        for step in steps_in(folder):
            refuse_pipes(self.folder / str(step))
        policies: list[Any] = [LatestN(max(keep, 1))]
        if keep_every:
            policies.append(EveryNSteps(keep_every))
        if best is not None:
            policies.append(best)
        self.best = best
        self.found_damage = False  # True once a checkpoint was set aside
        self._saving = 0
        self._failed = False
        self._sums = Sums(peers())
        self.local = local
        self._work = published(folder)
        others = None if self._work is None else self._work.others
        self._parts = BucketSaves(self._work, others) if self._work is not None and others is not None else None
        options: dict[str, Any] = {
            "preservation_policy": AnyPreservationPolicy(policies),
            "best_fn": None if best is None else best.value,  # without one, Orbax stores no metrics
            "cleanup_tmp_directories": True,
            "async_options": ocp.options.AsyncOptions(
                post_finalization_callback=self._seal,
                create_directories_asynchronously=False,  # a folder that cannot be written is found at once
            ),
        }
        hush_orbax()
        given = each_on_its_own(options) if self._parts else {"options": ocp.CheckpointManagerOptions(**options)}
        self.manager = ocp.CheckpointManager(self.folder, **given)

    @property
    def latest(self) -> int | None:
        """Newest finished step, that of the local copies if these are newer; None when there is none."""
        if self.local is not None and self.local.step is not None:
            return self.local.step
        return self.manager.latest_step()

    def set_damaged_aside(self, final: int | None) -> None:
        """Rename damaged checkpoints that are newer than the newest sound one, saying so: `latest` is sound after it.

        Of several processes, which all call this, each reads its share of the files.
        Of a checkpoint at step `final`, from which no training resumes, only the files' sizes are looked at.
        """
        others = peers()
        steps = steps_in(self.folder.parent)
        if others is not None:
            steps = json.loads(others.gather("steps", json.dumps(steps))[0])
        for step in reversed(steps):
            wrong = damage_seen_by_all(self.folder / str(step), others, contents=step != final)
            if not wrong:
                break
            self._rename(step, wrong)
        self._reload()
        if self.local is not None:
            self.local.choose(self.manager.latest_step())

    def set_aside(self, step: int, reason: str) -> None:
        """Rename checkpoint `step`, so that nothing takes it for a good one or overwrites it, and warn."""
        self._rename(step, reason)
        self._reload()

    def _rename(self, step: int, reason: str) -> None:
        if jax.process_index() and self._parts is None:
            return  # process 0 does it for all
        path = self.folder / str(step)
        target = next(t for n in range(1000) if not (t := path.with_suffix(f"{SET_ASIDE}{n or ''}")).exists())
        path.rename(target)
        self.found_damage = True
        if jax.process_index():
            return
        if self._work is not None:
            self._work.set_aside(path)
        older = steps_in(self.folder.parent)
        then = f"the one before is of step {older[-1]}" if older else "there is none before it"
        print(f"checkpoint {step} is damaged: {reason}; it is now {target.name}; {then}", file=sys.stderr, flush=True)

    def _reload(self) -> None:
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints set aside")
        self.manager.reload()

    def is_verified(self, step: int) -> bool:
        """True when the checkpoint has a manifest, which `set_damaged_aside` has compared it with."""
        return self._copied(step) is not None or has_manifest(self.folder / str(step))

    def _copied(self, step: int) -> LocalCopies | None:
        """The local copies, if `step` is theirs."""
        return self.local if self.local is not None and self.local.step == step else None

    def save(
        self, step: int, params: Params, optimizer: Any, meta: dict[str, Any], metrics: dict[str, float] | None = None
    ) -> None:
        """Save step `step` unless it is there; returns when the values are copied, not when they are written.

        metrics: by which the best checkpoints are kept.

        Raises UserError when this or the save before cannot be written.
        """
        if step in self.manager.all_steps():
            return
        tree: Any = ocp.args.StandardSave if self._parts is None else ocp.args.PyTreeSave
        items = {
            "params": tree(params),
            "optimizer": tree(optimizer),
            "meta": ocp.args.JsonSave(versioned(meta)),
        }
        self._finish()
        if self.local is not None:
            self.local.finish()
        self._saving = step
        try:
            self.manager.save(step, args=ocp.args.Composite(**items), metrics=metrics or None)
        except (OSError, ValueError) as error:
            self._fail(error)
        if self._parts is None:
            self._sums.follow(self.folder / f"{step}{UNFINISHED}")

    def check(self) -> None:
        """UserError when the save in the background has failed; does not wait."""
        if self.local is not None:
            self.local.check()
        if self._saving and not self.manager.is_saving_in_progress():
            self._finish()

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON saved with `step`; empty for a checkpoint that no training saved."""
        if local := self._copied(step):
            return local.meta
        return read_meta(self.folder.parent, step)

    def restore(self, step: int, params: Params, optimizer: Any) -> tuple[Params, Any]:
        """Parameters and optimizer of `step` with the shapes, dtypes and shardings of the abstract trees given."""
        if local := self._copied(step):
            return local.restore(params, optimizer)
        if self._parts is not None:
            place = self.folder / str(step)
            return read(place, "params", params), read(place, "optimizer", optimizer)
        items = {
            "params": ocp.args.StandardRestore(params),
            "optimizer": ocp.args.StandardRestore(optimizer),
        }
        restored = self.manager.restore(step, args=ocp.args.Composite(**items))
        return restored["params"], restored["optimizer"]

    def close(self) -> None:
        """Wait for what is being written; UserError when that fails and has not been said yet."""
        if not self._failed:
            if self.local is not None:
                self.local.close()
            self._finish()
            self.manager.close()

    def _finish(self) -> None:
        """Wait for the save in the background."""
        if self._failed or not self._saving:
            return
        try:
            self.manager.wait_until_finished()
        except (OSError, ValueError) as error:
            self._fail(error)
        self._saving = 0

    def _fail(self, error: Exception) -> None:
        """Remove what was written of the save that failed; UserError when the disk is to blame, else `error` itself."""
        self._failed = True
        if jax.process_index() == 0 or self._parts is not None:
            for path in self.folder.glob(f"*{UNFINISHED}*"):
                shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, buckets.TakenOver):
            raise InUse(f"{places.shown(str(error.filename))}: {error.strerror}: training ends here") from error
        reason = disk_reason(error)
        if not reason:
            raise error
        steps = [s for s in steps_in(self.folder.parent) if s != self._saving]
        older = f"the one of step {steps[-1]} is whole" if steps else "there is no older one"
        raise UserError(
            f"{self.folder}: checkpoint {self._saving} could not be written ({reason}); {older}. "
            f"Make room or the {'folder' if self._work is None else 'bucket'} writable, then rerun the command"
        ) from error

    def _seal(self) -> None:
        """Called by Orbax, in process 0, when all have written their files and the folder has not got its name yet.

        In every process where each has a folder of its own, when that one has written.
        """
        made = self.folder / f"{self._saving}{UNFINISHED}"
        if self._parts is not None:
            self._parts.seal(made, self.folder / str(self._saving))
            return
        self._sums.seal(made)
        if self._work is not None:
            self._work.save(made, self.folder / str(self._saving))


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration that a stage folder was made with; UserError when it is not an eve_jax folder."""
    path = folder / CONFIG
    if not path.is_file():
        stages = sorted(file.parent.name for file in folder.glob(f"*/{CONFIG}"))
        inside = shorten(f"; name one of the folders in it: {', '.join(stages)}") if stages else ""
        raise UserError(f"{folder} is no checkpoint of eve_jax: it has no {CONFIG}{inside}")
    return read_json(path)


def steps_in(folder: Path) -> list[int]:
    """Steps of the finished checkpoints of a stage folder, ascending, sound or not."""
    return sorted(int(p.name) for p in (folder / CHECKPOINTS).glob("*") if p.name.isdecimal() and p.is_dir())


def newest_step(folder: Path, fall_back: bool = True, together: Peers | None = None) -> int:
    """The newest step of a stage folder whose parameters are sound; says on stderr when that is not the newest of all.

    together: the processes of a run, which all call this; each reads its share of the files. Raises UserError when
    there is none; without `fall_back`, also when the newest is damaged.
    """
    if not (folder / CHECKPOINTS).is_dir():
        raise UserError(f"{folder} has no {CHECKPOINTS} folder: its training has not saved anything yet")
    wrong = ""
    for step in reversed(steps_in(folder)):
        found = damage_seen_by_all(folder / CHECKPOINTS / str(step), together, ("params", "meta"))
        if found and not fall_back and step != steps_in(folder)[0]:
            raise UserError(
                f"{folder}: its newest checkpoint is damaged: {found}; remove {folder / CHECKPOINTS / str(step)} and "
                "rerun the command that made it, which resumes from the one before"
            )
        if not found:
            if wrong:
                print(f"{folder}: {wrong}; taking the checkpoint of step {step} instead", file=sys.stderr, flush=True)
            return step
        wrong = wrong or found
    if wrong:
        raise UserError(f"{folder} has no checkpoint that is whole: {wrong}; {AGAIN}")
    raise UserError(f"{folder / CHECKPOINTS} holds no finished checkpoint; {AGAIN}")


def read_meta(folder: Path, step: int) -> dict[str, Any]:
    """The JSON saved with checkpoint `step` of a stage folder; empty when there is none. Raises UserError."""
    path = folder / CHECKPOINTS / str(step) / "meta" / "metadata"
    return read_json(path) if path.is_file() else {}
