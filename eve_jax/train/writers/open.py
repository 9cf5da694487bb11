"""Which writers `config.train.writers` names."""

from collections.abc import Callable
from contextlib import ExitStack

from eve_jax.errors import UserError
from eve_jax.process.named import is_named, load_class, make_named
from eve_jax.train.writers.base import RunInfo, Writer
from eve_jax.train.writers.jsonl import JsonlWriter
from eve_jax.train.writers.progress_line import ProgressLine
from eve_jax.train.writers.tensorboard import TensorBoardWriter
from eve_jax.train.writers.wandb_run import WandbWriter, check_wandb

FIELD = "config.train.writers"
MEMBERS = ("write", "flush", "close")
WRITERS: dict[str, Callable[[RunInfo], Writer]] = {
    "tensorboard": TensorBoardWriter,
    "progress": ProgressLine,
    "wandb": WandbWriter,
}


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
    if "wandb" in listed:
        check_wandb()
    return listed


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
