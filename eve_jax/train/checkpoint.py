"""Orbax checkpoints of a stage folder: parameters and optimizer as separate items, the rest as JSON.

FOLDER/config.json, FOLDER/tokenizer.json, FOLDER/checkpoints/<step>/{params,optimizer,meta}. Parameters have
the flat names of `eve_jax.model.eve.Params`.
"""

import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"


class Checkpoints:
    """The checkpoints of one run; saving is asynchronous and atomic, the newest `keep` stay."""

    def __init__(self, folder: Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        self.manager = ocp.CheckpointManager((folder / CHECKPOINTS).resolve(), options=options)

    @property
    def latest(self) -> int | None:
        """Newest finished step, None when there is none."""
        return self.manager.latest_step()

    def save(self, step: int, params: Params, optimizer: Any, meta: dict[str, Any]) -> None:
        """Save step `step` unless it is there; returns when the values are copied, not when they are written."""
        if step in self.manager.all_steps():
            return
        items = {
            "params": ocp.args.StandardSave(params),
            "optimizer": ocp.args.StandardSave(optimizer),
            "meta": ocp.args.JsonSave(meta),
        }
        self.manager.save(step, args=ocp.args.Composite(**items))

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON saved with `step`; empty for a checkpoint that no training saved."""
        if not (self.manager.directory / str(step) / "meta").is_dir():
            return {}
        return self.manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]

    def restore(self, step: int, params: Params, optimizer: Any) -> tuple[Params, Any]:
        """Parameters and optimizer of `step` with the shapes, dtypes and shardings of the abstract trees given."""
        items = {
            "params": ocp.args.StandardRestore(params),
            "optimizer": ocp.args.StandardRestore(optimizer),
        }
        restored = self.manager.restore(step, args=ocp.args.Composite(**items))
        return restored["params"], restored["optimizer"]

    def close(self) -> None:
        """Wait for what is being written."""
        self.manager.wait_until_finished()
        self.manager.close()


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration that a stage folder was made with; UserError when the folder is none of ours."""
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder} is no checkpoint of eve_jax: it has no {CONFIG}")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def load_params(folder: Path, shardings: dict[str, Any] | None = None) -> tuple[ModelConfig, Params]:
    """Model sizes and newest parameters of a stage folder; parameters alone, no optimizer.

    `shardings` may name a sharding for some or all parameters; the others go to the default device.
    """
    config = read_config(folder)
    cfg = ModelConfig.from_dict(config["model"])
    if not (folder / CHECKPOINTS).is_dir():
        raise UserError(f"{folder} has no {CHECKPOINTS} folder: its training has not saved anything yet")
    tree = ocp.StandardCheckpointHandler()
    handlers = {"params": tree, "optimizer": tree, "meta": ocp.JsonCheckpointHandler()}
    me = jax.process_index()  # each process reads on its own, and some may not read at all
    alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"{me}")
    options = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=alone)
    root = (folder / CHECKPOINTS).resolve()
    with ocp.CheckpointManager(root, item_handlers=handlers, options=options) as manager:
        step = manager.latest_step()
        if step is None:
            raise UserError(f"{folder / CHECKPOINTS} holds no finished checkpoint")
        default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = {
            name: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=(shardings or {}).get(name, default))
            for name, m in manager.item_metadata(step)["params"].items()
        }
        restored = manager.restore(step, args=ocp.args.Composite(params=ocp.args.StandardRestore(abstract)))
    return cfg, restored["params"]
