"""SEED-Bench: options by letter. Images only: loaders leave video questions out, by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from eve_jax.eval.parsers.clean import decoded_text, scored_text
from eve_jax.eval.prompts import choice_question
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict, mean
from eve_jax.eval.units import Units, score_units

DATA = DataSet("lmms-lab-encoder/SEED-Bench", "test", names=("SEED-Bench", "seed_bench", "SEEDBench_IMG"))
CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
TYPES = {
    "Scene Understanding": 1,
    "Instance Identity": 2,
    "Instance Attributes": 3,
    "Instance Location": 4,
    "Instances Counting": 5,
    "Spatial Relation": 6,
    "Instance Interaction": 7,
    "Visual Reasoning": 8,
    "Text Understanding": 9,
    "Action Recognition": 10,
    "Action Prediction": 11,
    "Procedure Understanding": 12,
}


NAMES = {number: name for name, number in TYPES.items()}


def _text(question: Row) -> str:
    return choice_question(question["question"], [question[name] for name in CHOICES])


def _name(kind: Any) -> str:
    return NAMES.get(kind, str(kind))


class _Seed(Task):
    benchmark, data = "seed", DATA
    measure = "accuracy of image questions, %"

    def row_id(self, row: Row) -> str:
        """Return the id of the question."""
        return str(row["question_id"])

    def left_out(self, row: Row) -> str:
        """Return that questions about videos are left out: EVE takes images."""
        return "video questions" if row.get("data_type") == "video" else ""


class SeedLmms(_Seed):
    """SEED-Bench as lmms-eval has it: the first character of the answer."""

    protocol = "lmms"
    generation = Generation(1024, stop=("ASSISTANT:",))

    def adapt(self, row: Row) -> Row:
        """Return the columns of the data set."""
        return row.get("annotation", row)

    def text(self, row: Row) -> str:
        """Return the question, the options and the letter sentence."""
        return _text(row)

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: the first character is the letter, in any case."""
        text = scored_text(output)
        answer = text[:1]
        correct = answer.lower().strip() == row["answer"].lower().strip()
        inner = {"pred": answer, "answer": row["answer"], "question_id": row["question_id"]}
        record = {
            "target": row["answer"],
            "scored_text": text,
            f"seed_{row['data_type']}": inner,
            "seed_all": inner,
            "correct": correct,
        }
        parsed = answer.upper() in list("ABCD")
        return Verdict(record, float(correct), parsed, answer, row["answer"], _name(row["question_type_id"]))

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the accuracy of image questions, of video questions where there are any, and of all."""
        kinds = dict.fromkeys(f"seed_{row['data_type']}" for row in rows)
        scores = {kind: mean([v.score for v in verdicts if kind in v.record]) for kind in [*kinds, "seed_all"]}
        return scores

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the accuracy of image questions in percent."""
        return 100 * aggregate["seed_image"] if "seed_image" in aggregate else None

    def units(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Units:
        """Return the image questions."""
        shown = [verdict for verdict in verdicts if "seed_image" in verdict.record]
        return score_units([v.score for v in shown], [v.category for v in shown])


class SeedEve(_Seed):
    """SEED-Bench as EVE's scripts have it: the whole answer is the letter.

    Args:
        annotation: the official file with the types and all questions, the videos' too, which count as wrong in the
            total that the script prints; None for the rows alone.
    """

    protocol = "eve"
    generation = Generation(128)

    def __init__(self, annotation: Mapping[str, Any] | None = None) -> None:
        self.types = annotation["question_type"] if annotation else TYPES
        self.questions = {str(item["question_id"]): item for item in annotation["questions"]} if annotation else {}

    def with_files(self, files: Mapping[str, Any]) -> Task:
        """Return the task with `annotation_file`, the official file."""
        return SeedEve(files["annotation_file"]) if files.get("annotation_file") else self

    def adapt(self, row: Row) -> Row:
        """Return the line of the question file with its annotation, where the task does not have that."""
        if "text" in row:
            return row
        number = str(row["question_id"])
        return {
            "question_id": int(number) if number.isdigit() else number,
            "image": f"SEED-Bench-image/{row['data_id']}",
            "text": _text(row),
            "category": row["question_type_id"],
            "annotation": row,
        }

    def text(self, row: Row) -> str:
        """Return the text of the question file."""
        return row["text"]

    def _annotation(self, row: Row) -> Row:
        return row.get("annotation") or self.questions[str(row["question_id"])]

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: the answer equals the letter."""
        text = decoded_text(output)
        annotation = self._annotation(row)
        gold, kind = annotation["answer"], annotation["question_type_id"]
        record = {"text": text, "gold": gold, "correct": text == gold, "type": kind}
        return Verdict(record, float(text == gold), text in list("ABCD"), text, gold, _name(kind))

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return percentages: of images, of all with videos as wrong, and by type; rounded to two digits."""
        names = {number: name for name, number in self.types.items()}
        asked = {str(row["question_id"]) for row in rows}
        scores = [(verdict.record["type"], verdict.score) for verdict in verdicts]
        unasked = [(q["question_type_id"], 0.0) for n, q in self.questions.items() if n not in asked]
        tolerant = [float(verdict.record["text"][:1] == verdict.gold) for verdict in verdicts]
        image = 100 * mean([score for _, score in scores])
        kinds = sorted({kind for kind, _ in [*scores, *unasked]})
        by_type = {kind: [score for other, score in [*scores, *unasked] if other == kind] for kind in kinds}
        return {
            "image": round(image, 2),
            "total_with_unasked_videos": round(100 * mean([score for _, score in [*scores, *unasked]]), 2),
            "image_unrounded": image,
            "image_tolerant": round(100 * mean(tolerant), 2),
            "by_type": {names.get(kind, str(kind)): round(100 * mean(by_type[kind]), 2) for kind in kinds},
        }

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the accuracy of image questions in percent."""
        return aggregate["image_unrounded"]


TASKS = (SeedEve(), SeedLmms())
