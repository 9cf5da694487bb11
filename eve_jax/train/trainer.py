"""Training of one stage: from the config and the state of its folder to the last checkpoint."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from eve_jax import sharding
from eve_jax.convert.hf_config import PATCH_FIELDS, SIZES
from eve_jax.convert.source import open_checkpoint
from eve_jax.convert.surgery import complete, refuse_loss
from eve_jax.convert.teacher import with_aligning
from eve_jax.data.pipeline import StageData, open_stage_data
from eve_jax.data.tokenizer import MODEL_FILE, TOKENIZER_FILE
from eve_jax.errors import UserError
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, abstract_params, init_params, logical_axes
from eve_jax.train.checkpoint import CHECKPOINTS, CONFIG, Checkpoints, read_config
from eve_jax.train.interrupt import Interrupted, StopRequest
from eve_jax.train.metrics import Meter, MetricsLog, cut_back
from eve_jax.train.optimizer import abstract_optimizer, optimizer, optimizer_state, schedule
from eve_jax.train.stages import partition, trainable_names
from eve_jax.train.step import StepFunctions, TrainState

# Fields that may differ between the parts of one run without changing a number of it. Paths are among them, since a
# work folder may be moved; the plan's hash tells whether the data behind them is the same.
FREE_FIELDS = (
    "init",
    "teacher",
    "mesh",
    "data.records",
    "data.images",
    "data.tokenizer",
    "data.threads",
    "data.prefetch",
    "data.max_bad",
    "train.log_every",
    "train.save_every",
    "train.keep",
)


@dataclass
class Run:
    """What stays the same while a stage trains."""

    config: ConfigDict
    data: StageData
    identity: dict[str, str]
    mesh: jax.sharding.Mesh
    functions: StepFunctions
    checkpoints: Checkpoints


def train(config: ConfigDict, workdir: Path, quiet: bool = False) -> Path:
    """Train the stage `config` in `workdir`/`config.name`, from its last checkpoint if it has one; returns the folder.

    Raises Interrupted after a save when asked to stop, UserError on bad input.
    """
    if "order" in config:
        raise UserError(f"{config.name} is a recipe of several stages: run it with launch.recipe")
    folder = workdir / config.name
    cfg = ModelConfig.from_dict(config.model.to_dict())
    mesh = sharding.make_mesh(config.mesh)
    data = open_stage_data(config, folder)
    _adopt(folder, config)
    _copy_tokenizer(data, folder, cfg)
    steps = data.plan.steps
    lr = schedule(config.optim, steps)
    tx = optimizer(config.optim, lr)
    checkpoints = Checkpoints(folder, config.train.keep)
    try:
        saved = {} if checkpoints.latest is None else checkpoints.meta(checkpoints.latest)
        origin = _origin(config) or saved.get("origin", "")  # the stage before may have been removed since
        identity = {"plan": data.plan.hash, "origin": origin, "lineage": ""}
        identity["lineage"] = _lineage(config, identity)
        _check_identity(folder, saved, identity)
        if checkpoints.latest != steps:
            state, frozen, start = _start(config, cfg, mesh, tx, checkpoints)
            print(f"{config.name}: {data.summary()}", flush=True)
            cut_back(folder, start)
            run = Run(config, data, identity, mesh, StepFunctions(cfg, tx, lr, mesh), checkpoints)
            meter = Meter(cfg, config.stage, list(mesh.devices.flat))
            log = MetricsLog(folder, config.name, start, steps, config.train.log_every, meter, quiet)
            try:
                _loop(run, state, frozen, start, log)
            finally:
                log.close()
    finally:
        checkpoints.close()
    return folder


def _loop(run: Run, state: TrainState, frozen: Params, start: int, log: MetricsLog) -> None:
    """Steps `start` to the last; saves when due, at the end, and before stopping on request."""
    steps = run.data.plan.steps
    place = sharding.batch_sharding(run.mesh)
    with StopRequest() as stop:
        for step, batches in run.data.batches(start):
            state, metrics = run.functions(state, frozen, [jax.device_put(b, place) for b in batches])
            done = step + 1
            log.add(done, metrics, run.data.counts(step))
            if stop.wanted or done == steps or done % run.config.train.save_every == 0:
                log.flush()
                params = {**state.trainable, **frozen}
                run.checkpoints.save(done, params, state.optimizer, run.identity)
            if stop.wanted and done < steps:
                raise Interrupted(
                    f"{run.config.name} stopped after step {done} of {steps}; repeat the command to go on"
                )


def parameter_shardings(cfg: ModelConfig, mesh: jax.sharding.Mesh) -> dict[str, jax.sharding.NamedSharding]:
    """Sharding of every parameter of the model on `mesh`."""
    axes = logical_axes(cfg)
    return {n: sharding.parameter_sharding(mesh, axes[n], v.shape) for n, v in abstract_params(cfg).items()}


def _origin(config: ConfigDict) -> str:
    """Lineage of the checkpoint that the stage starts from; "" when it has none or is not there (any more)."""
    folder = Path(config.init)
    if not config.init or not (folder / CHECKPOINTS).is_dir():
        return ""
    parent = Checkpoints(folder)
    try:
        return parent.meta(parent.latest).get("lineage", "") if parent.latest is not None else ""
    finally:
        parent.close()


def _lineage(config: ConfigDict, identity: dict[str, str]) -> str:
    """Hash of all that the stage's weights follow from: its settings, its plan, and where it started."""
    settings = {k: v for k, v in _flat(json.loads(config.to_json())).items() if k not in FREE_FIELDS}
    text = json.dumps([settings, identity["plan"], identity["origin"]], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _check_identity(folder: Path, saved: dict[str, str], identity: dict[str, str]) -> None:
    """UserError when the last checkpoint comes from other data, or from another checkpoint than there is now."""
    if not saved:
        return
    if saved.get("plan") != identity["plan"]:
        raise UserError(
            f"{folder}: the data plan is not the last checkpoint's (records or tokenizer have changed); "
            "use another --workdir, or remove the folder and those of the stages after it"
        )
    if saved.get("origin") != identity["origin"]:
        raise UserError(
            f"{folder} was trained from another checkpoint than config.init now holds; "
            "use another --workdir, or remove the folder and those of the stages after it"
        )


def _start(
    config: ConfigDict, cfg: ModelConfig, mesh: jax.sharding.Mesh, tx: Any, checkpoints: Checkpoints
) -> tuple[TrainState, Params, int]:
    """State to go on from: the run's own last checkpoint, else `config.init`, else random weights."""
    shardings = parameter_shardings(cfg, mesh)
    train_set = trainable_names(list(shardings), config.stage)
    dtypes = {n: jnp.dtype(cfg.param_dtype if n in train_set else cfg.frozen_dtype) for n in shardings}
    step = checkpoints.latest
    if step is None:
        params = initial_params(config, cfg, shardings)
        params = {n: jax.device_put(params[n].astype(dtypes[n]), shardings[n]) for n in shardings}
        trainable, frozen = partition(params, config.stage)
        whole = sharding.replicated(mesh)
        opt = optimizer_state(tx, trainable, mesh)
        return TrainState(jax.device_put(np.zeros((), np.int32), whole), trainable, opt), frozen, 0
    shapes = abstract_params(cfg)
    abstract = {n: jax.ShapeDtypeStruct(s.shape, dtypes[n], sharding=shardings[n]) for n, s in shapes.items()}
    trainable, _ = partition(abstract, config.stage)
    params, opt = checkpoints.restore(step, abstract, abstract_optimizer(tx, trainable, mesh))
    trainable, frozen = partition(params, config.stage)
    whole = sharding.replicated(mesh)
    return TrainState(jax.device_put(np.asarray(step, np.int32), whole), trainable, opt), frozen, step


def initial_params(config: ConfigDict, cfg: ModelConfig, shardings: dict[str, Any]) -> Params:
    """Parameters of `config.init`, with vision twins copied from the text weights where it has none, or random ones."""
    if not config.init:
        print(f"{config.name}: config.init is empty, so training starts from random weights", flush=True)
        return with_aligning(cfg, init_params(cfg, config.seed), config.get("teacher", ""), config.seed)
    patch = {field: getattr(cfg, field) for field in PATCH_FIELDS}
    checkpoint = open_checkpoint(config.init, seed=config.seed, **patch)
    source = checkpoint.cfg
    for field in (*SIZES, *PATCH_FIELDS):
        if getattr(source, field) != getattr(cfg, field):
            raise UserError(
                f"config.init={config.init} has {field}={getattr(source, field)}, "
                f"config.model.{field} is {getattr(cfg, field)}"
            )
    refuse_loss(source, cfg)
    params = with_aligning(cfg, checkpoint.params(shardings), config.get("teacher", ""), config.seed)
    return complete(params, abstract_params(cfg))


def _copy_tokenizer(data: StageData, folder: Path, cfg: ModelConfig) -> None:
    if data.tokenizer.vocab_size > cfg.vocab_size:
        raise UserError(
            f"the tokenizer has {data.tokenizer.vocab_size} tokens, config.model.vocab_size is {cfg.vocab_size}"
        )
    if not any((folder / name).exists() for name in (TOKENIZER_FILE, MODEL_FILE)):
        data.tokenizer.save(folder)


def _adopt(folder: Path, config: ConfigDict) -> None:
    """Write the folder's config.json, or check that it agrees with the one that is there."""
    mine = json.loads(config.to_json())
    path = folder / CONFIG
    if not (folder / CHECKPOINTS).is_dir() or not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(mine, indent=1, sort_keys=True))
        temporary.replace(path)
        return
    old, new = _flat(read_config(folder)), _flat(mine)
    for key in sorted(old.keys() | new.keys()):
        if key not in FREE_FIELDS and old.get(key) != new.get(key):
            raise UserError(
                f"{folder} was trained with config.{key}={old.get(key)}, now it is {new.get(key)}; "
                "use another --workdir, or remove the folder and those of the stages after it"
            )


def _flat(tree: dict[str, Any], at: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= _flat(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return out
