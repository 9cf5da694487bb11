"""A recipe: stages in order, with the demo's data before and its report after.

A stage starts from the one before it; in a recipe that is a tree, the first stage of a branch says where it starts by
`init = "WORKDIR/STAGE"`.
"""

from pathlib import Path

from ml_collections import ConfigDict

from eve_jax.errors import UserError
from eve_jax.process.connect import by_process_0, say
from eve_jax.process.paths import expand
from eve_jax.train.report import reported
from eve_jax.train.shared_data import written_by_one_run
from eve_jax.train.trainer import train


def placed(config: ConfigDict, workdir: Path, init: str) -> ConfigDict:
    """A stage's config with WORKDIR in its paths resolved and `init` where it names no checkpoint of its own."""
    c = config.copy_and_resolve_references()
    for field in ("records", "images", "tokenizer"):
        c.data[field] = c.data[field].replace("WORKDIR", str(workdir))
    c.init = c.init.replace("WORKDIR", str(workdir)) or init
    return c


def run_recipe(config: ConfigDict, workdir: Path) -> None:
    """Train every stage of `config.order` that is not done; then, for a demo or a comparison, answer and report."""
    if "order" not in config:
        raise UserError(
            f"--config={config.name} is one stage, not a recipe: use launch.train, or a recipe such as demo"
        )
    if unknown := [name for name in config.order if name not in config.stages]:
        raise UserError(
            f"--config.order names stages that {config.name} does not have: {', '.join(map(repr, unknown))}; a list is "
            f'written as in Python, --config.order="{tuple(config.stages)[:2]}"; stages: {", ".join(config.stages)}'
        )
    workdir = Path(expand(workdir, "workdir"))
    with written_by_one_run(workdir, "the recipe"):
        _run_stages(config, workdir)


def _run_stages(config: ConfigDict, workdir: Path) -> None:
    if "demo" in config:
        with by_process_0("data") as mine:
            if mine:
                from eve_jax.demo.dataset import settings_from, write_dataset

                write_dataset(workdir / "data", seed=config.demo.seed, settings=settings_from(config.demo))
    init = ""
    for number, name in enumerate(config.order, 1):
        say(f"[{number}/{len(config.order)}] {name}")
        with reported(workdir / config.stages[name].name):
            init = str(train(placed(config.stages[name], workdir, init), workdir))
    with by_process_0("report") as mine:
        if mine and "compare" in config:
            from eve_jax.demo.variants import compare

            compare(config, workdir)
        elif mine and "demo" in config:
            from eve_jax.demo.evaluate import evaluate

            evaluate(config, workdir, Path(init))
