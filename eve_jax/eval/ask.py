"""Questions of tasks as prompts: their images read by threads, what cannot be asked told apart.

Tasks of one benchmark under several protocols are read in step. Where two of them ask the same thing of the same
images, it is asked once, with the longer limit: an answer under the shorter one is its beginning.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from eve_jax.data.image.patches import open_image
from eve_jax.errors import UserError
from eve_jax.eval.answers import Answers
from eve_jax.eval.outcome import Answered
from eve_jax.eval.scoring import ScorerFailed, verdict_of
from eve_jax.eval.sources.base import WRONG, Item, Rows, reason_of
from eve_jax.eval.task import ImageSlot, Task
from eve_jax.eval.together import from_leader, of_all
from eve_jax.infer.api import EVE
from eve_jax.infer.batches import Ask, Reply, answer_all
from eve_jax.process.progress import ProgressBar

WINDOW = 16  # batches whose prompts are made together, so that prompts of like size share one
THREADS = 4  # that read images


class Stopped(Exception):
    """Asking was stopped between two batches, on request."""


def never() -> bool:
    """Return False: nothing is to stop."""
    return False


@dataclass
class UnderWay:
    """A task that is asked: its `items` so far, its `answers`, and why its data ends early (`error`)."""

    task: Task
    rows: Rows
    answers: Answers
    limit: int = 0
    items: list[Item] = field(default_factory=list)
    error: str = ""

    def __post_init__(self) -> None:
        self._left = islice(iter(self.rows), self.limit or None)

    @property
    def total(self) -> int:
        """How many questions there are to be."""
        return min(len(self.rows), self.limit) if self.limit else len(self.rows)

    def read(self, count: int) -> list[Item]:
        """Return the next items, at most `count`; none after an error."""
        found: list[Item] = []
        try:
            for item in islice(self._left, 0 if self.error else count):
                found.append(item)
        except UserError as error:
            self.error = str(error)
        self.items += found
        return found

    def keep(self, item: Item, answer: str | None, tokens: tuple[int, int], seconds: float, error: str) -> None:
        """Keep an answer, or an `error`, to an item. `tokens`: of the prompt and of the answer."""
        try:
            verdict = None if error else verdict_of(self.task, item, answer)
        except ScorerFailed:
            verdict = None  # scoring, which comes to it again, reports it
        prompt = self.task.prompt(item.row)
        self.answers.add(Answered(item.id, prompt, None if error else answer, verdict, *tokens, seconds, error))


@dataclass
class Wanted:
    """One thing to ask, and the questions that it answers: of each its task and item."""

    parts: list[tuple[UnderWay, Item]]

    @property
    def asked(self) -> tuple[str, list[str], float]:
        """What the model is given: the message, the names of the images, and how it answers."""
        under, item = self.parts[0]
        return under.task.message(item.row), list(map(str, item.images)), under.task.generation.temperature

    @property
    def longest(self) -> int:
        """Tokens that an answer may have under the widest limit."""
        return max(under.task.generation.max_new_tokens for under, _ in self.parts)


def ask_all(
    eve: EVE,
    tasks: Sequence[UnderWay],
    rows: int,
    threads: int = THREADS,
    stopped: Callable[[], bool] = never,
    quiet: bool = False,
) -> None:
    """Ask what the answers of `tasks`, of one benchmark, lack; each answer is kept as it comes.

    rows: prompts of a batch. threads: that read images. quiet: without a progress bar. Raises Stopped when `stopped()`
    between two batches. With several processes, all must call it with the same tasks, and `stopped` says the same.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="images")
    total = max(under.total for under in tasks)
    try:
        with ProgressBar(
            " + ".join(u.task.name for u in tasks), total, unit="questions", status="reading ...", off=quiet
        ) as bar:
            ahead = _begin(eve, tasks, rows, pool)
            while ahead is not None:
                current, ahead = ahead, _begin(eve, tasks, rows, pool)
                bar.advance(current.read - len(current.wanted))
                for count, _ in enumerate(_answered(eve, current, rows)):
                    if count % rows == 0 and stopped():
                        raise Stopped
                    bar.advance()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass
class _Window:
    """What is asked together: `read` positions of the data, and for each thing to ask its prompt in the making."""

    read: int
    wanted: list[Wanted]
    prompts: list["Future[Ask | str]"]


def _begin(eve: EVE, tasks: Sequence[UnderWay], rows: int, pool: ThreadPoolExecutor) -> _Window | None:
    """Read the next window and begin its prompts; None at the end of the data."""
    read = [under.read(rows * WINDOW) for under in tasks]
    if not any(read):
        return None
    items = {(t, item.id): item for t, found in enumerate(read) for item in found}
    keys = list(items)
    lacking = from_leader("lacking", lambda: [n for n, key in enumerate(keys) if not _has(tasks[key[0]], items[key])])
    by_id: dict[str, list[tuple[UnderWay, Item]]] = {}
    for number in lacking:
        task, id = keys[number]
        by_id.setdefault(id, []).append((tasks[task], items[task, id]))
    wanted = [one for parts in by_id.values() for one in _merged(parts)]
    prompts = [pool.submit(_prompt, eve, str(number), one) for number, one in enumerate(wanted)]
    return _Window(max(map(len, read)), wanted, prompts)


def _has(under: UnderWay, item: Item) -> bool:
    return under.answers.has(item.id, under.task.prompt(item.row))


def _merged(parts: Sequence[tuple[UnderWay, Item]]) -> list[Wanted]:
    """Return one `Wanted` for the questions of one id that ask the same of the same images, else one for each."""
    found: list[Wanted] = []
    for part in parts:
        one = Wanted([part])
        try:
            same = next((other for other in found if other.asked == one.asked), None)
        except WRONG:  # the row is bad: its own prompt finds out
            same = None
        if same:
            same.parts.append(part)
        else:
            found.append(one)
    return found


def _prompt(eve: EVE, key: str, wanted: Wanted) -> Ask | str:
    """Return the ask, or why there is none."""
    under, item = wanted.parts[0]
    try:
        message, _, temperature = wanted.asked
        places = sum(isinstance(part, ImageSlot) for part in under.task.content(item.row))
        if places != len(item.images):
            return f"{item.where}: {len(item.images)} images for {places} places"
        prompt = eve.prompt(message, [open_image(image) for image in item.images])
        run = eve.settings(len(prompt), max_new_tokens=wanted.longest, temperature=temperature)
        return Ask(key, prompt, run.max_new_tokens, run.sampling)
    except UserError as error:
        return str(error) if str(error).startswith(item.where) else f"{item.where}: {error}"
    except WRONG as error:
        return f"{item.where}: cannot be asked ({reason_of(error)})"


def _answered(eve: EVE, window: _Window, rows: int) -> Iterator[None]:
    """Ask the window's prompts and keep what comes, or why nothing does."""
    made = [future.result() for future in window.prompts]
    errors = of_all("unasked", {str(number): one for number, one in enumerate(made) if isinstance(one, str)})
    for key, error in errors.items():
        for under, item in window.wanted[int(key)].parts:
            under.keep(item, None, (0, 0), 0.0, error)
        yield
    asks = {one.key: one for one in made if isinstance(one, Ask) and one.key not in errors}
    for reply in answer_all(eve.engine, list(asks.values()), eve.stop_ids, rows):
        for under, item in window.wanted[int(reply.key)].parts:
            text, tokens = _text(eve, under.task, reply)
            error = f"{item.where}: {reply.error}" if reply.error else ""
            under.keep(item, text, (len(asks[reply.key].prompt), tokens), reply.seconds, error)
        yield


def _text(eve: EVE, task: Task, reply: Reply) -> tuple[str, int]:
    """Return the answer under the task's own limit and stop texts, and its number of tokens."""
    ids = reply.ids[: task.generation.max_new_tokens]
    return task.generation.cut(eve.decode(ids)), len(ids)
