"""What VQAv2, VizWiz and TextVQA share: ten annotators' answers, soft accuracy, files for servers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eve_jax.eval.parsers.clean import decoded_text, scored_text
from eve_jax.eval.parsers.vqa import normalize, soft_accuracy
from eve_jax.eval.task import Row, Task, Verdict, mean
from eve_jax.eval.units import Units, score_units


class SoftVqa(Task):
    """A task with annotators' answers. `golds`, `entry` and `kind` are what the benchmarks differ in."""

    measure = "soft accuracy, %"

    def golds(self, row: Row) -> list[str] | None:
        """Return the annotators' answers; None where they are not public."""
        return row.get("answers")

    def kind(self, row: Row) -> str:
        """Return the kind of answer that a question asks for, or ""."""
        return row.get("answer_type") or ""

    def entry(self, row: Row, answer: str) -> dict[str, Any]:
        """Return the entry of the server's file."""
        return {"question_id": row["question_id"], "answer": answer}

    def submission(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> list[dict[str, Any]] | None:
        """Return the normalized answers."""
        return [self.entry(row, verdict.answer) for row, verdict in zip(rows, verdicts, strict=True)]


class LmmsVqa(SoftVqa):
    """As lmms-eval scores; `rule` is the normalization of answers and golds."""

    protocol = "lmms"
    rule: Callable[[str], str] = staticmethod(normalize)
    shows_entry = True

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict by soft accuracy."""
        text = scored_text(output)
        answer, golds = self.rule(text), self.golds(row) or []
        score = soft_accuracy(answer, [self.rule(gold) for gold in golds])
        record = {"target": "answer", "scored_text": text, "exact_match": score}
        if self.shows_entry:
            record["submission"] = self.entry(row, answer)
        return Verdict(record, score, bool(text) or score > 0, answer, golds, self.kind(row))

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the mean soft accuracy; the submission has no number."""
        return {"exact_match": mean([verdict.score for verdict in verdicts])}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the soft accuracy in percent."""
        return 100 * aggregate["exact_match"]


class EveVqa(SoftVqa):
    """As EVE's scripts write the server's file, with the soft accuracy where answers are public."""

    protocol = "eve"

    def text(self, row: Row) -> str:
        """Return the text of the question file."""
        return row["text"]

    def row_id(self, row: Row) -> str:
        """Return the id of the question."""
        return str(row["question_id"])

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: the answer to submit and its soft accuracy."""
        text = decoded_text(output)
        answer, golds = normalize(text), self.golds(row)
        score = soft_accuracy(answer, [normalize(gold) for gold in golds or []])
        record: dict[str, Any] = {"text": text, "submitted": answer}
        if golds is not None:
            record["soft_accuracy_of_val"] = score
        return Verdict(record, score, bool(text) or score > 0, answer, golds, self.kind(row))

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the number of entries to submit, and the soft accuracy where answers are public."""
        scored = [verdict.score for row, verdict in zip(rows, verdicts, strict=True) if self.golds(row) is not None]
        entries = {"submission_entries": len(self.submission(rows, verdicts) or [])}
        return entries | ({"soft_accuracy_of_val": mean(scored)} if scored else {})

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the soft accuracy in percent; None where answers are not public."""
        soft = aggregate.get("soft_accuracy_of_val")
        return None if soft is None else 100 * soft

    def units(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Units:
        """Return the questions whose answers are public."""
        scored = [verdict for row, verdict in zip(rows, verdicts, strict=True) if self.golds(row) is not None]
        return score_units([v.score for v in scored], [v.category for v in scored])
