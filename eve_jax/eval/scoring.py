"""From answers to numbers: verdicts, a judge's grades, the aggregate. Needs no model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from eve_jax.errors import UserError, shorten
from eve_jax.eval.kept_judge import KeptJudge
from eve_jax.eval.outcome import Answered, Outcome
from eve_jax.eval.sources.base import Item
from eve_jax.eval.task import Task, Verdict

T = TypeVar("T")


class ScorerFailed(UserError):
    """A task's own code raised: the task has no numbers."""


def guarded(what: str, action: Callable[[], T]) -> T:
    """Return `action()`. Raises ScorerFailed with `what` for whatever it raises."""
    try:
        return action()
    except Exception as error:  # a task may be the user's own, and one must not spoil the others
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise ScorerFailed(f"{what}: {shorten(reason)}") from error


def verdict_of(task: Task, item: Item, answer: str | None) -> Verdict:
    """Return the verdict on one answer. Raises ScorerFailed that names the question."""
    what = f"the scorer failed at question {item.id} ({item.where})"
    return guarded(what, lambda: task.score(item.row, answer))


def scored(outcome: Outcome, judge: KeptJudge | None = None) -> Outcome:
    """Return `outcome`, whose questions are answered, with verdicts and numbers; with an error where there are none."""
    if outcome.error:
        return outcome
    task = outcome.task
    try:
        answered = _judged(task, outcome.items, _with_verdicts(outcome), judge)
        outcome = replace(outcome, answered=answered)
        rows, verdicts = outcome.scored
        if not rows:
            failed = outcome.failed
            reason = (failed[0].error or (failed[0].verdict and failed[0].verdict.error)) if failed else "no questions"
            return replace(outcome, error=f"no question has a verdict; the first: {reason}")
        aggregate = guarded("the aggregate failed", lambda: task.aggregate(rows, verdicts))
        further = guarded("the further numbers failed", lambda: task.further(rows, verdicts))
        return replace(outcome, aggregate=aggregate, further=further)
    except ScorerFailed as error:
        return replace(outcome, error=str(error))


def in_order(items: Sequence[Item], known: Mapping[str, Answered], missing: str) -> list[Answered]:
    """Return what is known of each item; `missing` is the error of those that nothing is known of."""
    return [known.get(item.id) or Answered(item.id, "", None, None, error=missing) for item in items]


def _with_verdicts(outcome: Outcome) -> list[Answered]:
    pairs = zip(outcome.items, outcome.answered, strict=True)
    return [
        replace(one, verdict=None if one.error else verdict_of(outcome.task, item, one.answer)) for item, one in pairs
    ]


def _judged(task: Task, items: Sequence[Item], answered: list[Answered], judge: KeptJudge | None) -> list[Answered]:
    if not task.needs_judge:
        return answered
    places = [place for place, one in enumerate(answered) if one.verdict is not None]
    rows = [items[place].row for place in places]
    verdicts = [verdict for one in answered if (verdict := one.verdict) is not None]
    judging = (judge or KeptJudge(None, None)).about([items[place].id for place in places])
    graded = guarded("judging failed", lambda: task.judge(rows, verdicts, judging))
    for place, verdict in zip(places, graded, strict=True):
        answered[place] = replace(answered[place], verdict=verdict)
    return answered
