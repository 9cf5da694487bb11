"""Checkpoints of a process's own shards on a disk of its own host, between those on shared storage.

LOCAL_DIR/<stage>-<hash of its folder>/process-I/<step>/{state,copy.json,manifest.json}, written by Orbax's manager for
local copies (orbax.checkpoint.experimental.emergency.p2p). A process reads back what it wrote itself: a copy is used
when every process has it, whole, with the shards that it now needs; then it takes the place of an older checkpoint.
"""

import hashlib
import json
import secrets
import shutil
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from eve_jax.checkpoint.checksums import damage, has_manifest, write_manifest
from eve_jax.errors import UserError
from eve_jax.model.eve import Params
from eve_jax.process.files import read_json, write_json
from eve_jax.process.peers import Peers

COPY = "copy.json"  # what was saved, for which run
RUN = "local_copies.json"  # in the stage's folder: which copies are of this run of it
ITEM = "state"


@dataclass(frozen=True)
class LocalSettings:
    """`config.train.local_dir` and `local_every`, and the mesh whose shards are kept."""

    folder: str
    every: int
    mesh: jax.sharding.Mesh


class LocalCopies:
    """The newest copies of the stage in `stage`; `step` is that of the one to resume from, None without one.

    All processes of a run make one, save and restore together. Raises UserError when the folder cannot be written.
    """

    def __init__(self, settings: LocalSettings, stage: Path, peers: Peers | None):
        name = f"{stage.name}-{hashlib.blake2b(str(stage.resolve()).encode(), digest_size=6).hexdigest()}"
        self.peers, self.settings = peers, settings
        self.folder = Path(settings.folder).absolute() / name / f"process-{peers.index if peers else 0}"
        self.step: int | None = None
        self.meta: dict[str, Any] = {}
        _p2p("local")
        self._run = self._identity(stage)
        self._manager: Any = None
        self._saving: tuple[int, dict[str, Any]] | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"config.train.local_dir: {self.folder} cannot be made: {error.strerror}") from error

    def due(self, step: int) -> bool:
        """Whether a copy is to be made after `step` steps."""
        return step % self.settings.every == 0

    def choose(self, shared: int | None) -> None:
        """Set `step` and `meta` to the newest copy that all have whole and that is newer than checkpoint `shared`.

        All others are removed: they are older, of another run, or lack a part.
        """
        mine = [step for step in self._steps() if step > (-1 if shared is None else shared) and self._copy(step)]
        every = [set(json.loads(text)) for text in self._gather("copies", json.dumps(mine))]
        for step in sorted(set.intersection(*every), reverse=True):
            mine_wrong = damage(self.folder / str(step), needed=ITEM)
            wrong = next((text for text in self._gather("copy", mine_wrong) if text), "")
            if not wrong:
                self.step, self.meta = step, self._copy(step)["meta"]
                break
            if self.peers is None or self.peers.index == 0:
                print(f"the local copy of step {step} is not used: {wrong}", file=sys.stderr, flush=True)
        for path in self.folder.iterdir():
            if path.name != str(self.step):
                shutil.rmtree(path, ignore_errors=True)

    def save(self, step: int, params: Params, optimizer: Any, meta: dict[str, Any]) -> None:
        """Copy the shards of this process; returns when the values are off the devices. Raises UserError."""
        self.finish()
        state = {"params": params, "optimizer": optimizer}
        about = {"run": self._run, "mesh": _places(self.settings.mesh), "shards": shards_of(state), "meta": meta}
        try:
            self._managed.save(step, _p2p("args").Composite(state=ocp.args.PyTreeSave(state)), force=True)
        except (OSError, ValueError) as error:
            raise self._failed(error) from error
        self._saving = step, about

    def check(self) -> None:
        """Let the copy in the background count if it is written. Raises UserError when it cannot be."""
        if self._saving is not None and not self._managed.is_saving_in_progress():
            self.finish()

    def finish(self) -> None:
        """Wait for the copy in the background; it counts from then on. Raises UserError when it cannot be written."""
        if self._saving is None:
            return
        (step, about), self._saving = self._saving, None
        try:
            self._managed.wait_until_finished()
            write_json(self.folder / str(step) / COPY, about)
            write_manifest(self.folder / str(step))
        except (OSError, ValueError) as error:
            raise self._failed(error) from error

    def restore(self, params: Params, optimizer: Any) -> tuple[Params, Any]:
        """Parameters and optimizer of the copy `step`, with the shards of these abstract trees.

        Raises UserError where it holds others, which the settings of a run do not allow.
        """
        assert self.step is not None
        item = {"params": params, "optimizer": optimizer}
        if not all(self._gather("fits", "yes" if self._copy(self.step)["shards"] == shards_of(item) else "")):
            raise UserError(
                f"{self.folder}: the local copy of step {self.step} holds other weights or shards than this run needs; "
                "resume with the settings that it was made with, or without config.train.local_dir from the last "
                "checkpoint"
            )
        found = self._managed.restore(self.step, _p2p("args").Composite(state=ocp.args.PyTreeRestore(item)))[ITEM]
        return found["params"], found["optimizer"]

    def close(self) -> None:
        """Wait for what is being written."""
        self.finish()
        if self._manager is not None:
            self._manager.close()

    @property
    def _managed(self) -> Any:
        if self._manager is None:
            # Two: a process that is quicker than another removes no copy that the other still lacks the next of.
            local = _p2p("options").LocalCheckpointOptions(save_interval_steps=1, max_to_keep=2)
            options = _p2p("options").CheckpointManagerOptions(local=local)
            self._manager = _p2p("local").LocalCheckpointManager(self.folder, self.settings.mesh, options=options)
        return self._manager

    def _identity(self, stage: Path) -> str:
        """The mark of this run of the stage, made with its first copy: one that begins anew has another."""
        path = stage / RUN
        if (self.peers is None or self.peers.index == 0) and not path.is_file():
            write_json(path, {"run": secrets.token_hex(8)})
        mine = read_json(path)["run"] if self.peers is None or self.peers.index == 0 else ""
        return self._gather("local run", mine)[0]

    def _steps(self) -> list[int]:
        return [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal() and has_manifest(path)]

    def _copy(self, step: int) -> dict[str, Any]:
        """What was saved with a copy, empty when it is of another run, or on another mesh."""
        try:
            found = read_json(self.folder / str(step) / COPY)
        except UserError:
            return {}
        ours = found.get("run") == self._run and found.get("mesh") == _places(self.settings.mesh)
        return found if ours and {"shards", "meta"} <= found.keys() else {}

    def _gather(self, name: str, value: str) -> list[str]:
        return [value] if self.peers is None else self.peers.gather(name, value)

    def _failed(self, error: Exception) -> UserError:
        why = getattr(error, "strerror", None) or str(error).split("\n")[0]
        return UserError(
            f"{self.folder}: a local copy could not be written ({why}); make room there, or train without "
            "config.train.local_dir"
        )


def _p2p(module: str) -> Any:
    """A module of Orbax's experimental manager, whose place later versions may change. Raises UserError."""
    try:
        return import_module(f"orbax.checkpoint.experimental.emergency.p2p.{module}")
    except ImportError as error:
        raise UserError(
            f"config.train.local_dir: this version of orbax-checkpoint has no manager for local copies ({error}); "
            "install the one of constraints.txt, or leave local_dir empty"
        ) from error


def _places(mesh: jax.sharding.Mesh) -> str:
    """The mesh and where its devices are: a process reads back what it wrote only where these are the same."""
    return f"{dict(mesh.shape)} {[(d.process_index, d.id) for d in mesh.devices.flat]}"


def shards_of(tree: Any) -> str:
    """A digest of names, dtypes and shapes of arrays (or abstract ones), and of their parts that our devices hold.

    Local copies hold those parts alone; others would be read as zeros.
    """
    lines = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        index = leaf.sharding.addressable_devices_indices_map(leaf.shape).values()
        boxes = sorted({str([s.indices(n)[:2] for s, n in zip(i, leaf.shape, strict=True)]) for i in index})
        lines.append(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape} {boxes}")
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()
