"""VQAv2: short answers; the server scores test-dev, we the validation split."""

from collections.abc import Mapping, Sequence
from typing import Any

from eve_jax.eval.parsers.vqa import normalize_vqav2
from eve_jax.eval.prompts import SHORT
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict
from eve_jax.eval.tasks.vqa import EveVqa, LmmsVqa

DATA = DataSet("lmms-lab-encoder/VQAv2", "validation", names=("VQAv2", "vqav2"))


def _golds(row: Row) -> list[str] | None:
    return None if row.get("answers") is None else [item["answer"] for item in row["answers"]]


class Vqav2Lmms(LmmsVqa):
    """VQAv2 as lmms-eval has it."""

    benchmark, data = "vqav2", DATA
    generation = Generation(16)
    rule = staticmethod(normalize_vqav2)
    shows_entry = False

    def adapt(self, row: Row) -> Row:
        """Return the columns of the data set."""
        return {**row, "question": row["text"].removesuffix(f"\n{SHORT}")} if "text" in row else row

    def row_id(self, row: Row) -> str:
        """Return the id of the question."""
        return str(row["question_id"])

    def golds(self, row: Row) -> list[str] | None:
        """Return the annotators' answers."""
        return _golds(row)

    def text(self, row: Row) -> str:
        """Return the question with the short-answer sentence."""
        return f"{row['question']}\n{SHORT}"


class Vqav2Eve(EveVqa):
    """VQAv2 as EVE's scripts have it: a file for the server with every id of the test set.

    Args:
        test_ids: ids of the whole test set, of which those not asked are submitted with an empty answer.
    """

    benchmark, data = "vqav2", DATA
    generation = Generation(128)

    def __init__(self, test_ids: Sequence[int] = ()) -> None:
        self.test_ids = tuple(test_ids)

    def with_files(self, files: Mapping[str, Any]) -> Task:
        """Return the task with `test_ids`, the ids of the whole test set."""
        return Vqav2Eve(files["test_ids"]) if "test_ids" in files else self

    def adapt(self, row: Row) -> Row:
        """Return the line of the question file with the answers."""
        return row if "text" in row else {**row, "text": f"{row['question']}\n{SHORT}"}

    def golds(self, row: Row) -> list[str] | None:
        """Return the annotators' answers; None for the test set."""
        return _golds(row)

    def submission(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> list[dict[str, Any]] | None:
        """Return the normalized answers, and an empty one for each id that was not asked."""
        asked = {row["question_id"] for row in rows}
        unasked = [{"question_id": number, "answer": ""} for number in self.test_ids if number not in asked]
        return [*(super().submission(rows, verdicts) or []), *unasked]

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the number of entries, the last of those not asked, and the soft accuracy."""
        entries = self.submission(rows, verdicts) or []
        unasked = {"unanswered_entry": entries[-1]} if len(entries) > len(rows) else {}
        return super().aggregate(rows, verdicts) | unasked


TASKS = (Vqav2Eve(), Vqav2Lmms())
