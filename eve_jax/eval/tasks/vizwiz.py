"""VizWiz: images taken by people who cannot see; some questions cannot be answered."""

from collections.abc import Sequence
from typing import Any

from eve_jax.eval.prompts import SHORT
from eve_jax.eval.task import DataSet, Generation, Row, Verdict
from eve_jax.eval.tasks.vqa import EveVqa, LmmsVqa

DATA = DataSet("lmms-lab-encoder/VizWiz-VQA", "val", names=("VizWiz-VQA", "VizWiz", "vizwiz"))
UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."


def _kind(row: Row) -> str:
    category = row.get("category") or ""
    return "" if category == "default" else category  # of EVE's question file


def _text(question: str) -> str:
    return f"{question.capitalize()}\n{UNANSWERABLE}\n{SHORT}"


class VizWizLmms(LmmsVqa):
    """VizWiz as lmms-eval has it."""

    benchmark, data = "vizwiz", DATA
    generation = Generation(1024, stop=("ASSISTANT:",))

    def adapt(self, row: Row) -> Row:
        """Return the columns of the data set."""
        if "text" not in row:
            return row
        question = row.get("source_question") or row["text"].removesuffix(f"\n{UNANSWERABLE}\n{SHORT}")
        return {**row, "question": question, "question_id": row["image"].rpartition(".")[0]}

    def row_id(self, row: Row) -> str:
        """Return the name of the image, which has one question."""
        return str(row["question_id"])

    def text(self, row: Row) -> str:
        """Return the question with the two sentences."""
        return _text(row["question"])

    def kind(self, row: Row) -> str:
        """Return the data set's category of the question; EVE's question file has none."""
        return _kind(row)

    def entry(self, row: Row, answer: str) -> dict[str, Any]:
        """Return the entry of the server's file."""
        return {"image": f"{row['question_id']}.jpg", "answer": answer}

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the mean soft accuracy; the submission has no number."""
        return super().aggregate(rows, verdicts) | {"submission": []}


class VizWizEve(EveVqa):
    """VizWiz as EVE's scripts have it."""

    benchmark, data = "vizwiz", DATA
    generation = Generation(128)

    def adapt(self, row: Row) -> Row:
        """Return the line of the question file with the answers."""
        if "text" in row:
            return row
        return {**row, "image": f"{row['question_id']}.jpg", "text": _text(row["question"])}

    def row_id(self, row: Row) -> str:
        """Return the name of the image, which has one question."""
        return str(row["image"]).rpartition(".")[0]

    def kind(self, row: Row) -> str:
        """Return the data set's category of the question; EVE's question file has none."""
        return _kind(row)

    def entry(self, row: Row, answer: str) -> dict[str, Any]:
        """Return the entry of the server's file."""
        return {"image": row["image"], "answer": answer}


TASKS = (VizWizEve(), VizWizLmms())
