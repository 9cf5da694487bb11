"""From what is named on the command line to tasks with their data, all checked before a model is loaded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eve_jax.errors import UserError
from eve_jax.eval import registry
from eve_jax.eval.hub import HUB, fetch
from eve_jax.eval.own import OwnRows
from eve_jax.eval.sources.base import NoData, Rows
from eve_jax.eval.sources.open import open_rows
from eve_jax.eval.task import Task
from eve_jax.eval.text_loss import TextLoss, TextLossTask

BOTH, PROTOCOLS = "both", ("eve", "lmms")
FILES = (".jsonl", ".txt")  # of the user's own: questions, a text


@dataclass(frozen=True)
class Chosen:
    """A task to evaluate.

    Attributes:
        task: the task, with the files next to its data.
        rows: its questions; None for a text file, and where the data is damaged.
        text: the file of a text loss.
        error: what is wrong with the data: this task has no numbers, the others have.
        revision: the data's commit on the hub, "" for local data.
    """

    task: Task
    rows: Rows | None = None
    text: TextLoss | None = None
    error: str = ""
    revision: str = ""

    @property
    def digest(self) -> str:
        """Hash of the files; "" where they cannot be read."""
        if self.rows is not None:
            return self.rows.digest
        return self.text.digest if self.text is not None else ""


@dataclass(frozen=True)
class Choice:
    """What is to be evaluated.

    Attributes:
        tasks: benchmarks (`mme`, or `mme.lmms` with its protocol), .jsonl files of questions, .txt files of text.
        data: folder of the benchmarks' data, or "hub".
        protocol: eve, lmms, both, or one or several comma-separated of those that a benchmark has.
        metric: rule for questions of the user's own that name none.
        images: folder of the images of the user's own questions.
        judge: whether there is a judge.
    """

    tasks: Sequence[str]
    data: str | Path = ""
    protocol: str = "eve"
    metric: str = "exact"
    images: str | Path = ""
    judge: bool = False

    @property
    def takes_protocol(self) -> bool:
        """Whether `protocol` counts: for a benchmark whose name does not state its own."""
        return any(Path(name).suffix.lower() not in FILES and "." not in name for name in self.tasks)

    def open(self) -> list[Chosen]:
        """Return the tasks in order, each once.

        Raises UserError with everything that is wrong: unknown tasks and protocols, data that is not there, a judge
        that is not given. Data that is damaged is no reason: it spoils its own task alone.
        """
        found: dict[str, Chosen] = {}
        wrong: dict[str, None] = {}
        for name in self.tasks:
            try:
                for one in self._of(name):
                    before = found.setdefault(one.task.name, one)
                    if before is not one and one.task.benchmark not in registry.MODULES:
                        raise UserError(f"{name}: a second file of questions called {one.task.benchmark}; rename it")
            except UserError as error:
                wrong[str(error)] = None
        for one in found.values():
            if one.task.needs_judge and not self.judge:
                wrong[f"{one.task.name} needs a judge: give --judge=http://HOST:PORT/v1 and --judge_model=NAME"] = None
        if wrong or not found:
            raise UserError("; ".join(wrong) or "--tasks is empty: name benchmarks, or .jsonl and .txt files")
        return list(found.values())

    def _of(self, name: str) -> Iterator[Chosen]:
        suffix = Path(name).suffix.lower()
        if suffix == ".jsonl":
            rows = OwnRows(name, self.images, self.metric)
            yield Chosen(rows.task, rows)
        elif suffix == ".txt":
            text = TextLoss(Path(name))
            next(text.passages())  # raises for a file that cannot be read
            yield Chosen(TextLossTask(text), text=text)
        else:
            yield from self._benchmark(name)

    def _benchmark(self, name: str) -> Iterator[Chosen]:
        benchmark, dot, own = name.partition(".")
        given = own if dot else self.protocol
        wanted = PROTOCOLS if given == BOTH else [part.strip() for part in given.split(",") if part.strip()]
        for task in dict.fromkeys(registry.get(benchmark, protocol) for protocol in wanted):
            yield self._opened(task)

    def _opened(self, task: Task) -> Chosen:
        if not str(self.data):
            raise NoData("--data is empty: name the folder with the benchmarks' data, or hub to download it")
        folder, revision = self.data, ""
        if str(self.data) == HUB:
            folder, revision = fetch(task.data)
        try:
            rows = open_rows(task, folder)
        except NoData:
            raise
        except UserError as error:
            return Chosen(task, error=str(error), revision=revision)
        return Chosen(rows.task, rows, revision=revision)
