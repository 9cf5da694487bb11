"""ScienceQA: school science, options by letter. `lmms` asks the questions with images, `eve` reports these apart."""

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from eve_jax.eval.parsers.clean import decoded_text, scored_text
from eve_jax.eval.prompts import LETTER, choice_question, option_lines
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict, mean
from eve_jax.eval.units import Units, score_units

OPTIONS = "ABCDE"
SENTENCE = re.compile(r"The answer is ([A-Z]).")
FAILED = "FAILED"


def _context(hint: str | None) -> str:
    return f"Context: {hint}\n" if hint else ""


class _ScienceQa(Task):
    benchmark = "scienceqa"
    data = DataSet("lmms-lab-encoder/ScienceQA", "test", "ScienceQA-IMG", ("ScienceQA", "scienceqa"))


class ScienceQaLmms(_ScienceQa):
    """ScienceQA-IMG as lmms-eval has it."""

    protocol = "lmms"
    generation = Generation(16)

    def adapt(self, row: Row) -> Row:
        """Return the columns of the data set."""
        if "problem" not in row:
            return row
        problem = {key: value for key, value in row["problem"].items() if key != "image"}
        return problem | {"id": row["id"]} | ({} if "image" in row else {"image": None})

    def row_id(self, row: Row) -> str:
        """Return the id of the problem, which the columns of the data set lack."""
        return str(row.get("id", ""))

    def text(self, row: Row) -> str:
        """Return the hint as context, the question, the options and the letter sentence."""
        return _context(row["hint"]) + choice_question(row["question"], row["choices"])

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: the letter alone in any case, or in upper case before a full stop at the start."""
        text = scored_text(output)
        gold = ascii_uppercase[row["answer"]]
        answer = text[0] if text[1:2] == "." and text[0].isupper() else text
        score = float(answer.lower() == gold.lower())
        parsed = answer.upper() in list(ascii_uppercase[: len(row["choices"])])
        record = {"target": gold, "scored_text": text, "exact_match": score}
        return Verdict(record, score, parsed, answer, gold, row.get("subject", ""))

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the accuracy."""
        return {"exact_match": mean([verdict.score for verdict in verdicts])}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the accuracy in percent."""
        return 100 * aggregate["exact_match"]


class ScienceQaEve(_ScienceQa):
    """ScienceQA as EVE's scripts have it."""

    protocol = "eve"
    measure = "accuracy of questions with an image, %"
    generation = Generation(1024)

    def adapt(self, row: Row) -> Row:
        """Return the record of the question file with the official problem."""
        if "problem" in row:
            return row
        question = f"{_context(row['hint'])}{row['question']}\n{option_lines(row['choices'])}"
        image = {} if row.get("image", "") is None else {"image": "image.png"}
        turns = [
            {"from": "human", "value": f"<image>\n{question}" if image else question},
            {"from": "gpt", "value": ascii_uppercase[row["answer"]]},
        ]
        return {"id": str(row.get("id", "")), "conversations": turns, **image, "problem": row}

    def row_id(self, row: Row) -> str:
        """Return the id of the problem."""
        return str(row["id"])

    def images(self, row: Row) -> list[str]:
        """Return the image; none where the record has none."""
        return ["image"] if "image" in row else []

    def text(self, row: Row) -> str:
        """Return the question of the record and the letter sentence."""
        return f"{row['conversations'][0]['value'].replace('<image>', '').strip()}\n{LETTER}"

    def prompt(self, row: Row) -> str:
        """Return the user turn, with an image only where the record has one."""
        return ("<image>\n" if self.images(row) else "") + self.text(row)

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: a letter alone, a letter with `. ` at the start, or the one `The answer is X`."""
        text = decoded_text(output)
        found = SENTENCE.findall(text)
        if text and text in list(OPTIONS):
            answer = text
        elif len(text) >= 3 and text[0] in OPTIONS and text[1:3] == ". ":
            answer = text[0]
        else:
            answer = found[0] if len(found) == 1 else FAILED
        problem = row["problem"]
        index = OPTIONS[: len(problem["choices"])].find(answer) if answer != FAILED else -1
        record = {
            "text": text,
            "parsed": answer,
            "index": index,
            "gold": OPTIONS[problem["answer"]],
            "correct": index == problem["answer"],
            "image": "<image>" in self.prompt(row),
            "prompt_in_answers_file": self.prompt(row),
        }
        parsed = index >= 0
        return Verdict(
            record,
            float(record["correct"]),
            parsed,
            answer if parsed else None,
            record["gold"],
            problem.get("subject", ""),
        )

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return accuracies in percent, rounded to two digits, of all questions and of those with an image."""
        scores = [verdict.score for verdict in verdicts]
        with_image = [verdict.score for verdict in verdicts if verdict.record["image"]]
        return {
            "total": len(scores),
            "correct": int(sum(scores)),
            "accuracy": round(100 * mean(scores), 2),
            "img_accuracy": round(100 * mean(with_image), 2),
        }

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the accuracy of questions with an image, which papers report."""
        return aggregate["img_accuracy"]

    def units(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Units:
        """Return the questions with an image."""
        shown = [verdict for verdict in verdicts if verdict.record["image"]]
        return score_units([v.score for v in shown], [v.category for v in shown], "questions with an image")


TASKS = (ScienceQaEve(), ScienceQaLmms())
