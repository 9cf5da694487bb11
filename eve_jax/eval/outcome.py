"""What asking and scoring a task leaves, from which reports are made."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eve_jax.errors import amount
from eve_jax.eval.sources.base import Item
from eve_jax.eval.task import Row, Task, Verdict


@dataclass(frozen=True)
class Answered:
    """One question with what came of it: a line of OUT/answers/TASK.jsonl.

    Attributes:
        id: the question's, stable within the task (`Item.id`).
        prompt: the user turn as the task's protocol prints it (`Task.prompt`).
        answer: the model's text, cut at the task's stop texts; None where asking failed.
        verdict: what the task says of the answer; None where asking failed.
        prompt_tokens: tokens of the prompt, image tokens included.
        tokens: tokens of the answer.
        seconds: this question's share of the time of its batch.
        error: why there is no answer (an image that cannot be read, a prompt that is too long), or "".
    """

    id: str
    prompt: str
    answer: str | None
    verdict: Verdict | None
    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Outcome:
    """A task with its questions, the answers and what they add up to.

    Attributes:
        task: the task.
        items: the questions that were to be asked, in the order of the data (of the first N with --limit).
        answered: of each item, in the same order.
        aggregate: the reported numbers with the names of the reference scorer (`Task.aggregate`).
        further: numbers that the reference scorer does not state (`Task.further`).
        left_out: what was not asked, and how many (`Rows.left_out`).
        digest: hash of the data's files.
        error: why the task has no numbers (its data cannot be read, its scorer raised), or "".
    """

    task: Task
    items: Sequence[Item] = ()
    answered: Sequence[Answered] = ()
    aggregate: dict[str, Any] = field(default_factory=dict)
    further: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    digest: str = ""
    error: str = ""

    @property
    def scored(self) -> tuple[list[Row], list[Verdict]]:
        """The rows and verdicts that the aggregate is of: those without an error."""
        pairs = [
            (item.row, answer.verdict)
            for item, answer in zip(self.items, self.answered, strict=True)
            if answer.verdict is not None and not answer.verdict.error
        ]
        return [row for row, _ in pairs], [verdict for _, verdict in pairs]

    @property
    def failed(self) -> list[Answered]:
        """The questions without a verdict: asking or judging failed."""
        return [a for a in self.answered if a.verdict is None or a.verdict.error]

    @property
    def size(self) -> str:
        """How many questions there are, or what a task that asks none was measured on."""
        return amount(len(self.items), "question") if self.task.asks else self.task.measured(self.aggregate)

    @property
    def headline(self) -> float | None:
        """The one number that papers report, on their scale; None where there is none or nothing was scored."""
        scored = any(a.verdict is not None and not a.verdict.error for a in self.answered)
        known = not self.error and (scored or not self.task.asks)
        return self.task.headline(self.aggregate | self.further) if known else None
