"""The demo's data, and a stage as a test changes it further; `eve_jax.recipe.stage_of_recipe` gives a frozen one."""

import functools
import shutil
from pathlib import Path

from ml_collections import ConfigDict

from eve_jax.demo.dataset import write_dataset
from tests.scratch import scratch


@functools.cache
def _once() -> Path:
    """The demo's data at test size, written once in a process."""
    return write_dataset(scratch("eve_jax_demo_") / "data", "tiny")


def demo_data(folder: Path) -> Path:
    """Make `folder` the demo's data at test size, a copy that the test may change; return it."""
    shutil.copytree(_once(), folder)
    return folder


def with_demo_data(work: Path) -> dict[str, list[str]]:
    """Write the demo's data at test size into `work`; return the lines of its captions and its held-out questions."""
    demo_data(work / "data")
    names = ("captions", "heldout")
    return {name: (work / "data" / f"{name}.jsonl").read_text().splitlines() for name in names}


def placed(config: ConfigDict, work: Path, init: str) -> ConfigDict:
    """`config` with WORKDIR in its paths replaced, starting from `init`, without evaluation."""
    c = config.copy_and_resolve_references()
    for field in ("records", "images", "tokenizer"):
        c.data[field] = c.data[field].replace("WORKDIR", str(work))
    c.eval.records = c.eval.tasks = ""
    c.eval.every = 0
    c.init = init
    return c
