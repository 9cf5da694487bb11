"""Scores of answers that were given before, without the model: what `launch.eval score` does."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from eve_jax.errors import UserError, amount, shorten
from eve_jax.eval.answers import FOLDER
from eve_jax.eval.chosen import Choice, Chosen
from eve_jax.eval.judge import Judge
from eve_jax.eval.kept_judge import KeptJudge, judge_file
from eve_jax.eval.outcome import Answered, Outcome
from eve_jax.eval.own import OwnRows
from eve_jax.eval.recorded import Recorded, Said, open_recorded
from eve_jax.eval.scoring import in_order, scored
from eve_jax.eval.sources.base import Item
from eve_jax.eval.summary import write_results
from eve_jax.eval.task import Task
from eve_jax.process.files import read_json
from eve_jax.process.lock import locked
from eve_jax.version import VERSION_FIELD, __version__

OWN, DEFAULT = "own", "lmms"
MOST_NAMED = 5


@dataclass(frozen=True)
class Rescore:
    """What is scored again, and how.

    Attributes:
        answers: files, or folders of ours or of lmms-eval.
        choice: the data; its `tasks` say which benchmark plain files are of, and name files of own questions; its
            `protocol` counts for files whose names say none, "" for `lmms`.
        out: folder for the reports; None writes none.
        limit: score only the first questions; 0: as many as were asked, or all.
        judge: grades what no reply is kept for.
    """

    answers: Sequence[Path]
    choice: Choice
    out: Path | None = None
    limit: int = 0
    judge: Judge | None = None

    def run(self) -> list[Outcome]:
        """Return the outcome of each file. Raises UserError as `open` does, before anything is scored."""
        return self.score(self.open())

    def open(self) -> list[tuple[Recorded, Chosen]]:
        """Return the files, each with the task that it is of.

        Raises UserError for what is not there, and for a task of `choice` that no file is of.
        """
        pairs = [(file, self._chosen(file)) for path in self.answers for file in open_recorded(path)]
        plain = any(file.kind == "plain" for file, _ in pairs)
        used = {one.rows.path for _, one in pairs if isinstance(one.rows, OwnRows)}
        if unused := [name for name in self.choice.tasks if not plain and Path(name) not in used]:
            raise UserError(
                f"--tasks={','.join(unused)} applies to plain files and to answers to questions of your own; the "
                "names of these files say their tasks: leave it out"
            )
        return pairs

    def takes_protocol(self, file: Recorded) -> bool:
        """Whether the protocol of `choice` counts for a file: neither its name nor its task's name states one."""
        return self.choice.takes_protocol if file.kind == "plain" else not file.protocol

    def score(self, pairs: Sequence[tuple[Recorded, Chosen]]) -> list[Outcome]:
        """Return the outcome of each file of `open`; write the reports where there is a folder for them."""
        outcomes = [self._outcome(file, chosen) for file, chosen in pairs]
        if self.out is not None:
            about: dict[str, Any] = {"answers": [str(file.path) for file, _ in pairs], VERSION_FIELD: __version__}
            with locked(self.out, "scoring"):
                write_results(self.out, outcomes, about)
        return outcomes

    def _chosen(self, file: Recorded) -> Chosen:
        """Return the task that a file is of, with its data."""
        own = {Path(name).stem: name for name in self.choice.tasks if name.lower().endswith(".jsonl")}
        if file.kind == "plain":
            if len(self.choice.tasks) != 1:
                raise UserError(f"{file.path}: name the one task that it has answers of: --tasks=NAME --protocol=...")
            (name,), protocol = self.choice.tasks, self.choice.protocol or DEFAULT
        elif file.protocol == OWN:
            if file.task not in own:
                raise UserError(f"{file.path}: answers to questions of your own; give --tasks=.../{file.task}.jsonl")
            name, protocol = own[file.task], OWN
        else:
            name, protocol = file.task, file.protocol or self.choice.protocol or DEFAULT
        try:
            (chosen,) = Choice(
                [name], self.choice.data, protocol, self.choice.metric, self.choice.images, judge=True
            ).open()
        except ValueError:
            raise UserError(f"{file.path}: score it under one protocol, not under {protocol}") from None
        except UserError as error:
            raise UserError(f"{file.path}: {error}") from None
        return chosen

    def _outcome(self, file: Recorded, chosen: Chosen) -> Outcome:
        if chosen.rows is None:
            return Outcome(chosen.task, error=chosen.error)
        task, rows = chosen.task, chosen.rows
        try:
            every = iter(rows)
            items = list(islice(every, self.limit or _limit_of(file) or None))
            found, unmatched = file.matched(task, items)
        except UserError as error:
            return Outcome(task, digest=rows.digest, error=str(error))
        unknown = _to_no_question(file, task, items, every) if unmatched else []
        left_out = rows.left_out | _left_out(file, unknown, len(unmatched) - len(unknown), len(items))
        known = {item.id: _answered(task.prompt(item.row), item.id, said) for item, said in _pairs(items, found)}
        missing = f"no answer in {file.path}"
        outcome = Outcome(task, items, in_order(items, known, missing), left_out=left_out, digest=rows.digest)
        kept = judge_file(file.path.parent, task.name) if file.kind == "ours" else None
        return scored(outcome, KeptJudge(kept, self.judge))


def _to_no_question(file: Recorded, task: Task, items: Sequence[Item], beyond: Iterator[Item]) -> list[str]:
    """Return the names of the answers to no question of the data, of which `beyond` are those after the limit."""
    try:
        return file.matched(task, [*items, *beyond])[1]
    except UserError:  # the data is damaged there, which spoils no question up to the limit
        return file.matched(task, items)[1]


def _left_out(file: Recorded, unknown: list[str], beyond: int, limit: int) -> dict[str, int]:
    """Return how many answers are not scored, by the reason; print a warning of those to no question."""
    if unknown:
        named = f"{shorten(', '.join(unknown[:MOST_NAMED]), 200)}{', ...' if len(unknown) > MOST_NAMED else ''}"
        print(f"warning: {file.path}: {amount(len(unknown), 'answer')} to no question: {named}", file=sys.stderr)
    counts = {"answers to no question": len(unknown), f"answers to questions after the first {limit:,}": beyond}
    return {what: count for what, count in counts.items() if count}


def _pairs(items: Sequence[Any], found: dict[str, Said]) -> Iterator[tuple[Any, Said]]:
    return ((item, found[item.id]) for item in items if item.id in found)


def _answered(prompt: str, id: str, said: Said) -> Answered:
    return Answered(id, prompt, None if said.error else said.answer, None, error=said.error)


def _limit_of(file: Recorded) -> int:
    """Return the --limit that answers of ours were given with, 0 for none."""
    run = file.path.parent.parent / "run.json"
    if file.kind != "ours" or file.path.parent.name != FOLDER or not run.is_file():
        return 0
    limit = read_json(run).get("limit", 0)
    return limit if isinstance(limit, int) else 0
