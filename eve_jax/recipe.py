"""A recipe: stages in order, with the demo's data before and its report after.

A stage starts from the one before it; in a recipe that is a tree, the first stage of a branch says where it starts by
`init = "WORKDIR/STAGE"`.
"""

import copy
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from eve_jax.checkpoint.stage_folder import steps_in
from eve_jax.config.stage import Config
from eve_jax.data.sources.records import check_present
from eve_jax.demo.config import DemoConfig, RecipeConfig
from eve_jax.errors import Field, FieldError, UserError, name_fields
from eve_jax.experiments.config import ExperimentConfig
from eve_jax.process.at_step import at_step
from eve_jax.process.connect import by_process_0, count, print_once
from eve_jax.process.hub import HUB
from eve_jax.process.paths import DATA_FIELDS, EVAL_FIELDS, WORKDIR, expand
from eve_jax.process.published import in_bucket, own, work_folder
from eve_jax.process.section import Section
from eve_jax.train.initial_state import check_before
from eve_jax.train.report import reported
from eve_jax.train.shared_data import written_by_one_run
from eve_jax.train.trainer import train


def stage_of_recipe(config: ConfigDict | Config, workdir: Path, init: str) -> Config:
    """Return a stage's config with WORKDIR in its paths resolved and `init` where it names no checkpoint of its own."""
    config = Config.of(config)

    def placed(section: Section, names: Iterable[str]) -> Any:
        return replace(section, **{name: getattr(section, name).replace(WORKDIR, str(workdir)) for name in names})

    start = config.init.replace(WORKDIR, str(workdir)) or init
    config = placed(config, ("teacher", "encoder"))
    data, held_out = placed(config.data, DATA_FIELDS), placed(config.eval, EVAL_FIELDS)
    return replace(config, init=start, data=data, eval=held_out).with_own_template()


def train_stage(config: ConfigDict | Config, workdir: Path, quiet: bool = False) -> Path:
    """Train a stage as `eve_jax.train.trainer.train` does, and ask the questions of its `config.eval.tasks`."""
    from eve_jax.eval.training import LiveTasks, check_tasks

    config = Config.of(config)
    check_tasks(config.eval)
    return train(config, workdir, quiet, LiveTasks)


def recipe_of(config: ConfigDict | RecipeConfig) -> RecipeConfig:
    """Return `RecipeConfig.of(config)`; where the hub does not give an experiment's LLM, its cost is printed first."""
    try:
        return RecipeConfig.of(config)
    except UserError as error:
        if isinstance(config, RecipeConfig) or "experiment" not in config:
            raise
        without = copy.deepcopy(config)
        for stage in without.stages.values():
            stage.init = "" if stage.init.startswith(HUB) else stage.init
            stage.data.tokenizer = "" if stage.data.tokenizer.startswith(HUB) else stage.data.tokenizer
        if without == config:
            raise
        found = RecipeConfig.of(without)
        _print_cost(found)
        raise UserError(f"{error}; or name a folder that has it: llm=FOLDER,size=1.5b or size=paper") from error


def _print_cost(config: RecipeConfig) -> None:
    if config.experiment is not None:
        from eve_jax.experiments.cost import cost_lines

        print_once("\n".join(cost_lines(config.experiment, [config.stages[name] for name in config.order])))


def run_recipe(config: ConfigDict | RecipeConfig, workdir: Path) -> None:
    """Train every stage of `config.order` that is not done; then, for a demo or a comparison, answer and report.

    An experiment prints what it will cost before, and is scored as its stages end. Raises UserError.
    """
    from eve_jax.eval.training import check_tasks

    config = recipe_of(config)
    _print_cost(config)
    if config.pretrain is not None:
        from eve_jax.demo.pretrain.run import lines

        print_once("\n".join(lines(config.pretrain)))
    for number, name in enumerate(config.order):
        with name_fields(f"config.stages.{name}.{{}}".format):
            if config.experiment is not None:
                first = number == 0 and config.demo is None
                config.experiment.check_start(name, config.stages[name].init, first)
                config.experiment.check_records(config.stages[name].data.records)
            config.stages[name].check_data(starts=number == 0)
            before = config.stages[config.order[number - 1]] if number and not config.stages[name].init else None
            if before is not None and before.lora.rank:
                raise FieldError(
                    Field("init"),
                    f" is empty, so that the stage would start from {before.name}, which has adapters: end the recipe "
                    "there, add them in by `launch.convert merge`, and name that folder in a recipe of its own",
                )
            check_tasks(config.stages[name].eval)
    for name in config.order:  # now, not after the stages before it
        with name_fields(f"config.stages.{name}.{{}}".format):
            check_present(config.stages[name].data.records, config.stages[name].data.images)
    if config.loop is not None:
        from eve_jax.demo.engine import check_installed

        if count() > 1:
            raise UserError(f"{config.name} curates and captions in one process: run it on one host")
        check_installed(config.loop)
    workdir = own(Path(expand(workdir, "workdir", work_folder)))
    _check_starts(config, workdir)
    with ExitStack() as held:
        if not held.enter_context(in_bucket(workdir, "the recipe")):
            held.enter_context(written_by_one_run(workdir, "the recipe"))
        _run_stages(config, workdir)


def _check_starts(config: RecipeConfig, workdir: Path) -> None:
    """Raise UserError where a stage that has not begun could not: of all, before the first one trains."""
    for name in config.order:
        stage = config.stages[name]
        if steps_in(workdir / stage.name):
            continue
        with name_fields(f"config.stages.{name}.{{}}".format):
            if stage.init and Path(stage.init).resolve().is_relative_to(workdir.resolve()):
                inside = Path(stage.init).resolve().relative_to(workdir.resolve())
                stage = replace(stage, init=f"{WORKDIR}/{inside}")
            check_before(stage)
            _check_step(stage.init, workdir)


def _check_step(init: str, workdir: Path) -> None:
    """Raise FieldError where `init` is a step of a stage of the recipe that was trained without keeping it."""
    folder, step = at_step(init.replace(WORKDIR, str(workdir)))
    kept = steps_in(Path(folder)) if step is not None and init.startswith(WORKDIR) else []
    if kept and step is not None and step not in kept and step < kept[-1]:
        raise FieldError(
            Field("init"),
            f"={init}: {Path(folder).name} is trained and keeps the steps {', '.join(map(str, kept))}. The points of a "
            f"curve are settled by its first run: take another --workdir, or remove {folder}, which trains it again",
        )


def _write_data(demo: DemoConfig, workdir: Path) -> None:
    """Write the demo's records, and what else its config asks for: captions of other quality, held-out texts."""
    from eve_jax.demo.caption_sets import write_caption_sets
    from eve_jax.demo.dataset import write_dataset
    from eve_jax.demo.variants import write_texts

    write_dataset(workdir / "data", seed=demo.seed, settings=demo.dataset)
    if demo.caption_sets:
        write_caption_sets(workdir / "captions", workdir / "data", demo.dataset, demo.seed)
    if demo.held_texts:
        write_texts(workdir, demo.dataset, demo.seed, demo.held_texts)


def _score(experiment: ExperimentConfig, workdir: Path, stage: Config) -> None:
    """Score a trained stage of an experiment, if it is one of those that are."""
    from eve_jax.experiments.score import score_stage

    asked = stage.name in {point.scored for point in experiment.points}
    of_texts = experiment.texts and stage.name in (*experiment.trained, experiment.before)
    if asked or of_texts:
        score_stage(experiment, workdir, stage, texts_alone=not asked)


def _run_stages(config: RecipeConfig, workdir: Path) -> None:
    if config.demo is not None:
        with by_process_0("data") as mine:
            if mine:
                _write_data(config.demo, workdir)
    if config.experiment is not None:
        from eve_jax.experiments.score import check_asked

        check_asked(config.experiment, workdir)
    if config.demo is not None and config.pretrain is not None:
        from eve_jax.demo.pretrain.run import pretrain

        with by_process_0("pre-training") as mine:
            if mine:
                pretrain(config.pretrain, config.demo, workdir)
    if config.demo is not None and config.loop is not None:
        from eve_jax.demo.engine import prepare

        prepare(config.loop, config.demo, workdir)
    init = ""
    for number, name in enumerate(config.order, 1):
        print_once(f"[{number}/{len(config.order)}] {name}")
        fields = name_fields(f"config.stages.{name}.{{}}".format)
        with fields, reported(workdir / config.stages[name].name):
            init = str(train_stage(stage_of_recipe(config.stages[name], workdir, init), workdir))
        if config.experiment is not None:
            with name_fields("config.experiment.{}".format):
                _score(config.experiment, workdir, config.stages[name])
        if config.loop is not None and name == config.loop.captioner:
            from eve_jax.demo.engine import caption_web

            caption_web(config.loop, workdir, Path(init))
    with by_process_0("report") as mine:
        if mine and config.loop is not None:
            from eve_jax.demo.engine_report import compare_captions

            compare_captions(config, workdir)
        elif mine and config.experiment is not None:
            from eve_jax.experiments.report import report

            report(config.name, config.experiment, workdir)
        elif mine and config.compare is not None:
            from eve_jax.demo.variants import compare

            compare(config, workdir)
        elif mine and config.demo is not None:
            from eve_jax.demo.finish import finish

            finish(config, workdir, Path(init))
