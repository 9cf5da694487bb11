"""ChartQA: numbers within 5%, texts the same. `eve` has no code for it: our variant, by its house rule."""

from collections.abc import Mapping, Sequence
from typing import Any

from eve_jax.eval.parsers.clean import scored_text
from eve_jax.eval.parsers.words import relaxed_match
from eve_jax.eval.prompts import SHORT
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict, mean


class ChartQa(Task):
    """ChartQA; the protocols differ in the instruction and the number of tokens."""

    benchmark = "chartqa"
    data = DataSet("lmms-lab-encoder/ChartQA", "test", names=("ChartQA",))

    def __init__(self, protocol: str, instruction: str, tokens: int) -> None:
        self.protocol, self.instruction, self.generation = protocol, instruction, Generation(tokens)

    def row_id(self, row: Row) -> str:
        """Return "": rows have no id."""
        return ""

    def text(self, row: Row) -> str:
        """Return the question with the instruction."""
        return f"{row['question']}\n{self.instruction}"

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict by relaxed accuracy."""
        text = scored_text(output)
        score = float(relaxed_match(text, row["answer"]))
        split = "human" if row["type"] == "human_test" else "augmented"
        record = {
            "target": row["answer"],
            "scored_text": text,
            "relaxed_overall": score,
            f"relaxed_{split}_split": score,
        }
        return Verdict(record, score, bool(text), text, row["answer"], split)

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the accuracy of all and of the two splits."""
        splits = {
            f"relaxed_{split}_split": [verdict.score for verdict in verdicts if verdict.category == split]
            for split in ("human", "augmented")
        }
        overall = {"relaxed_overall": mean([verdict.score for verdict in verdicts])}
        return overall | {name: mean(scores) for name, scores in splits.items() if scores}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the accuracy in percent."""
        return 100 * aggregate["relaxed_overall"]


TASKS = (ChartQa("eve", SHORT, 128), ChartQa("lmms", "Answer the question with a single word.", 16))
