"""OCRBench: a gold is part of the answer; 1,000 questions of ten types.

`eve` has no code for it: our variant asks and scores alike, for the questions carry their own instruction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eve_jax.eval.parsers.clean import scored_text
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict
from eve_jax.eval.units import Units, count

FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
FORMULAS = "HME100k"
TOTAL = 1000


class OcrBench(Task):
    """OCRBench, the same under both protocols."""

    benchmark = "ocrbench"
    measure, top = "correct answers, of 1,000", 1000
    data = DataSet("echo840/OCRBench", "test", names=("OCRBench",))
    generation = Generation(128)

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol

    def row_id(self, row: Row) -> str:
        """Return "": rows have no id."""
        return ""

    def text(self, row: Row) -> str:
        """Return the question."""
        return row["question"].strip()

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: a gold in the answer, without spaces for formulas, else without case."""
        text = scored_text(output)
        golds = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
        form = _formula if row["dataset"] == FORMULAS else _reading
        score = int(any(form(gold) in form(text) for gold in golds))
        inner = {
            "question_type": row["question_type"],
            "score": score,
            "prediction": text,
            "ground_truth": row["answer"],
        }
        record = {"target": row["answer"], "scored_text": text, "ocrbench_accuracy": inner}
        return Verdict(record, float(score), bool(text) or score > 0, text, golds, row["question_type"])

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the number of correct answers, and the same over 1,000, however many rows there are."""
        correct = sum(int(verdict.score) for verdict in verdicts)
        return {"ocrbench_accuracy": correct / TOTAL, "correct": correct}

    def further(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the number of correct answers of each type."""
        kinds = dict.fromkeys(verdict.category for verdict in verdicts)
        return {"by_type": {kind: sum(int(v.score) for v in verdicts if v.category == kind) for kind in kinds}}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the number of correct answers, of 1,000."""
        return aggregate["correct"]

    def units(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Units:
        """Return the questions; the headline is the number of correct ones."""
        return Units(
            np.array([[v.score] for v in verdicts], float).reshape(-1, 1), [v.category for v in verdicts], count
        )


def _formula(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


def _reading(text: str) -> str:
    return text.translate(FULL_WIDTH).lower().strip().replace("\n", " ")


TASKS = (OcrBench("eve"), OcrBench("lmms"))
