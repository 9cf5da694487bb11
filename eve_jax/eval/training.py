"""Tasks while a stage trains: `config.eval.tasks`, asked of the weights as they are, where they are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from eve_jax.config.evaluation import PREFIX, EvalConfig
from eve_jax.data.image.rule import CODES, ImageRule
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.errors import Field, FieldError, UserError, warn
from eve_jax.eval.ask import Stopped
from eve_jax.eval.chosen import FILES, Chosen
from eve_jax.eval.live import items_of, open_task, outcome_of, outcome_of_text, shortened
from eve_jax.eval.outcome import Outcome
from eve_jax.eval.registry import benchmark_of
from eve_jax.hf.vision_tokenizer import VisionCoder
from eve_jax.infer.api import EVE, dialogue_template, positions_of
from eve_jax.infer.engine import Engine
from eve_jax.infer.parameters import ready
from eve_jax.model.eve import Params
from eve_jax.process.paths import split_names
from eve_jax.train.evaluation import Setting
from eve_jax.train.stage_files import vision_tokenizer
from eve_jax.weights.base_config import base_config

FIELD = Field("eval.tasks")


class LiveTasks:
    """The headline of each task of `config.eval.tasks`; an `eve_jax.train.evaluation.Evaluator`.

    The questions are kept, their images are not; weights are those of the training where they lie; copied are those of
    another dtype than the computation's, for as long as the tasks are asked.
    """

    def __init__(self, setting: Setting):
        """Open the tasks. Raise UserError for one that cannot be evaluated while training."""
        config = setting.config
        self.config, self.given, self.mesh = config, config.eval, setting.mesh
        self.opened = _opened(config.eval, config.data.images)
        asks = [one for one in self.opened if one.rows is not None]
        tokenizer = setting.rule.tokenizer
        template = dialogue_template(config.data.template, tokenizer) if asks else config.data.template
        first, special = config.data.image_first, config.data.special_text
        layout = replace(config.sizes, longest_image=0).layout  # longest_image is of training alone
        self.rule = SampleRule(tokenizer, _images(setting), template, first, special_text=special, layout=layout)
        self.sees = config.stage != "llm"
        self.positions = positions_of(lambda: base_config(setting.folder, config), setting.folder) if asks else 0
        self.items = {one.task.name: items_of(one, config.eval.limit) for one in asks}
        if not self.sees and (seen := next((i for items in self.items.values() for i in items if i.images), None)):
            raise FieldError(
                FIELD, f": {seen.where} has an image, and a model of ", Field("stage"), "=llm takes none; leave it out"
            )
        self.names = [f"{PREFIX}{one.task.name}" for one in self.opened]
        self.fingerprints = {one.task.name: one.digest for one in self.opened}

    def measure(self, params: Params, stopped: Callable[[], bool]) -> dict[str, float | None] | None:
        """Return the headline of each task, None for one that has none; None when `stopped()` between two batches."""
        engine = Engine(*ready(self.config.sizes, dict(params)), self.mesh)
        eve = EVE(engine, self.rule, self.sees, self.positions, dict(self.config.data))
        values: dict[str, float | None] = {}
        for name, one in zip(self.names, self.opened, strict=True):
            if stopped():
                return None
            try:
                outcome = self._outcome(eve, one, stopped)
            except Stopped:
                return None
            except UserError as error:  # weights that are not finite, a file that is gone
                warn(f"{name} has no value: {error}")
                values[name] = None
                continue
            values[name] = outcome.headline
            if outcome.failed:
                warn(
                    f"{name}: {len(outcome.failed):,} of {len(outcome.items):,} questions were not answered; the "
                    f"first, {outcome.failed[0].error}"
                )
        return values

    def _outcome(self, eve: EVE, one: Chosen, stopped: Callable[[], bool]) -> Outcome:
        if one.text is not None:
            return outcome_of_text(eve, one.task, one.text)
        task = shortened(one.task, self.given.max_new_tokens)
        return outcome_of(eve, task, self.items[one.task.name], self.given.rows, stopped, quiet=True)


def _images(setting: Setting) -> ImageRule:
    """Return the rule for images that are asked about, which makes codes where the model reads those."""
    config = setting.config
    images = ImageRule.of(dict(config.data) | {"fit": config.eval.fit})
    if images.mode != CODES:
        return images
    return replace(images, vocabulary=setting.rule.images.vocabulary, coder=VisionCoder(vision_tokenizer(config)))


def check_tasks(given: EvalConfig) -> None:
    """Raise FieldError for a name of a task that is none: before any data is asked for."""
    for name in split_names(given.tasks):
        if Path(name).suffix.lower() not in FILES:
            try:
                benchmark_of(name.partition(".")[0])
            except UserError as error:
                raise FieldError(FIELD, f": {error}") from None


def _opened(given: EvalConfig, images: str) -> list[Chosen]:
    """Return the tasks of a config. Raise UserError for unknown ones, and for two of one name."""
    check_tasks(given)
    if given.data and not Path(given.data).is_dir():
        raise FieldError(
            f"{given.data}: no such folder; set ", Field("eval.data"), " to the one with the benchmarks' data"
        )
    found: dict[str, Chosen] = {}
    for name in split_names(given.tasks):
        own = Path(name).suffix.lower() in FILES
        if not own and not given.data:
            raise FieldError(FIELD, f": {name} requires ", Field("eval.data"), ", the folder with the benchmarks' data")
        one = open_task(name, given.data, given.protocol, given.images or images)
        if one.task.name in found:
            raise FieldError(FIELD, f"={given.tasks!r}: two tasks are called {one.task.name}; rename a file")
        found[one.task.name] = one
    return list(found.values())
