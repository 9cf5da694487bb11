"""Questions of the user's own: a JSONL file of LLaVA records, scored by one of five simple rules.

    {"id": "1", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nHow many?"},
     {"from": "gpt", "value": "3"}], "metric": "numeric"}

The gold is `answer`, or each of the list `answers`, or else the last gpt turn; `answer` next to `answers` must be one
of them. `metric` is a field of the record, or the setting for records without one:

    exact      the same text, without case, outer spaces and a final full stop
    contains   the gold is part of the answer, without case
    numeric    the answer's last number is within 5% of the gold
    vqa        accuracy over annotators, as VQAv2 has it; with fewer than four golds, one that agrees is enough
    letter     the letter that the answer most likely gives, of those of `options` (A to F without)
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from eve_jax.data.image_file import ImageFile
from eve_jax.data.markers import MARKER, count_markers, split_markers
from eve_jax.data.record import BadRecord, digest_of
from eve_jax.data.sources.image_refs import image_values, to_image
from eve_jax.errors import UserError, amount, shorten
from eve_jax.eval.parsers.clean import scored_text
from eve_jax.eval.parsers.letters import tolerant_letter
from eve_jax.eval.parsers.vqa import normalize, soft_accuracy
from eve_jax.eval.sources.base import Ids, Item
from eve_jax.eval.sources.official import read_lines
from eve_jax.eval.task import DataSet, Generation, ImageSlot, Row, Task, Verdict, mean
from eve_jax.process.files import read_bytes

METRICS = ("exact", "contains", "numeric", "vqa", "letter")
NUMBER = re.compile(r"(?:(?<!\d)[-+])?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
TOLERANCE = 0.05
FEW = 4  # annotators from which on the soft accuracy can reach 1


def last_number(text: str) -> float | None:
    """Return the last number in `text`, without commas of thousands and units; None for none."""
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _texts(given: Any, name: str) -> list[str]:
    """Return a gold, or a list of them, as texts. Raises ValueError for anything but texts and numbers."""
    golds = given if isinstance(given, list) else [given]
    for gold in golds:
        if isinstance(gold, bool) or not isinstance(gold, str | int | float):
            remedy = "; leave the field out to take the gpt turn" if gold is None and name == "answer" else ""
            has = "is" if golds is not given else "has"
            raise ValueError(f"{name} {has} {shorten(json.dumps(gold), 60)}; expected a text or a number{remedy}")
    return [str(gold) for gold in golds]


def _plain(text: str) -> str:
    return text.strip().rstrip(".").strip().casefold()


def _exact(text: str, golds: Sequence[str], row: Row) -> tuple[Any, float]:
    answer = _plain(text)
    return answer or None, float(answer in [_plain(gold) for gold in golds])


def _contains(text: str, golds: Sequence[str], row: Row) -> tuple[Any, float]:
    return text or None, float(any(gold.strip().casefold() in text.casefold() for gold in golds))


def _numeric(text: str, golds: Sequence[str], row: Row) -> tuple[Any, float]:
    answer = last_number(text)
    expected = [number for gold in golds if (number := last_number(gold)) is not None]
    near = answer is not None and any(abs(answer - gold) <= TOLERANCE * abs(gold) for gold in expected)
    return answer, float(near)


def _vqa(text: str, golds: Sequence[str], row: Row) -> tuple[Any, float]:
    answer, known = normalize(text), [normalize(gold) for gold in golds]
    return answer or None, float(answer in known) if len(golds) < FEW else soft_accuracy(answer, known)


def letters_of(row: Row) -> str:
    """Return the letters of a question with `options`, a list of them or their number. Raise ValueError for others."""
    given = row.get("options")
    if given is None:
        return "ABCDEF"
    count = len(given) if isinstance(given, list | dict) else given
    if isinstance(count, bool) or not isinstance(count, int) or not 1 < count <= len(ascii_uppercase):
        raise ValueError(f"options is {shorten(repr(given), 60)}; expected a list of 2 to 26 options, or their number")
    return ascii_uppercase[:count]


def _letter(text: str, golds: Sequence[str], row: Row) -> tuple[Any, float]:
    answer = tolerant_letter(text, letters_of(row))
    return answer, float(answer in [gold.strip().upper() for gold in golds])


RULES = {"exact": _exact, "contains": _contains, "numeric": _numeric, "vqa": _vqa, "letter": _letter}


class OwnQuestions(Task):
    """The questions of a file; the protocols do not differ.

    Args:
        name: what reports call it, as a rule the file's stem.
        metric: rule for records that name none.
        max_new_tokens: the most tokens of an answer.
    """

    data = DataSet("", "")
    protocol = "own"

    def __init__(self, name: str, metric: str = "exact", max_new_tokens: int = 128) -> None:
        if metric not in METRICS:
            raise UserError(f"metric {metric!r} of {name}: unknown; known: {', '.join(METRICS)}")
        self.benchmark = name  # type: ignore[misc]  # of the file
        self.metric, self.generation = metric, Generation(max_new_tokens)

    def row_id(self, row: Row) -> str:
        """Return the id of the record; "" without one."""
        return str(row.get("id", row.get("question_id", "")))

    def images(self, row: Row) -> list[str]:
        """Return the field with the images."""
        return [name for name in ("image", "images") if image_values(row.get(name))][:1]

    def _value(self, row: Row) -> str:
        turns = row["conversations"]
        human = [turn["value"] for turn in turns if turn["from"] in ("human", "user")]
        if len(human) != 1:
            raise ValueError(f"has {len(human)} questions; give one per record")
        return human[0]

    def text(self, row: Row) -> str:
        """Return the question without the places of its images."""
        return "".join(split_markers(self._value(row))).strip()

    def prompt(self, row: Row) -> str:
        """Return the question as the record has it, with `<image>` first where it has an image but no marker."""
        value, count = self._value(row), self._count(row)
        return value if count_markers(value) or not count else f"{MARKER}\n" * count + value

    def message(self, row: Row) -> str:
        """Return the question as the record has it: its images are placed as in records that a model trains on."""
        return self._value(row)

    def _count(self, row: Row) -> int:
        return sum(len(image_values(row[name])) for name in self.images(row))

    def content(self, row: Row) -> list[str | ImageSlot]:
        """Return the pieces around the markers, and the images in order."""
        pieces = split_markers(self.prompt(row))
        count = self._count(row)
        if len(pieces) - 1 != count:
            raise ValueError(f"has {len(pieces) - 1} <image> for {amount(count, 'image')}")
        parts: list[str | ImageSlot] = []
        for number, piece in enumerate(pieces):
            parts += [ImageSlot(number - 1)] if number else []
            parts += [piece.strip()] if piece.strip() else []
        return parts

    def golds(self, row: Row) -> list[str]:
        """Return the golds. Raises ValueError for none."""
        named = {name: _texts(row[name], name) for name in ("answers", "answer") if name in row}
        if len(named) == 2 and (other := [gold for gold in named["answer"] if gold not in named["answers"]]):
            raise ValueError(f"answer is {shorten(repr(other[0]), 60)}, which is none of answers; give one of the two")
        turns = [turn["value"] for turn in row["conversations"] if turn["from"] in ("gpt", "assistant")]
        golds = next(iter(named.values())) if named else _texts(turns[-1:], "the gpt turn")
        if not golds or not all(gold.strip() for gold in golds):
            raise ValueError("has no answer; give answer, answers or a gpt turn")
        return golds

    def check(self, row: Row) -> None:
        """Raise ValueError for a record that cannot be asked or scored."""
        metric = row.get("metric", self.metric)
        if metric not in METRICS:
            raise ValueError(f"metric {metric!r} is unknown; known: {', '.join(METRICS)}")
        self.content(row)
        golds = self.golds(row)
        if metric == "numeric" and any(last_number(gold) is None for gold in golds):
            raise ValueError(f"metric numeric, but the answer {shorten(golds[0], 60)!r} is no number")

        if metric == "letter" and (wrong := [gold for gold in golds if gold.strip().upper() not in [*letters_of(row)]]):
            raise ValueError(f"metric letter, but the answer {shorten(wrong[0], 60)!r} is none of {letters_of(row)}")

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict by the record's metric."""
        text, metric, golds = scored_text(output), row.get("metric", self.metric), self.golds(row)
        answer, score = RULES[metric](text, golds, row)
        record = {"scored_text": text, "metric": metric, "answer": answer, "gold": golds, "score": score}
        return Verdict(record, score, answer is not None, answer, golds, str(row.get("category", "")))

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the mean score of all, and of each metric where there are several."""
        kinds = dict.fromkeys(verdict.record["metric"] for verdict in verdicts)
        parts = {kind: mean([v.score for v in verdicts if v.record["metric"] == kind]) for kind in kinds}
        return {"accuracy": mean([v.score for v in verdicts])} | (parts if len(parts) > 1 else {})

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the mean score in percent."""
        return 100 * aggregate["accuracy"]


class OwnRows:
    """The records of a JSONL file of the user's own, see `sources.base.Rows`; all are checked when it is opened.

    Args:
        path: the file.
        images_dir: folder that images are relative to; the file's own folder is looked in, too.
        metric: rule for records that name none.
    """

    def __init__(self, path: str | Path, images_dir: str | Path = "", metric: str = "exact") -> None:
        own = OwnQuestions(Path(path).stem, metric)
        self.path, self.task = Path(path), own  # type: Path, Task
        self._folders = [str(folder) for folder in (images_dir, self.path.parent) if str(folder)]
        self._rows = read_lines(self.path)
        self.left_out: dict[str, int] = {}
        self.digest = digest_of([read_bytes(self.path)])
        if not self._rows:
            raise UserError(f"{path}: holds no questions")
        for number, row in enumerate(self._rows, 1):
            try:
                own.check(row)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                missing = isinstance(error, KeyError)
                reason = f"no field {error}; docs/eval.md says what a question is" if missing else str(error)
                raise UserError(f"{path}#{number}: {shorten(reason, 200)}") from None

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Item]:
        ids = Ids(self.task)
        for number, row in enumerate(self._rows):
            where = f"{self.path}#{number + 1}"
            values = [(value, name) for name in self.task.images(row) for value in image_values(row[name])]
            images = tuple(self._image(*value, where) for value in values)
            yield Item(ids.of(row, number), row, images, where, number)

    def _image(self, value: Any, field: str, where: str) -> ImageFile:
        try:
            return to_image(value, where, self._folders, field)
        except BadRecord as error:
            raise UserError(f"{where}: {error.reason}") from None
