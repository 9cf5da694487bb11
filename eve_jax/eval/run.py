"""An evaluation: tasks are asked and scored one after the other; an error in one spares the others.

OUT/run.json                 what the answers are of (`eve_jax.eval.identity`)
OUT/answers/TASK.jsonl       a line for each question, as it is answered (`eve_jax.eval.answers`)
OUT/answers/TASK.judge.jsonl the replies of a judge
OUT/submissions/TASK.json    entries for the benchmark's server, of tasks that have one
OUT/report.*                 the numbers (`eve_jax.eval.report`)
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import jax

from eve_jax.errors import UserError
from eve_jax.eval.answers import FOLDER, Answers
from eve_jax.eval.ask import UnderWay, ask_all
from eve_jax.eval.chosen import Choice, Chosen
from eve_jax.eval.identity import Facts, check_run, model_facts, task_facts
from eve_jax.eval.judge import Judge
from eve_jax.eval.kept_judge import KeptJudge, judge_file
from eve_jax.eval.outcome import Outcome
from eve_jax.eval.passages import text_loss
from eve_jax.eval.scoring import in_order, scored
from eve_jax.eval.summary import progress_line, write_results
from eve_jax.eval.text_loss import TextLoss
from eve_jax.eval.together import from_leader
from eve_jax.infer.api import EVE
from eve_jax.process.checks import whole
from eve_jax.process.connect import is_leader, print_once
from eve_jax.process.files import read_json, write_json
from eve_jax.process.lock import locked
from eve_jax.process.paths import split_names
from eve_jax.version import VERSION_FIELD, __version__

LOCKED_FOR = "the evaluation"


@dataclass(frozen=True)
class Run:
    """How tasks are run.

    Attributes:
        out: folder of the answers and reports; None keeps nothing.
        limit: ask only the first questions of each task; 0: all.
        rows: prompts of a batch.
        threads: that read images.
        judge: grades answers of tasks that need one.
        checkpoint: what reports call the model.
    """

    out: Path | None = None
    limit: int = 0
    rows: int = 16
    threads: int = 4
    judge: Judge | None = None
    checkpoint: str = ""

    @property
    def folder(self) -> Path | None:
        """The folder of the answers in the process that writes them."""
        return self.out / FOLDER if self.out is not None and is_leader() else None

    @property
    def facts(self) -> Facts:
        """What reports state of the run, and what is not compared when it is resumed."""
        return {"checkpoint": self.checkpoint, "limit": self.limit, "rows": self.rows}


def evaluate(
    eve: EVE,
    tasks: str | Sequence[str],
    data: str | Path = "",
    out: str | Path | None = None,
    protocol: str = "eve",
    limit: int = 0,
    rows: int = 16,
    judge: Judge | None = None,
) -> list[Outcome]:
    """Ask `eve` the questions of `tasks` and score its answers; return the outcome of each task.

    Args:
        eve: the model.
        tasks: names of benchmarks, .jsonl files of questions, .txt files of text; comma-separated or a list.
        data: folder of the benchmarks' data, or "hub".
        out: folder of the answers and reports, from which a second call resumes; None keeps nothing.
        protocol: eve, lmms, both, or another that a benchmark has.
        limit: ask only the first questions of each task; 0: all.
        rows: prompts of a batch; no answer depends on it.
        judge: grades the answers of tasks that need one.

    Raises UserError before anything is asked, see `Choice.open` and `check_run`. What goes wrong later is in the
    outcomes: `Outcome.error` of a task, `Outcome.failed` of its questions.
    """
    names = split_names(tasks) if isinstance(tasks, str) else list(tasks)
    chosen = Choice(names, data, protocol, judge=judge is not None).open()
    whole("limit", limit, "0 (all) or a number of questions", 0)
    whole("rows", rows, "a whole number of at least 1", 1)
    return run_tasks(eve, chosen, Run(None if out is None else Path(out), limit, rows, judge=judge))


def run_tasks(eve: EVE, chosen: Sequence[Chosen], run: Run) -> list[Outcome]:
    """Run the tasks of `Choice.open`; see `evaluate`. With several processes, all must call it."""
    benchmarks = [one.task.name for one in chosen if one.rows is not None and one.task.protocol != "own"]
    if benchmarks and not eve.sees:
        raise UserError(f"the checkpoint has no trained image input, so it cannot be asked {', '.join(benchmarks)}")
    model = model_facts(eve)
    began = time.monotonic()
    with locked(run.out, LOCKED_FOR) if run.out is not None and is_leader() else nullcontext():
        if run.folder is not None and run.out is not None:
            tasks = {one.task.name: _facts(one) for one in chosen if not one.error}
            revisions = {one.task.name: one.revision for one in chosen if one.revision}
            check_run(run.out, model, tasks, run.facts | {"revisions": revisions})
        outcomes: list[Outcome] = []
        for outcome in _outcomes(eve, chosen, run):
            print_once(progress_line(outcome))
            outcomes.append(outcome)
        if run.out is not None and is_leader():
            write_results(run.out, outcomes, _about(run, model, time.monotonic() - began))
    return outcomes


def _facts(one: Chosen) -> Facts:
    if one.rows is not None:
        return task_facts(one.rows)
    assert one.text is not None
    return {"data": one.text.digest, "max_tokens": one.text.max_tokens}


def _outcomes(eve: EVE, chosen: Sequence[Chosen], run: Run) -> Iterator[Outcome]:
    """Yield the outcome of each task, those of one benchmark in a row together."""
    for _, some in groupby(chosen, key=lambda one: (one.task.benchmark, one.task.name if one.rows is None else "")):
        group = list(some)
        if group[0].text is not None:
            yield _text_loss(eve, group[0], run)
            continue
        under = {one.task.name: _under_way(one, run) for one in group if one.rows is not None}
        if under:
            ask_all(eve, list(under.values()), run.rows, run.threads)
        for one in group:
            yield _scored(under[one.task.name], run) if one.rows is not None else Outcome(one.task, error=one.error)


def _under_way(one: Chosen, run: Run) -> UnderWay:
    assert one.rows is not None
    answers = Answers.open(run.folder and run.folder / f"{one.task.name}.jsonl")
    return UnderWay(one.task, one.rows, answers, run.limit)


def _scored(under: UnderWay, run: Run) -> Outcome:
    """Return the outcome of a task that was asked; the process that leads alone scores it."""
    rows = under.rows
    answered = in_order(under.items, under.answers.known, "not asked")
    outcome = Outcome(under.task, under.items, answered, left_out=rows.left_out, digest=rows.digest, error=under.error)
    if not is_leader():
        return replace(outcome, error=outcome.error or "scored by process 0 alone")
    outcome = scored(outcome, KeptJudge(judge_file(run.folder, under.task.name), run.judge))
    under.answers.settle(outcome.answered)
    return outcome


def _text_loss(eve: EVE, one: Chosen, run: Run) -> Outcome:
    text = one.text
    assert text is not None
    kept = run.folder and run.folder / f"{one.task.name}.json"
    try:
        numbers: dict[str, Any] = from_leader("kept", lambda: read_json(kept) if kept and kept.is_file() else {})
        if not numbers.keys() >= TextLoss.NUMBERS:
            numbers = text_loss(eve, text)
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_json(kept, numbers)
    except UserError as error:
        return Outcome(one.task, digest=text.digest, error=str(error))
    return Outcome(one.task, aggregate=numbers, digest=text.digest)


def _about(run: Run, model: Facts, seconds: float) -> Facts:
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return run.facts | {"model": model, "seconds": seconds, "devices": devices, VERSION_FIELD: __version__}
