"""TextVQA: text in images, with or without the tokens that an OCR system found."""

from collections.abc import Sequence
from typing import Any

from eve_jax.eval.parsers.clean import decoded_text
from eve_jax.eval.parsers.vqa import normalize, soft_accuracy
from eve_jax.eval.prompts import SHORT
from eve_jax.eval.task import DataSet, Generation, Row, Verdict, mean
from eve_jax.eval.tasks.vqa import EveVqa, LmmsVqa

DATA = DataSet("lmms-lab-encoder/textvqa", "validation", names=("textvqa", "TextVQA"))


def _text(question: str, tokens: Sequence[str] | None) -> str:
    reference = "" if tokens is None else f"\nReference OCR token: {', '.join(tokens)}"
    return f"{question.capitalize()}{reference}\n{SHORT}"


class TextVqaLmms(LmmsVqa):
    """TextVQA as lmms-eval has it; `lmms_ocr` is its setting `ocr: true`."""

    benchmark, data = "textvqa", DATA
    generation = Generation(1024, stop=("ASSISTANT:",))

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol

    def adapt(self, row: Row) -> Row:
        """Return the columns of the data set."""
        return {**row["annotation"], "ocr_tokens": row.get("ocr_tokens") or []} if "annotation" in row else row

    def row_id(self, row: Row) -> str:
        """Return the id of the question."""
        return str(row["question_id"])

    def text(self, row: Row) -> str:
        """Return the question, the OCR tokens if the protocol has them, and the short-answer sentence."""
        return _text(row["question"], row["ocr_tokens"] if self.protocol == "lmms_ocr" else None)

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the mean soft accuracy; the submission has no number."""
        return super().aggregate(rows, verdicts) | {"submission": None}


class TextVqaEve(EveVqa):
    """TextVQA as EVE's scripts have it: with OCR tokens."""

    benchmark, data = "textvqa", DATA
    generation = Generation(128)

    def adapt(self, row: Row) -> Row:
        """Return the line of the question file with the annotation."""
        if "text" in row:
            return row
        return {
            "question_id": row["image_id"],
            "image": f"{row['image_id']}.jpg",
            "text": _text(row["question"], row["ocr_tokens"]),
            "category": "default",
            "annotation": {key: value for key, value in row.items() if key != "ocr_tokens"},
            "ocr_tokens": row["ocr_tokens"],
        }

    def row_id(self, row: Row) -> str:
        """Return the id of the question, which the question file lacks: its `question_id` is the image's."""
        return str(row["annotation"]["question_id"])

    def golds(self, row: Row) -> list[str] | None:
        """Return the annotators' answers."""
        return row["annotation"].get("answers")

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict by soft accuracy."""
        text = decoded_text(output)
        answer, golds = normalize(text), self.golds(row) or []
        score = soft_accuracy(answer, [normalize(gold) for gold in golds])
        record = {"text": text, "processed": answer, "accuracy": score}
        return Verdict(record, score, bool(text) or score > 0, answer, golds)

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the number of samples and the soft accuracy in percent, rounded to two digits, and as it is."""
        accuracy = mean([verdict.score for verdict in verdicts])
        return {
            "samples": len(verdicts),
            "accuracy_percent": round(100 * accuracy, 2),
            "accuracy_unrounded": accuracy,
        }

    def headline(self, aggregate: Any) -> float | None:
        """Return the soft accuracy in percent."""
        return 100 * aggregate["accuracy_unrounded"]


TASKS = (TextVqaEve(), TextVqaLmms("lmms"), TextVqaLmms("lmms_ocr"))
