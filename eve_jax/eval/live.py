"""Questions asked of a model whose weights are at hand, in batches of like length, and scored.

    rows of a task -> prompts -> answers -> verdicts -> `Outcome`

Images are read a window of questions at a time. What cannot be asked is a failed question, never a wrong answer.
"""

import copy
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from PIL import Image

from eve_jax.data.image.patches import open_image
from eve_jax.data.image_file import ImageFile, StoredImage
from eve_jax.errors import UserError
from eve_jax.eval import registry
from eve_jax.eval.outcome import Answered, Outcome
from eve_jax.eval.own import OwnRows
from eve_jax.eval.passages import text_loss
from eve_jax.eval.sources.base import WRONG, Item, Rows, reason_of
from eve_jax.eval.sources.open import open_rows
from eve_jax.eval.task import Task
from eve_jax.eval.text_loss import TextLoss, TextLossTask
from eve_jax.infer.api import EVE
from eve_jax.infer.engine import Prompt
from eve_jax.infer.finite import NotFinite

WINDOW = 16  # batches whose prompts are made together, so that prompts of like size share one


class Stopped(Exception):
    """Asking was stopped between two batches, on request."""


def never() -> bool:
    """Return False: nothing is to stop."""
    return False


@dataclass(frozen=True)
class Opened:
    """A task with its questions, or with its text.

    Attributes:
        task: the task.
        rows: its questions; None for a text.
        text: the text file of a loss; None for questions.
    """

    task: Task
    rows: Rows | None = None
    text: TextLoss | None = None

    @property
    def digest(self) -> str:
        """Hash of the files."""
        if self.rows is not None:
            return self.rows.digest
        return self.text.digest if self.text is not None else ""

    def items(self, limit: int = 0) -> list[Item]:
        """Return the questions, the first `limit` of them where it is above 0; none of a text."""
        return [] if self.rows is None else list(itertools.islice(self.rows, limit or None))


def open_task(name: str, data: str | Path = "", protocol: str = "eve", images: str | Path = "") -> Opened:
    """Open a benchmark by `name` in the folder `data`, a file of own questions (.jsonl) or a text (.txt).

    Args:
        images: folder that images of own questions are relative to.

    Raises UserError for what is unknown or not there, and for a task that requires a judge.
    """
    suffix = Path(name).suffix.lower()
    if suffix == ".jsonl":
        own = cast(Rows, OwnRows(name, images))
        return Opened(own.task, own)
    if suffix == ".txt":
        text = TextLoss(Path(name))
        next(text.passages())  # raises for a file that cannot be read
        return Opened(TextLossTask(text), text=text)
    task = registry.get(name, protocol)
    if task.needs_judge:
        raise UserError(f"{task.name} requires a judge: evaluate the checkpoint with launch.eval instead")
    rows = open_rows(task, data)
    return Opened(rows.task, rows)


def shortened(task: Task, max_new_tokens: int) -> Task:
    """Return `task` with answers of at most `max_new_tokens` tokens; 0 leaves them as they are."""
    if not max_new_tokens:
        return task
    short = copy.copy(task)
    most = min(max_new_tokens, task.generation.max_new_tokens)
    short.generation = replace(task.generation, max_new_tokens=most)
    return short


def blank(items: Sequence[Item]) -> list[Item]:
    """Return the questions with every image replaced by one of its size in mid gray: the blank-image baseline."""
    return [replace(item, images=tuple(map(_blank, item.images))) for item in items]


def _blank(file: ImageFile) -> ImageFile:
    def opened() -> io.BytesIO:
        stream = io.BytesIO()
        Image.new("RGB", open_image(file).size, (128, 128, 128)).save(stream, "png", compress_level=1)
        stream.seek(0)
        return stream

    return StoredImage(f"{file} in gray", opened)


def outcome_of(
    eve: EVE, task: Task, items: Sequence[Item], rows: int = 16, stopped: Callable[[], bool] = never
) -> Outcome:
    """Ask `eve` the questions `items` of `task`, `rows` at a time, and score the answers.

    Raises Stopped when `stopped()` before a batch, and UserError when not a single question has a verdict.
    """
    answered: list[Answered] = []
    least = rows if len(items) > rows else 0
    for start in range(0, len(items), rows * WINDOW):
        window = items[start : start + rows * WINDOW]
        made = [_prompt(eve, task, item) for item in window]
        replies: dict[int, Answered] = {}
        for batch in _batches(made, rows):
            if stopped():
                raise Stopped
            prompts = [one for place in batch if isinstance(one := made[place], Prompt)]
            texts = _answers(eve, task, prompts, least)
            for place, text in zip(batch, texts, strict=True):
                replies[place] = _scored(task, window[place], text)
        failed = {place: one for place, one in enumerate(made) if isinstance(one, str)}
        replies |= {place: _failed(task, window[place], reason) for place, reason in failed.items()}
        answered += [replies[place] for place in range(len(window))]
    outcome = Outcome(task, items, answered)
    scored_rows, verdicts = outcome.scored
    if not verdicts:
        first = answered[0].error if answered else "there are no questions"
        raise UserError(f"{task.name}: no question was answered; the first: {first}")
    return replace(
        outcome, aggregate=task.aggregate(scored_rows, verdicts), further=task.further(scored_rows, verdicts)
    )


def outcome_of_text(eve: EVE, task: Task, text: TextLoss) -> Outcome:
    """Return the loss of `eve` on a text. Raises UserError where a passage has no finite loss."""
    return Outcome(task, aggregate=dict(text_loss(eve, text, quiet=True)), digest=text.digest)


def _prompt(eve: EVE, task: Task, item: Item) -> Prompt | str:
    """Return the prompt of a question, or why there is none."""
    marked = task.protocol in ("eve", "own")
    try:
        message = task.prompt(item.row) if marked else "<image>\n" * len(item.images) + task.text(item.row)
        prompt = eve.prompt(message, [open_image(image) for image in item.images])
        eve.settings(len(prompt), max_new_tokens=task.generation.max_new_tokens)
        return prompt
    except UserError as error:
        return f"{item.where}: {error}"
    except WRONG as error:
        return f"{item.where}: cannot be asked ({reason_of(error)})"


def _batches(made: Sequence[Prompt | str], rows: int) -> Iterator[list[int]]:
    """Yield the places of prompts in batches of like length."""
    prompts = {place: one for place, one in enumerate(made) if isinstance(one, Prompt)}
    order = sorted(prompts, key=lambda place: (prompts[place].need, place))
    yield from (order[start : start + rows] for start in range(0, len(order), rows))


def _answers(eve: EVE, task: Task, prompts: Sequence[Prompt], least: int) -> list[str | None]:
    """Return the text of each answer, None where logits are not finite; `least` rows are filled up to, so that batches
    share programs."""
    longest = task.generation.max_new_tokens
    filled = [*prompts, *[prompts[-1]] * (least - len(prompts))]
    replies: Sequence[list[int] | None]
    try:
        replies = eve.engine.generate(filled, longest, eve.stop_ids)[: len(prompts)]
    except NotFinite:
        replies = [_alone(eve, prompt, longest) for prompt in prompts]
    return [None if ids is None else _cut(eve.decode(ids), task.generation.stop) for ids in replies]


def _alone(eve: EVE, prompt: Prompt, longest: int) -> list[int] | None:
    try:
        return eve.engine.generate([prompt], longest, eve.stop_ids)[0]
    except NotFinite:
        return None


def _cut(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.partition(stop)[0]
    return text


def _scored(task: Task, item: Item, answer: str | None) -> Answered:
    if answer is None:
        return _failed(task, item, f"{item.where}: the logits are not finite")
    try:
        return Answered(item.id, task.prompt(item.row), answer, task.score(item.row, answer))
    except Exception as error:  # a task may be the user's own, and one row must not end the training
        return _failed(task, item, f"{item.where}: the scorer failed ({type(error).__name__}: {error})")


def _failed(task: Task, item: Item, reason: str) -> Answered:
    return Answered(item.id, "", None, None, error=reason)
