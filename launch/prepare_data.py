"""Records made ready for training, and rows looked at.

    python -m launch.prepare_data convert --from=RECORDS [--images=DIR] --to=DIR [--config=stage3 --config.data...]
    python -m launch.prepare_data inspect RECORDS [--images=DIR] [--config=stage3 --config.data...]
    python -m launch.prepare_data show --config=stage3 [--workdir=runs] --step=K --out=rows.html [--config.data...]

`convert` writes any source (JSON, JSONL, Parquet, tar, TFDS; see docs) as ArrayRecord shards with the images inside,
which `config.data.records=DIR` then names; with `--config`, the lengths table for that stage's tokenizer, template and
image rule, too. Rerun the command to resume after an interruption.
`inspect` prints what is understood of the records, and three of them as they would be trained.
`show` writes an HTML page with the rows of a step as the model gets them. For a stage of a recipe: --config=demo
--stage=stage3.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from eve_jax.errors import UserError, amount, name_fields
from eve_jax.process import fetched
from eve_jax.process.cores import MOST_WORKERS
from eve_jax.process.paths import expand_list
from eve_jax.process.published import in_bucket, work_folder
from launch._configs import define_config, stage_named
from launch._flags import define_path, is_given, refuse_others, run, take_action

if TYPE_CHECKING:
    from eve_jax.data.image.rule import ImageRule

CONFIG = define_config()
flags.declare_key_flag("config")
FROM_IS = "convert, inspect: the records, as config.data.records takes them"
FROM = define_path("from", "", FROM_IS, several=True, remote=fetched.fetch)
IMAGES = define_path(
    "images", "", "convert, inspect: folder that image paths of the records start from", remote=fetched.images
)
TO = define_path("to", "", "convert: folder to make", remote=work_folder)
SHARD = flags.DEFINE_integer("records_per_shard", 10_000, "convert: records of the source in each shard")
CHECK = flags.DEFINE_string("check", "headers", "convert: headers | decode (every image, to drop those that break)")
PROCESSES = flags.DEFINE_integer("processes", 0, "convert: at work at a time; 0 = one for each core", 0, MOST_WORKERS)
WORKDIR = define_path("workdir", "", "show: that of the training, whose plan is then used; else a plan is made")
STAGE = flags.DEFINE_string("stage", "", "show: which stage of a recipe")
STEP = flags.DEFINE_integer("step", 0, "show: number of the step, from 0", lower_bound=0)
ROWS = flags.DEFINE_integer("max_rows", 8, "show: rows at most", lower_bound=1)
OUT = define_path("out", "", "show: page to write (.html)")
BAD_RECORDS = "bad_records.jsonl"
RECORDS = "RECORDS"  # what `inspect` takes without the name of a flag
ACTIONS = ("convert", "inspect", "show")
FOR: dict[str, tuple[str, ...]] = {}  # the actions that a flag is for
FOR |= dict.fromkeys(("from", "images"), ("convert", "inspect"))
FOR |= dict.fromkeys(("to", "records_per_shard", "check", "processes"), ("convert",))
FOR |= dict.fromkeys(("workdir", "stage", "step", "max_rows", "out"), ("show",))


def main(action: str, records: str = "") -> None:
    """Do `action`; records: what `inspect` was given without the name of a flag."""
    from eve_jax.process import interrupt

    refuse_others(action, FOR)
    interrupt.ready()
    {"convert": _convert, "inspect": lambda: _inspect(records), "show": _show}[action]()


def _need(**values: Any) -> None:
    missing = [name if name == RECORDS else f"--{name}" for name, value in values.items() if not value]
    if missing:
        raise UserError(f"{' and '.join(missing)} must be given (see --help)")


def _convert() -> None:
    from eve_jax.config.stage import Config
    from eve_jax.data.image.rule import CODES
    from eve_jax.data.prepare.convert import Conversion, convert
    from eve_jax.data.prepare.summary import print_summary
    from eve_jax.data.samples.sample_rule import SampleRule
    from eve_jax.process.places import shown

    _need(**{"from": FROM.value, "to": TO.value})
    rule = SampleRule.of(Config.of(CONFIG.value)) if CONFIG.value is not None else None
    processes = PROCESSES.value or os.cpu_count() or 1
    conversion = Conversion(FROM.value or "", IMAGES.value or "", TO.value or "", SHARD.value or 0, CHECK.value or "")
    if rule is not None:
        conversion = replace(conversion, max_pixels=rule.images.max_pixels)
        if rule.images.mode == CODES:
            if (PROCESSES.value or 1) > 1:
                raise UserError(
                    f"--processes={PROCESSES.value}: codes of images are made in one process, which uses every core or "
                    "accelerator; leave --processes out"
                )
            conversion, processes = replace(conversion, codes=_with_coder(rule.images)), 1
    with name_fields(_flag), in_bucket(Path(conversion.folder), "converting"):
        summary = convert(conversion, rule, processes)
    print_summary(summary)
    if not summary["kept"]:
        raise UserError(
            f"{TO.value}: none of the {amount(summary['dropped'], 'record')} can be used; see its {BAD_RECORDS}"
        )
    print(shown(f"done: {TO.value}"))


def _with_coder(images: "ImageRule") -> "ImageRule":
    """The rule for codes with what makes them."""
    from eve_jax.config.stage import Config
    from eve_jax.hf.vision_tokenizer import VisionCoder, check_vision_tokenizer
    from eve_jax.process.setup import setup
    from eve_jax.train.stage_files import vision_tokenizer

    config = Config.of(CONFIG.value)
    folder = vision_tokenizer(config)
    check_vision_tokenizer(config.sizes, images, folder)
    setup(computes=True)
    return replace(images, coder=VisionCoder(folder))


def _flag(field: str) -> str:
    return {"data.records": "--from", "data.images": "--images"}.get(field, f"config.{field}")


def _argument(field: str) -> str:
    return RECORDS if field == "data.records" else _flag(field)


def _inspect(records: str) -> None:
    from eve_jax.config.stage import Config
    from eve_jax.data.samples.sample_rule import SampleRule
    from eve_jax.data.view.inspect import inspect

    config = CONFIG.value if CONFIG.value is None else Config.of(CONFIG.value)
    rule = None if config is None else SampleRule.of(config)
    if records and is_given("from"):
        raise UserError(f"{RECORDS} and --from are both given; leave one of them out")
    named = expand_list(records, remote=fetched.fetch) or FROM.value
    names = named or (config.data.records if config is not None else "")
    _need(**{RECORDS: names})
    images = IMAGES.value or (config.data.images if config is not None else "")
    with name_fields(_argument):
        for line in inspect(names, images, rule):
            print(line)


def _show() -> None:
    from eve_jax.config.stage import Config
    from eve_jax.data.view.step import show_step
    from eve_jax.train.lineage import as_begun

    _need(config=CONFIG.value, out=OUT.value)
    config, workdir = CONFIG.value, Path(WORKDIR.value or "")
    if "order" in config:
        from eve_jax.demo.config import RecipeConfig
        from eve_jax.recipe import stage_of_recipe

        stage_named(config, STAGE.value or "")
        _need(workdir=WORKDIR.value)
        config = stage_of_recipe(RecipeConfig.of(config).stages[STAGE.value], workdir, "")
    else:
        config = Config.of(stage_named(config, STAGE.value or ""))
    folder = workdir / config.name if WORKDIR.value else None
    config = config if folder is None else as_begun(folder, config)
    show_step(config, folder, STEP.value or 0, OUT.value, ROWS.value or 1)
    print(f"done: {OUT.value}")


if __name__ == "__main__":
    chosen = take_action(sys.argv, "launch.prepare_data", ACTIONS)
    named = ""
    if chosen == "inspect" and len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        named = sys.argv.pop(1)
    run(lambda: main(chosen, named))
