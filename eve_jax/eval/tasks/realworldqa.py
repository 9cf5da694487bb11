"""RealWorldQA: letters, numbers and words; a question carries its own instruction.

`eve` has no code for it: our variant asks and scores alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from eve_jax.eval.parsers.clean import scored_text
from eve_jax.eval.parsers.letters import tolerant_letter
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict, mean

LETTERS = "ABCD"


class RealWorldQa(Task):
    """RealWorldQA; the protocols differ in the number of tokens."""

    benchmark = "realworldqa"
    data = DataSet("lmms-lab-encoder/RealWorldQA", "test", names=("RealWorldQA",))

    def __init__(self, protocol: str, tokens: int) -> None:
        self.protocol, self.generation = protocol, Generation(tokens)

    def row_id(self, row: Row) -> str:
        """Return the name of the image, which has one question."""
        return str(row["image_path"])

    def text(self, row: Row) -> str:
        """Return the question."""
        return row["question"].strip()

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: the letter that the answer most likely gives, or the same text."""
        text = scored_text(output)
        gold = row["answer"].strip()
        answer: str | None
        if len(gold) == 1 and gold.upper() in LETTERS:
            answer, expected = tolerant_letter(text, LETTERS), gold.upper()
        else:
            answer, expected = text.lower().strip().rstrip("."), gold.lower()
        score = float(answer == expected)
        record = {"target": row["answer"], "scored_text": text, "exact_match": score}
        return Verdict(record, score, bool(answer), answer, expected)

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the accuracy."""
        return {"exact_match": mean([verdict.score for verdict in verdicts])}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the accuracy in percent."""
        return 100 * aggregate["exact_match"]


TASKS = (RealWorldQa("eve", 128), RealWorldQa("lmms", 16))
