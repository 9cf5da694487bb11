"""The scores of one stage of an experiment, kept with what they are of.

WORKDIR/scores/STAGE/            an evaluation as `launch.eval` leaves it: every answer as it is given, reports
WORKDIR/scores/STAGE/values.json {"of": lineage, step, settings; "values": `Values`}, when all is measured
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from eve_jax.checkpoint.stage_folder import read_meta, steps_in
from eve_jax.config.stage import Config
from eve_jax.data.samples.sample_rule import hash_of
from eve_jax.data.sources.records import check_present
from eve_jax.errors import UserError, amount, name_fields, warn
from eve_jax.eval.chosen import FILES, Choice, Chosen
from eve_jax.eval.hub import HUB
from eve_jax.eval.live import open_task, shortened
from eve_jax.eval.outcome import Outcome
from eve_jax.eval.passages import passage_scores
from eve_jax.eval.run import Run, run_tasks
from eve_jax.eval.text_loss import TextLoss
from eve_jax.eval.together import from_leader
from eve_jax.experiments.config import ExperimentConfig
from eve_jax.infer.api import EVE
from eve_jax.process.connect import is_leader, print_once
from eve_jax.process.files import read_json, write_json
from eve_jax.process.paths import WORKDIR, split_names
from eve_jax.sharding import make_mesh

FOLDER, VALUES = "scores", "values.json"
ASKED = ("tasks", "data", "protocol", "images", "answers", "max_new_tokens", "fit")  # what the values of a point follow


@dataclass(frozen=True)
class Values:
    """What is known of a stage, by question or passage.

    Attributes:
        scores: task -> id of a question -> score of its answer, in [0, 1] as a rule.
        categories: task -> id of a question -> its category, where it has one.
        losses: id of a record -> mean loss of its correct answer, nats a target.
        texts: file's stem -> id of a passage -> sum of its losses in nats, and its targets.
        digests: task -> hash of its data.
    """

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    categories: dict[str, dict[str, str]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    texts: dict[str, dict[str, tuple[float, int]]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


def placed(experiment: ExperimentConfig, workdir: Path) -> ExperimentConfig:
    """Return the section with WORKDIR in its paths resolved."""
    names = ("tasks", "data", "images", "answers", "texts")
    return replace(experiment, **{name: getattr(experiment, name).replace(WORKDIR, str(workdir)) for name in names})


def score_stage(experiment: ExperimentConfig, workdir: Path, stage: Config, texts_alone: bool = False) -> None:
    """Measure the trained stage, unless it was, and keep the values. With several processes, all must call it.

    texts_alone: the losses of texts and nothing else. Raises UserError, after which what was answered is kept.
    """
    out, folder = workdir / FOLDER / stage.name, workdir / stage.name
    of = _of(experiment, stage, folder, texts_alone)
    if from_leader("scores", lambda: _is_done(out, of)):
        return
    print_once(f"{stage.name}: scoring")
    experiment = placed(experiment, workdir)
    eve = EVE.from_pretrained(folder, experiment.fit or stage.data.fit, mesh=experiment.mesh)
    values = Values(texts=_text_losses(eve, experiment))
    if not texts_alone:
        values = _answered(eve, experiment, out, values)
    if is_leader():
        write_json(out / VALUES, {"of": of, "values": asdict(values)}, indent=0, sort_keys=False)


def _is_done(out: Path, of: Mapping[str, Any]) -> bool:
    """Whether all is measured that is asked for; what is there of something else is removed, a beginning is made."""
    known = _known(out)
    if known is not None and known.get("of") == of:
        return "values" in known
    if known is not None:
        print_once(f"{out.name}: trained again or asked otherwise since it was scored; its answers are asked anew")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / VALUES, {"of": of})
    return False


def values_of(workdir: Path, name: str) -> Values:
    """Return what is kept of the stage `name`. Raises UserError when it was not scored."""
    known = _known(workdir / FOLDER / name)
    if known is None or "values" not in known:
        raise UserError(f"{workdir / FOLDER / name} has no scores: rerun the recipe, which asks what is missing")
    found = Values(**known["values"])
    texts = {text: {id: (total, count) for id, (total, count) in own.items()} for text, own in found.texts.items()}
    return replace(found, texts=texts)


def _known(out: Path) -> dict[str, Any] | None:
    return read_json(out / VALUES) if (out / VALUES).is_file() else None


def _of(experiment: ExperimentConfig, stage: Config, folder: Path, texts_alone: bool) -> dict[str, Any]:
    """What values follow from; weights by the lineage of their training."""
    (*_, step) = steps_in(folder) or [0]
    asked = {} if texts_alone else {name: getattr(experiment, name) for name in ASKED}
    settings = hash_of([asked | {"texts": experiment.texts}, stage.data.fit])
    return {"lineage": read_meta(folder, step).get("lineage", ""), "step": step, "settings": settings}


def check_asked(experiment: ExperimentConfig, workdir: Path) -> None:
    """Raise UserError, before anything is trained, for what is asked of the stages and cannot be read.

    Where all stages have their scores nothing is looked for.
    """
    if all("values" in (_known(workdir / FOLDER / point.scored) or {}) for point in experiment.points):
        return
    experiment = placed(experiment, workdir)
    if experiment.mesh:
        with name_fields("config.experiment.{}".format):
            make_mesh(experiment.mesh)
    _chosen(experiment)
    for name in split_names(experiment.texts):
        _text(name)
    names = {"data.records": "config.experiment.answers", "data.images": "config.experiment.images"}
    with name_fields(names.__getitem__):
        check_present(experiment.answers, experiment.images)


def _chosen(experiment: ExperimentConfig) -> list[Chosen]:
    """Return the tasks with their data."""
    names, data = split_names(experiment.tasks), experiment.data
    if data != HUB and not Path(data or "-").is_dir() and any(Path(name).suffix.lower() not in FILES for name in names):
        raise UserError(
            f"config.experiment.data={data!r}: no such folder; name the one with the benchmarks' data, which is the "
            f"argument bench=FOLDER of the papers' recipes, or {HUB} to download it"
        )
    with name_fields("config.{}".format, "config.experiment.tasks: "):
        chosen = Choice(names, experiment.data, experiment.protocol, images=experiment.images).open()
    for one in chosen:
        if one.error or one.rows is None:
            raise UserError(f"config.experiment.tasks: {one.task.name}: {one.error or 'a text asks no questions'}")
    return chosen


def _text(name: str) -> TextLoss:
    """Return the file of texts that `experiment.texts` names."""
    opened = open_task(name)
    if opened.text is None:
        raise UserError(f"config.experiment.texts: {name} is no text file")
    return opened.text


def _answered(eve: EVE, experiment: ExperimentConfig, out: Path, values: Values) -> Values:
    """`values` with the scores of the tasks, and the losses of correct answers."""
    chosen = _chosen(experiment)
    asked = [replace(one, task=shortened(one.task, experiment.max_new_tokens)) for one in chosen]
    outcomes = run_tasks(eve, asked, Run(out, rows=experiment.rows, checkpoint=str(out.name)))
    values = replace(values, losses=_answer_losses(eve, experiment))
    return with_outcomes(values, chosen, outcomes) if is_leader() else values


def with_outcomes(values: Values, chosen: Sequence[Chosen], outcomes: Sequence[Outcome]) -> Values:
    """Return `values` with the scores of tasks by question. Raises UserError for a task without any."""
    scores, categories = dict(values.scores), dict(values.categories)
    for outcome in outcomes:
        if outcome.error:
            raise UserError(f"{outcome.task.name}: {outcome.error}")
        if outcome.failed:
            count, first = amount(len(outcome.failed), "question"), outcome.failed[0]
            warn(f"{outcome.task.name}: {count} without a verdict; the first, {first.error or 'not judged'}")
        good = [(one.id, one.verdict) for one in outcome.answered if one.verdict and not one.verdict.error]
        if not good:
            raise UserError(f"{outcome.task.name}: no question has a score; see the errors in its file of answers")
        scores[outcome.task.name] = {id: float(verdict.score) for id, verdict in good}
        categories[outcome.task.name] = {id: verdict.category for id, verdict in good if verdict.category}
    return replace(values, scores=scores, categories=categories, digests={c.task.name: c.digest for c in chosen})


def _answer_losses(eve: EVE, experiment: ExperimentConfig) -> dict[str, float]:
    if not experiment.answers:
        return {}
    found = eve.score(experiment.answers, experiment.images)
    if found.bad:
        raise UserError(f"config.experiment.answers: {found.none_scored()}")
    return {line.id: line.loss for line in found.lines}


def _text_losses(eve: EVE, experiment: ExperimentConfig) -> dict[str, dict[str, tuple[float, int]]]:
    found = {}
    for name in split_names(experiment.texts):
        text = _text(name)
        lines = passage_scores(eve, text, quiet=True)
        found[text.path.stem] = {line.id: (line.nll_sum, line.n_target) for line in lines}
    return found
