"""MMMU, validation: college questions in 30 subjects with up to seven images, options by letter or open.

`eve` has no code for it: our variant asks by its house rule and takes a printed list of golds as a list, as the
official scorer does; `lmms` takes it as one text, so that no answer is right for it.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from eve_jax.errors import UserError, shorten
from eve_jax.eval.parsers.clean import scored_text
from eve_jax.eval.parsers.letters import lettered, mmmu_letter
from eve_jax.eval.parsers.open_answer import open_match, parse_open
from eve_jax.eval.prompts import LETTER, SHORT, option_lines
from eve_jax.eval.task import DataSet, Generation, ImageSlot, Row, Task, Verdict, mean

NOT_PARSED = "__NOT_PARSED__"
DOMAINS = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        *("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine"),
        *("Pharmacy", "Public_Health"),
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        *("Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics"),
        *("Energy_and_Power", "Materials", "Mechanical_Engineering"),
    ),
}
IMAGE = re.compile(r"<image (\d+)>")


def _list_of(text: str | list[str], where: str) -> list[str]:
    try:
        value = text if isinstance(text, list) else ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise UserError(
            f"MMMU {where}: options is no list ({shorten(str(text), 80)!r}); expected a text such as \"['a']\""
        )
    return [str(item) for item in value]


class Mmmu(Task):
    """MMMU under either protocol."""

    benchmark = "mmmu"
    data = DataSet("lmms-lab-encoder/MMMU", "validation", names=("MMMU", "MMMU_DEV_VAL"))
    generation = Generation(128)

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol

    def row_id(self, row: Row) -> str:
        """Return the id of the question."""
        return str(row["id"])

    def _options(self, row: Row) -> list[str]:
        return _list_of(row["options"], row["id"]) if row["question_type"] == "multiple-choice" else []

    def text(self, row: Row) -> str:
        """Return the question, its options and the instruction; `<image k>` stays."""
        gap = "\n" if self.protocol == "eve" else "\n\n"
        if row["question_type"] != "multiple-choice":
            return f"{row['question']}{gap}{SHORT}"
        return f"{row['question']}\n{option_lines(self._options(row))}{gap}{LETTER}"

    def prompt(self, row: Row) -> str:
        """Return the text; `eve` has `<image>` in place of `<image k>`."""
        if self.protocol != "eve":
            return self.text(row)
        return "".join("<image>\n" if isinstance(part, ImageSlot) else part for part in self.content(row))

    def images(self, row: Row) -> list[str]:
        """Return the columns of the images that the question and the options name, sorted."""
        return sorted({f"image_{number}" for number in IMAGE.findall(self.text(row))})

    def content(self, row: Row) -> list[str | ImageSlot]:
        """Return texts and images in turn: each `<image k>` is a place for the next image of `images`.

        As in lmms-eval, the places are filled in order, whatever their numbers are. The last text always comes.
        """
        pieces = re.split(r"<image [1-7]>", self.text(row))
        parts: list[str | ImageSlot] = []
        for number in range(len(self.images(row))):
            text = pieces[number].strip() if number < len(pieces) - 1 else ""
            parts += [text, ImageSlot(number)] if text else [ImageSlot(number)]
        return [*parts, pieces[-1].strip()]

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: the letter by MMMU's rules, or an open answer that agrees with the gold."""
        text = scored_text(output)
        gold = row["answer"]
        answer: Any
        if row["question_type"] == "multiple-choice":
            letter = mmmu_letter(text, lettered(self._options(row)))
            answer, correct, parsed = letter or NOT_PARSED, letter == gold, letter is not None
        else:
            answer = sorted(parse_open(text), key=str)
            correct, parsed = open_match(answer, self._golds(row)), bool(text)
        subject = re.fullmatch(r"[^_]*_(.+?)_\d+", row["id"])
        if subject is None:
            raise UserError(f"MMMU {row['id']!r}: the id names no subject; expected validation_SUBJECT_NUMBER")
        inner = {
            "id": row["id"],
            "subdomain": subject[1],
            "question_type": row["question_type"],
            "answer": gold,
            "parsed_pred": [answer],
        }
        record = {"target": gold, "scored_text": text, "mmmu_acc": inner, "correct": correct}
        return Verdict(record, float(correct), parsed, answer, gold, subject[1])

    def _golds(self, row: Row) -> list[str]:
        gold = row["answer"]
        if self.protocol == "eve" and gold.strip().startswith("["):
            try:
                return _list_of(gold, row["id"])
            except UserError:  # an interval, a matrix: a text of its own
                return [gold]
        return [gold]

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the accuracy over all rows, rounded to five digits, and how many answers were not parsed."""
        return {
            "mmmu_acc": round(mean([verdict.score for verdict in verdicts]), 5),
            "mmmu_acc_pass_at_k": [],
            "submission": [],
            "not_parsed": sum(verdict.answer == NOT_PARSED for verdict in verdicts),
        }

    def further(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the accuracy of each domain."""
        scores = {name: [v.score for v in verdicts if v.category in subjects] for name, subjects in DOMAINS.items()}
        return {"by_domain": {name: mean(values) for name, values in scores.items() if values}}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the accuracy in percent."""
        return 100 * aggregate["mmmu_acc"]


TASKS = (Mmmu("eve"), Mmmu("lmms"))
