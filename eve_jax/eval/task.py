"""What a task is: a benchmark under a protocol, from the rows of its data to the numbers that are reported.

A row is the record of one question, a dict of JSON values without the images: of the data set's columns for the `lmms`
protocols, of the question file's fields and the annotation for `eve`. `Task.adapt` turns either into the one that the
protocol expects, so both protocols run from either layout of the data. The way of a row:

    row = task.adapt(raw row)
    task.content(row), task.images(row) -> what the model is given      task.generation -> how it answers
    task.score(row, output) -> Verdict                                   at once, without a judge
    task.judge(rows, verdicts, judge) -> verdicts                        of all rows, for tasks with `needs_judge`
    task.aggregate(rows, verdicts) -> the reported numbers

Tasks hold no state: the same rows and outputs give the same verdicts in any order, and the same aggregate for rows in
the order of the data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from eve_jax.data.markers import MARKER, escape_markers
from eve_jax.eval.units import Units, score_units

if TYPE_CHECKING:
    from eve_jax.eval.judge import Judge

Row = dict[str, Any]
LMMS = ("lmms", "lmms_static", "lmms_judge", "lmms_ocr")


class ImageSlot(int):
    """A place for an image in a prompt: the number of the image, from 0, in `Task.images`."""


@dataclass(frozen=True)
class Generation:
    """How a task's answers are generated.

    Attributes:
        max_new_tokens: the most tokens of an answer.
        temperature: 0 for greedy decoding.
        stop: texts at which an answer is cut off.
    """

    max_new_tokens: int
    temperature: float = 0.0
    stop: tuple[str, ...] = ()

    def cut(self, text: str) -> str:
        """Return `text` up to the first of the stop texts in it."""
        for stop in self.stop:
            text = text.partition(stop)[0]
        return text


@dataclass(frozen=True)
class Verdict:
    """What a task says of one answer.

    Attributes:
        record: the verdict with the fields of this task's reference scorer, as `launch.eval replay` prints it.
        score: how right the answer is, 0 to 1.
        parsed: whether an answer could be read from the output; one that could not counts as wrong.
        answer: what was read from the output; None if nothing was.
        gold: what was expected, for reports.
        category: the category that reports group by, or "".
        error: why there is no verdict (a judge's request failed), or "": such a row is no wrong answer, it is listed
            and left out of the aggregate.
    """

    record: dict[str, Any]
    score: float
    parsed: bool = True
    answer: Any = None
    gold: Any = None
    category: str = ""
    error: str = ""

    def judged(self, score: float, answer: Any, parsed: bool, record: Mapping[str, Any]) -> Verdict:
        """Return the verdict with the score of a judge, and `record` added to the reference's fields."""
        return replace(self, score=score, answer=answer, parsed=parsed, record=self.record | dict(record))

    def failed(self, reason: str) -> Verdict:
        """Return the verdict of a row whose judge failed: none."""
        return replace(self, score=0.0, parsed=False, error=reason)


@dataclass(frozen=True)
class DataSet:
    """Where a task's rows lie in the Hugging Face layout: REPOSITORY/FOLDER/SPLIT-*.parquet.

    Attributes:
        repository: OWNER/NAME on the hub.
        split: start of the names of the files.
        folder: folder of the configuration below the repository.
        names: further names of the folder that users may have (EVE's, VLMEvalKit's), for local data.
        images: folder of a configuration with the images, joined by its `id` = `image_key` of the rows; "" where the
            rows have them.
        image_key: see `images`.
    """

    repository: str
    split: str
    folder: str = "data"
    names: tuple[str, ...] = ()
    images: str = ""
    image_key: str = ""

    @property
    def patterns(self) -> list[str]:
        """The files to download from the hub's repository."""
        return [f"{folder}/{self.split}-*.parquet" for folder in (self.folder, self.images) if folder]


class Task(ABC):
    """A benchmark under one protocol.

    `measure` is what the headline is, for reports, `top` the most that it can be (None: there is none), and `digits`
    how many digits after the point are shown.
    """

    benchmark: ClassVar[str]
    measure: ClassVar[str] = "accuracy, %"
    top: ClassVar[float | None] = 100
    digits: ClassVar[int] = 1
    protocol: str
    generation: Generation
    data: DataSet
    needs_judge: bool = False

    @property
    def name(self) -> str:
        """BENCHMARK.PROTOCOL, which names files of answers and reports."""
        return f"{self.benchmark}.{self.protocol}"

    @property
    def asks(self) -> bool:
        """Whether the task asks questions; one that generates nothing has numbers alone, as the loss on a text."""
        return self.generation.max_new_tokens > 0

    def measured(self, aggregate: Mapping[str, Any]) -> str:
        """Return what the numbers are of, for a task that asks no questions (`asks`)."""
        return "no questions"

    def adapt(self, row: Row) -> Row:
        """Return `row`, of either layout, as this protocol expects it; the reference rows are returned unchanged."""
        return row

    def with_files(self, files: Mapping[str, Any]) -> Task:
        """Return the task with what lies next to the rows of some benchmarks; the task itself where none does.

        `files`: of names that the task documents (SEED-Bench: `annotation_file`; VQAv2: `test_ids`).
        """
        return self

    @abstractmethod
    def row_id(self, row: Row) -> str:
        """Return the stable name of a row within the benchmark; "" if it has none: loaders then count the rows."""

    def group(self, id: str) -> str:
        """Return the name of the group of questions that are scored together; the id of one that stands alone."""
        return id

    def images(self, row: Row) -> list[str]:
        """Return the fields that hold the images of `row`, in the order of the prompt; a field may hold a list.

        `row["image"]` is there, as None, only where the data has no image for the row.
        """
        return [] if row.get("image", "") is None else ["image"]

    def left_out(self, row: Row) -> str:
        """Return why loaders leave a raw row out (a video, for one), with the plural of what it is; "" to ask it."""
        return ""

    @abstractmethod
    def text(self, row: Row) -> str:
        """Return the question with its instructions, without a marker for the image."""

    def prompt(self, row: Row) -> str:
        """Return the prompt as the reference prints it: the user turn with `<image>` markers (eve), or the text."""
        return f"<image>\n{self.text(row)}" if self.protocol == "eve" else self.text(row)

    def content(self, row: Row) -> list[str | ImageSlot]:
        """Return the user turn as texts and images in order: all images first, unless a task interleaves them."""
        return [*(ImageSlot(number) for number in range(len(self.images(row)))), self.text(row)]

    def message(self, row: Row) -> str:
        """Return the user turn as the model gets it: `content` with a marker and a newline for each image.

        Markers in the texts are escaped, see `eve_jax.data.markers`: a question may speak of `<image>`.
        """
        return message_of(self.content(row))

    @abstractmethod
    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict on an answer. `output`: the model's text as it came; None counts as empty.

        Tasks with `needs_judge` return what is known without the judge, with a score of 0.
        """

    def judge(self, rows: Sequence[Row], verdicts: Sequence[Verdict], judge: Judge) -> list[Verdict]:
        """Return `verdicts` with the judge's scores; as they are for tasks without a judge.

        A row whose request failed comes back with `Verdict.error`; the others are judged all the same.
        """
        return list(verdicts)

    @abstractmethod
    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the reported numbers, with the names and scales of the reference scorer."""

    def further(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return numbers that the reference scorer does not state (local scores, subjects); none by default."""
        return {}

    def submission(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> list[dict[str, Any]] | None:
        """Return the entries of the file that the benchmark's server takes; None where there is no server."""
        return None

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the one number that papers report, on their scale; None where there is none.

        `aggregate`: with the entries of `further` added.
        """
        return None

    def units(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Units:
        """Return the units that the headline is made of, for its interval: questions, of which it is the mean score."""
        return score_units([verdict.score for verdict in verdicts], [verdict.category for verdict in verdicts])


def message_of(parts: Sequence[str | ImageSlot]) -> str:
    """Return a user turn as the model gets it, see `Task.message`."""
    return "".join(f"{MARKER}\n" if isinstance(part, ImageSlot) else escape_markers(part) for part in parts)


def mean(values: Sequence[float]) -> float:
    """Return the mean, 0 for no values, summed in order as the reference scorers do."""
    return sum(values) / len(values) if values else 0.0
