"""Q-Bench, dev: questions about how an image looks, options by letter."""

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from eve_jax.eval.parsers.clean import decoded_text, scored_text
from eve_jax.eval.parsers.letters import lettered, mmmu_letter
from eve_jax.eval.prompts import LETTER, choice_question, option_lines
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict, mean

NONE = ("N/A", None)
NOT_PARSED = "__NOT_PARSED__"
CONCERNS = ("Global Distortion", "Global Others", "Local Distortion", "Local Others")
KINDS = ("Yes/No", "How", "What")


class QBenchLmms(Task):
    """Q-Bench as lmms-eval has it."""

    benchmark, protocol = "qbench", "lmms"
    data = DataSet("q-future/Q-Bench-HF", "dev", names=("Q-Bench-HF", "Q-Bench", "qbench"))
    generation = Generation(32)

    def adapt(self, row: Row) -> Row:
        """Return the columns of the data set."""
        if "candidates" not in row:
            return row
        candidates = row["candidates"]
        options = {f"option{n}": candidates[n] if n < len(candidates) else "N/A" for n in range(4)}
        letter = ascii_uppercase[candidates.index(row["correct_ans"])]
        kept = {key: row[key] for key in ("question", "question_type", "question_concern")}
        return {"id": row["img_path"], **kept, **options, "correct_choice": letter}

    def row_id(self, row: Row) -> str:
        """Return the id of the question."""
        return str(row["id"])

    def _options(self, row: Row) -> list[str]:
        return [option for n in range(4) if (option := row.get(f"option{n}")) not in NONE]

    def text(self, row: Row) -> str:
        """Return the question, the options and the letter sentence, and a newline."""
        return f"{choice_question(row['question'], self._options(row), LETTER)}\n"

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict by MMMU's rules for letters."""
        text = scored_text(output)
        slots = [row.get(f"option{n}") for n in range(4)]
        end = next((n for n, option in enumerate(slots) if option in NONE), len(slots))
        answer, gold = mmmu_letter(text, lettered([str(option) for option in slots[:end]])), row["correct_choice"]
        kept = {key: row[key] for key in ("id", "question_concern", "question_type")}
        inner = {**kept, "answer": gold, "parsed_pred": answer or NOT_PARSED}
        record = {"target": gold, "scored_text": text, "qbench_acc": inner, "correct": answer == gold}
        category = CONCERNS[row["question_concern"]]
        return Verdict(record, float(answer == gold), answer is not None, answer, gold, category)

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the accuracy, rounded to five digits, and how many answers were not parsed."""
        accuracy = round(mean([verdict.score for verdict in verdicts]), 5)
        return {"qbench_acc": accuracy, "submission": [], "not_parsed": sum(not v.parsed for v in verdicts)}

    def further(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the accuracy by the kind of question."""
        pairs = [(KINDS[row["question_type"]], v.score) for row, v in zip(rows, verdicts, strict=True)]
        return {"by_kind": {k: mean([s for kind, s in pairs if kind == k]) for k in dict(pairs)}}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the accuracy in percent."""
        return 100 * aggregate["qbench_acc"]


class QBenchEve(Task):
    """Q-Bench as EVE's script and the official scorer have it."""

    benchmark, protocol = "qbench", "eve"
    data = QBenchLmms.data
    generation = Generation(1024)

    def adapt(self, row: Row) -> Row:
        """Return the record of the official file."""
        if "candidates" in row:
            return row
        candidates = [option for n in range(4) if (option := row.get(f"option{n}")) not in NONE]
        correct = row[f"option{ascii_uppercase.index(row['correct_choice'])}"]
        kept = {key: row[key] for key in ("question", "question_type", "question_concern")}
        return {"img_path": row["id"], **kept, "candidates": candidates, "correct_ans": correct}

    def row_id(self, row: Row) -> str:
        """Return the name of the image, which has one question."""
        return str(row["img_path"])

    def text(self, row: Row) -> str:
        """Return the question, a sentence, the options, and a newline."""
        return f"{row['question']}\nChoose between one of the options as follows:\n{option_lines(row['candidates'])}\n"

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: the first character as a letter, the first word, or all of it is the right option."""
        text = decoded_text(output)
        gold = row["correct_ans"]
        named = lettered(row["candidates"]).get(text[:1])
        correct = bool(text) and gold in (named, text.split(" ")[0], text)
        known = named is not None or text in row["candidates"] or text.split(" ")[0] in row["candidates"]
        category = CONCERNS[row["question_concern"]]
        record = {"text": text, "gold": gold, "correct": correct}
        return Verdict(record, float(correct), known, named or text, gold, category)

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the accuracy and the number of correct answers."""
        scores = [verdict.score for verdict in verdicts]
        return {"accuracy": mean(scores), "correct": sum(scores)}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the accuracy in percent."""
        return 100 * aggregate["accuracy"]


TASKS = (QBenchEve(), QBenchLmms())
