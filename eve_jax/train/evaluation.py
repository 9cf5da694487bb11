"""Evaluations between the steps of a run: which there are, when they are due, and what they measured.

Evaluators look at the weights that train; they change nothing, so the training's numbers are those of a run without.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jax.sharding import Mesh

from eve_jax.checkpoint.best import Best
from eve_jax.config.evaluation import LOSS, EvalConfig
from eve_jax.config.stage import Config
from eve_jax.data.rows.pipeline import StageData
from eve_jax.data.samples.sample_rule import SampleRule, hash_of
from eve_jax.errors import Field, FieldError
from eve_jax.model.eve import Params
from eve_jax.process.connect import is_leader, print_once
from eve_jax.process.peers import Peers
from eve_jax.train.metrics import read_evaluations
from eve_jax.train.shared_data import same_everywhere
from eve_jax.train.validation import Validation

EVALUATION = "evaluation"  # key of what goes with a checkpoint: fingerprints and values
Values = dict[str, float | None]  # by name, which begins with `eval/`; None where nothing could be measured


class Evaluator(Protocol):
    """What measures a model while it trains.

    names: of all that it measures. fingerprints: hashes, by what they are of, of the data that its values follow from.
    """

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def fingerprints(self) -> Mapping[str, str]: ...

    def measure(self, params: Params, stopped: Callable[[], bool]) -> Values | None:
        """Return what is measured of the model with the weights `params`; None when `stopped()` between two batches.

        All processes of a run call it together, and `stopped` as often.
        """


class Setting(NamedTuple):
    """Where evaluators are opened: a stage's config, how its records become samples, its mesh, and its folder, which
    may not be there yet."""

    config: Config
    rule: SampleRule
    mesh: Mesh
    folder: Path


OpenTasks = Callable[[Setting], Evaluator]  # that of `config.eval.tasks`


class Evaluations:
    """What `config.eval` asks for, of a run of `steps` steps; nothing for a config without.

    done: the steps after which it was measured, by earlier sessions, too.
    """

    def __init__(self, given: EvalConfig, evaluators: Sequence[Evaluator] = ()):
        self.given, self.evaluators, self.steps = given, evaluators, 0
        self.done: dict[int, Mapping[str, Any]] = {}

    @classmethod
    def open(cls, setting: Setting, tasks: OpenTasks | None) -> "Evaluations":
        """Open all that is measured, before the run writes anything. Raise UserError for what cannot be used.

        tasks: opens `config.eval.tasks`; None where the caller does not evaluate tasks, which is an error then.
        """
        given = setting.config.eval
        evaluators: list[Evaluator] = []
        if given.records.strip(", "):
            evaluators.append(Validation(setting.config, setting.rule, setting.mesh))
        if given.tasks.strip(", "):
            if tasks is None:
                raise FieldError(Field("eval.tasks"), " is set: train by eve_jax.recipe.train_stage, which asks them")
            evaluators.append(tasks(setting))
        found = cls(given, evaluators)
        best = setting.config.train.best_by
        if setting.config.train.keep_best and best != LOSS and best not in found.names:
            raise FieldError(Field("train.best_by"), f"={best} is not measured; it is one of {', '.join(found.names)}")
        return found

    @property
    def names(self) -> list[str]:
        """The names of all that is measured."""
        return [name for evaluator in self.evaluators for name in evaluator.names]

    @property
    def fingerprints(self) -> dict[str, str]:
        """Hashes of the data and the settings that the values follow from."""
        found = {what: text for evaluator in self.evaluators for what, text in evaluator.fingerprints.items()}
        free = ("every", "at_start", "rows", "records", "images", "tasks", "data")
        settings = {name: value for name, value in self.given.to_dict().items() if name not in free}
        if not settings["ema"]:
            del settings["ema"]  # the hash of before it was a field
        return found | {"settings": hash_of(settings)} if found else {}

    def begin(self, folder: Path, saved: Mapping[str, Any], data: StageData, peers: Peers | None) -> None:
        """Take over what earlier sessions measured in `folder`; warn where held-out records are trained on.

        saved: what went with the last checkpoint, {} without one; says when its evaluations were of something else.
        Raise UserError when the processes of a run evaluate different data.
        """
        self.steps = data.plan.steps
        if not self.evaluators:
            return
        same_everywhere(peers, "records or questions to evaluate", hash_of(self.fingerprints))
        self.done = {line["step"]: line for line in read_evaluations(folder)} if saved else {}
        before, now = saved.get(EVALUATION, {}).get("fingerprints", {}), self.fingerprints
        if before and before != now:
            changed = ", ".join(sorted(what for what in before.keys() | now if before.get(what) != now.get(what)))
            print_once(
                f"{folder.name}: what is evaluated changed since the last checkpoint ({changed}): values from here on "
                "do not compare with those before"
            )
        for evaluator in self.evaluators:
            if isinstance(evaluator, Validation) and is_leader():
                evaluator.warn_of_overlap(data)
        if peers is not None:  # one file system may show a file later than another
            steps = peers.gather("evaluated", " ".join(map(str, self.done)))[0].split()
            self.done = {int(step): self.done.get(int(step), {}) for step in steps}

    def resume(self, step: int, best: Best | None) -> None:
        """Forget what was measured after `step`, from which the run resumes; tell `best` of the rest."""
        self.done = {at: values for at, values in self.done.items() if at <= step}
        if best is not None:
            for at, values in self.done.items():
                best.note(at, values)

    def due(self, step: int) -> bool:
        """Whether the model is to be evaluated after `step` steps, and has not been."""
        every = self.given.every
        at = step == self.steps or (step % every == 0 if step and every else self.given.at_start and not step)
        return bool(self.evaluators) and at and step not in self.done

    def measure(self, step: int, params: Params, stopped: Callable[[], bool]) -> Values | None:
        """Return all values after `step` steps; None when `stopped()`, so that all is to be measured again."""
        values: Values = {}
        for evaluator in self.evaluators:
            found = evaluator.measure(params, stopped)
            if found is None:
                return None
            values |= found
        self.done[step] = values
        return values


def stopping(peers: Peers | None, wanted: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that tells all processes of a run alike whether any of them is asked to stop."""
    if peers is None:
        return wanted

    def agreed() -> bool:
        if any(peers.gather("stop", "yes" if wanted() else "")):
            peers.agreed_to_stop = True
        return peers.agreed_to_stop

    return agreed


def describe(name: str, step: int, values: Values) -> str:
    """Return one line about an evaluation of the stage `name`."""
    parts = [f"{key} {'none' if value is None else f'{value:.4f}'}" for key, value in values.items()]
    return f"{name}: step {step:,}: {', '.join(parts)}"
