"""GQA, testdev-balanced: short answers, exact match."""

from collections.abc import Mapping, Sequence
from typing import Any

from eve_jax.eval.parsers.clean import decoded_text, scored_text
from eve_jax.eval.parsers.words import plain
from eve_jax.eval.prompts import SHORT
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict, mean


class _Gqa(Task):
    benchmark = "gqa"
    data = DataSet(
        "lmms-lab-encoder/GQA",
        "testdev",
        "testdev_balanced_instructions",
        ("GQA", "gqa"),
        images="testdev_balanced_images",
        image_key="imageId",
    )


class GqaLmms(_Gqa):
    """GQA as lmms-eval has it: without case and punctuation on both sides."""

    protocol = "lmms"
    generation = Generation(16)

    def adapt(self, row: Row) -> Row:
        """Return the columns of the data set."""
        return {"id": row["question_id"], **row["question_record"]} if "question_record" in row else row

    def row_id(self, row: Row) -> str:
        """Return the id of the question."""
        return str(row["id"])

    def text(self, row: Row) -> str:
        """Return the question with the short-answer sentence."""
        return f"{row['question']}\n{SHORT}"

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: the same letters and digits."""
        text = scored_text(output)
        score = float(plain(text) == plain(row["answer"]))
        record = {"target": row["answer"], "scored_text": text, "exact_match": score}
        return Verdict(record, score, bool(text) or score > 0, plain(text), row["answer"], row["types"]["structural"])

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the accuracy."""
        return {"exact_match": mean([verdict.score for verdict in verdicts])}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the accuracy in percent."""
        return 100 * aggregate["exact_match"]


class GqaEve(_Gqa):
    """GQA as EVE's script and the official evaluation have it."""

    protocol = "eve"
    generation = Generation(128)

    def adapt(self, row: Row) -> Row:
        """Return the line of the question file with the official record."""
        if "question_record" in row:
            return row
        record = {key: value for key, value in row.items() if key != "id"}
        return {
            "question_id": row["id"],
            "image": f"{row['imageId']}.jpg",
            "text": f"{row['question']}\n{SHORT}",
            "category": "default",
            "question_record": record,
        }

    def row_id(self, row: Row) -> str:
        """Return the id of the question."""
        return str(row["question_id"])

    def text(self, row: Row) -> str:
        """Return the text of the question file."""
        return row["text"]

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: lower case without final full stops equals the gold as it is."""
        text = decoded_text(output)
        answer, gold = text.rstrip(".").lower(), row["question_record"]["answer"]
        score = float(answer == gold)
        record = {"text": text, "prediction": answer, "gold": gold, "score": score}
        return Verdict(
            record, score, bool(text) or score > 0, answer, gold, row["question_record"]["types"]["structural"]
        )

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return percentages of all, binary (not `query`) and open (`query`) questions, rounded to two digits."""
        scores = [verdict.score for verdict in verdicts]
        open_ = [verdict.score for verdict in verdicts if verdict.category == "query"]
        binary = [verdict.score for verdict in verdicts if verdict.category != "query"]
        return {
            "accuracy": round(100 * mean(scores), 2),
            "binary": round(100 * mean(binary), 2),
            "open": round(100 * mean(open_), 2),
            "accuracy_unrounded": 100 * mean(scores),
        }

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the accuracy in percent."""
        return aggregate["accuracy_unrounded"]


TASKS = (GqaEve(), GqaLmms())
