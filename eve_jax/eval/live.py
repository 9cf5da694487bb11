"""Tasks asked of a model that is at hand, while it trains or at the end of the demo; nothing is kept."""

import copy
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from eve_jax.data.image.patches import open_image
from eve_jax.data.image_file import ImageFile, StoredImage
from eve_jax.errors import UserError
from eve_jax.eval import registry
from eve_jax.eval.answers import Answers
from eve_jax.eval.ask import UnderWay, ask_all, never
from eve_jax.eval.chosen import FILES, Choice, Chosen
from eve_jax.eval.outcome import Outcome
from eve_jax.eval.passages import text_loss
from eve_jax.eval.scoring import in_order, scored
from eve_jax.eval.sources.base import Item
from eve_jax.eval.task import Task
from eve_jax.eval.text_loss import TextLoss
from eve_jax.infer.api import EVE


@dataclass
class Questions:
    """Questions that were read before; see `eve_jax.eval.sources.base.Rows`."""

    task: Task
    items: Sequence[Item]
    left_out: dict[str, int] = field(default_factory=dict)
    digest: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


def open_task(name: str, data: str | Path = "", protocol: str = "eve", images: str | Path = "") -> Chosen:
    """Open a benchmark by `name` in the folder `data`, a file of own questions (.jsonl) or a text (.txt).

    Args:
        images: folder that images of own questions are relative to.

    Raises UserError for what is unknown, damaged or not there, and for a task that requires a judge.
    """
    if Path(name).suffix.lower() not in FILES:
        benchmark, dot, own = name.partition(".")
        task = registry.get(benchmark, own if dot else protocol)
        if task.needs_judge:
            raise UserError(f"{task.name} requires a judge: evaluate the checkpoint with launch.eval instead")
    (chosen,) = Choice([name], data, protocol, images=images).open()
    if chosen.error:
        raise UserError(f"{chosen.task.name}: {chosen.error}")
    return chosen


def items_of(chosen: Chosen, limit: int = 0) -> list[Item]:
    """Return the questions of a task, the first `limit` of them where it is above 0; none of a text."""
    return [] if chosen.rows is None else list(itertools.islice(chosen.rows, limit or None))


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
    eve: EVE,
    task: Task,
    items: Sequence[Item],
    rows: int = 16,
    stopped: Callable[[], bool] = never,
    quiet: bool = False,
) -> Outcome:
    """Ask `eve` the questions `items` of `task`, `rows` at a time, and score the answers.

    Raises Stopped when `stopped()` between two batches, and UserError when the task has no numbers: when not a single
    question has a verdict, or its scorer failed. With several processes, all must call it.
    """
    under = UnderWay(task, Questions(task, items), Answers())
    ask_all(eve, [under], rows, stopped=stopped, quiet=quiet)
    outcome = scored(Outcome(task, items, in_order(items, under.answers.known, "not asked")))
    if outcome.error:
        raise UserError(f"{task.name}: {outcome.error}")
    return outcome


def outcome_of_text(eve: EVE, task: Task, text: TextLoss) -> Outcome:
    """Return the loss of `eve` on a text. Raises UserError where a passage has no finite loss."""
    return Outcome(task, aggregate=dict(text_loss(eve, text, quiet=True)), digest=text.digest)
