"""A stage of a recipe as a test changes it further; `eve_jax.recipe.stage_of_recipe` gives a frozen one."""

from pathlib import Path

from ml_collections import ConfigDict


def placed(config: ConfigDict, work: Path, init: str) -> ConfigDict:
    """`config` with WORKDIR in its paths replaced, starting from `init`, without evaluation."""
    c = config.copy_and_resolve_references()
    for field in ("records", "images", "tokenizer"):
        c.data[field] = c.data[field].replace("WORKDIR", str(work))
    c.eval.records = c.eval.tasks = ""
    c.eval.every = 0
    c.init = init
    return c
