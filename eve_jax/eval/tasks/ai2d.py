"""AI2D: diagrams, options by letter. `eve` has no code for it: our variant, by its house rule, scores alike."""

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from eve_jax.eval.parsers.clean import scored_text
from eve_jax.eval.parsers.words import plain
from eve_jax.eval.prompts import choice_question
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict, mean

LEADING = re.compile(r"\s*([A-Z])\.")


class Ai2d(Task):
    """AI2D; the protocols differ in the number of tokens."""

    benchmark = "ai2d"
    data = DataSet("lmms-lab-encoder/ai2d", "test", names=("AI2D", "ai2d-no-mask", "ai2d_no_mask"))

    def __init__(self, protocol: str, tokens: int) -> None:
        self.protocol, self.generation = protocol, Generation(tokens)

    def row_id(self, row: Row) -> str:
        """Return "": rows have no id."""
        return ""

    def text(self, row: Row) -> str:
        """Return the question, the options and the letter sentence."""
        return choice_question(row["question"], row["options"])

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: a leading `X.`, or the whole answer without case and punctuation, is the letter.

        As in the reference, `X.` is looked for before reasoning is removed, so not after a reasoning block.
        """
        leading = LEADING.match(output or "")
        answer = leading[1] if leading else scored_text(output)
        gold = ascii_uppercase[int(row["answer"])]
        score = float(plain(answer) == plain(gold))
        letters = ascii_uppercase[: len(row["options"])].lower()
        parsed = len(plain(answer)) == 1 and plain(answer) in letters
        return Verdict({"target": gold, "scored_text": answer, "exact_match": score}, score, parsed, answer, gold)

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the accuracy."""
        return {"exact_match": mean([verdict.score for verdict in verdicts])}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the accuracy in percent."""
        return 100 * aggregate["exact_match"]


TASKS = (Ai2d("eve", 128), Ai2d("lmms", 16))
