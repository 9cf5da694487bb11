"""MME: yes-or-no questions in pairs, 14 categories; a pair with both right counts twice."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eve_jax.eval.parsers.clean import decoded_text, scored_text
from eve_jax.eval.parsers.words import yes_no_start
from eve_jax.eval.prompts import SHORT
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict
from eve_jax.eval.units import Units, quotient

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
INSTRUCTION = " Please answer yes or no."


class _Mme(Task):
    benchmark = "mme"
    measure, top = "perception + cognition, points", 2800
    data = DataSet("lmms-lab-encoder/MME", "test", names=("MME", "MME_Benchmark_release_version"))

    def row_id(self, row: Row) -> str:
        """Return QUESTION_ID:QUESTION, for both questions of an image have one id."""
        return f"{row['question_id']}:{row['question']}"

    def group(self, id: str) -> str:
        """Return the image's id."""
        return id.partition(":")[0]

    def _gold(self, row: Row) -> str:
        return row["answer"].lower().strip().replace(".", "")

    def _images(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, list[float]]:
        """Return the points of the images of each category: 100 x accuracy, and 100 if all questions are right."""
        images: dict[str, dict[str, list[float]]] = {}
        for row, verdict in zip(rows, verdicts, strict=True):
            images.setdefault(row["category"], {}).setdefault(row["question_id"], []).append(verdict.score)
        return {
            name: [100 * sum(scores) / len(scores) + 100 * (min(scores) == 1) for scores in pairs.values()]
            for name, pairs in images.items()
        }

    def _points(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, float]:
        """Return the points of each category: the mean over its images."""
        return {name: sum(points) / len(points) for name, points in self._images(rows, verdicts).items()}

    def units(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Units:
        """Return the images; the headline is the sum over the categories of the mean points of their images."""
        images = [(name, value) for name, values in self._images(rows, verdicts).items() for value in values]
        numbers = np.array([(value, 1) for _, value in images], float).reshape(-1, 2)
        return Units(numbers, [name for name, _ in images], quotient, "sum", "images")


def _sums(points: Mapping[str, float]) -> tuple[float, float]:
    perception = sum(value for name, value in points.items() if name in PERCEPTION)
    return perception, sum(value for name, value in points.items() if name not in PERCEPTION)


class MmeLmms(_Mme):
    """MME as lmms-eval has it."""

    protocol = "lmms"
    generation = Generation(16)

    def adapt(self, row: Row) -> Row:
        """Return the columns of the data set."""
        return {key: row[key] for key in ("question_id", "question", "answer", "category")} if "text" in row else row

    def text(self, row: Row) -> str:
        """Return the question with the short-answer sentence in place of its own."""
        return f"{row['question'].strip().replace(INSTRUCTION, '')}\n{SHORT}"

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: yes or no, or within the first four characters."""
        text = scored_text(output)
        low = text.lower().strip().replace(".", "")
        answer = {"y": "yes", "n": "no"}.get(low, yes_no_start(low) if len(low) != 1 else "other")
        gold = self._gold(row)
        score = float(answer == gold)
        key = "mme_perception_score" if row["category"] in PERCEPTION else "mme_cognition_score"
        inner = {"question_id": row["question_id"], "category": row["category"], "score": score}
        record = {"target": row["answer"], "scored_text": text, key: inner}
        return Verdict(record, score, answer != "other", answer, gold, row["category"])

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the sums of perception (at most 2000) and cognition (800), and the categories."""
        points = self._points(rows, verdicts)
        perception, cognition = _sums(points)
        return {"mme_perception_score": perception, "mme_cognition_score": cognition, "subtasks": points}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return perception + cognition."""
        return aggregate["mme_perception_score"] + aggregate["mme_cognition_score"]


class MmeEve(_Mme):
    """MME as EVE's scripts and the official calculation have it."""

    protocol = "eve"
    generation = Generation(128)

    def adapt(self, row: Row) -> Row:
        """Return the line of the question file with the official question and answer."""
        if "text" in row:
            return row
        question = row["question"].strip().replace(INSTRUCTION.strip(), "").strip()
        return {**row, "image": row["question_id"], "text": f"{question}\n{SHORT}"}

    def text(self, row: Row) -> str:
        """Return the text of the question file."""
        return row["text"]

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: yes or no within the first four characters, in any case."""
        text = decoded_text(output)
        answer, gold = yes_no_start(text.lower()), self._gold(row)
        record = {"text": text, "parsed": answer, "gold": gold}
        return Verdict(record, float(answer == gold), answer != "other", answer, gold, row["category"])

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return perception, cognition, their sum, and the categories."""
        points = self._points(rows, verdicts)
        perception, cognition = _sums(points)
        return {
            "perception": perception,
            "subtasks": points,
            "cognition": cognition,
            "sum": perception + cognition,
        }

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return perception + cognition."""
        return aggregate["sum"]


TASKS = (MmeEve(), MmeLmms())
