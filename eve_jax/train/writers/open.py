"""Which writers `config.train.writers` names."""

from collections.abc import Callable
from contextlib import ExitStack

from eve_jax.errors import UserError
from eve_jax.process.named import is_named, load_class, make_named
from eve_jax.train.writers.base import RunInfo, Writer
from eve_jax.train.writers.jsonl import JsonlWriter
from eve_jax.train.writers.mlflow_run import MlflowWriter, check_mlflow
from eve_jax.train.writers.progress_line import ProgressLine
from eve_jax.train.writers.tensorboard import TensorBoardWriter
from eve_jax.train.writers.wandb_run import WandbWriter, check_wandb

FIELD, TRACK = "config.train.writers", "config.track"
MEMBERS = ("write", "flush", "close")
WRITERS: dict[str, Callable[[RunInfo], Writer]] = {
    "tensorboard": TensorBoardWriter,
    "progress": ProgressLine,
    "wandb": WandbWriter,
    "mlflow": MlflowWriter,
}
TRACKERS = {"wandb": check_wandb, "mlflow": check_mlflow}  # services, of extras


def split_writers(names: str) -> list[str]:
    """Return the writers that `names` lists, names of WRITERS or `module:Class`; "" and "none" are no writer.

    Raises UserError for one that is unknown, listed twice, or whose package or class is missing.
    """
    listed = [name for name in map(str.strip, names.split(",")) if name and names.strip() != "none"]
    for name in listed:
        if listed.count(name) > 1:
            raise UserError(f"{FIELD}={names}: {name} is listed twice")
        if is_named(name):
            load_class(name, FIELD, "writer")
        elif name not in WRITERS:
            known = ", ".join(WRITERS)
            raise UserError(f"{FIELD}={names}: unknown writer {name!r}; known: {known}, module:Class, or none")
    for name in listed:
        if name in TRACKERS:
            TRACKERS[name]()
    return listed


def with_trackers(writers: str, track: str) -> str:
    """Return the writers `config.train.writers` and the trackers `config.track` as one list of writers, each once.

    Raises UserError for a tracker that is unknown.
    """
    trackers = [name for name in map(str.strip, track.split(",")) if name]
    if unknown := [name for name in trackers if name not in TRACKERS]:
        raise UserError(f"{TRACK}={track}: unknown tracker {unknown[0]!r}; known: {', '.join(TRACKERS)}")
    listed = [name for name in map(str.strip, writers.split(",")) if name and name != "none"]
    more = [name for name in dict.fromkeys(trackers) if name not in listed]
    return ",".join((*listed, *more)) if more else writers


def open_writers(names: str, run: RunInfo) -> list[Writer]:
    """Return the writers of a run: that of metrics.jsonl, which every run has, and those of `names`.

    Raises UserError when one cannot be opened; those before it are closed then.
    """
    with ExitStack() as opened:
        writers: list[Writer] = []
        for make in (JsonlWriter, *map(_maker, split_writers(names))):
            writers.append(make(run))
            opened.callback(writers[-1].close)
        opened.pop_all()
    return writers


def _maker(name: str) -> Callable[[RunInfo], Writer]:
    return WRITERS.get(name) or (lambda run: make_named(name, FIELD, MEMBERS, "writer", run))
