"""POPE: whether an object is in the image; adversarial, popular and random questions, apart or together."""

from collections.abc import Mapping, Sequence
from typing import Any

from eve_jax.eval.parsers.clean import decoded_text, scored_text
from eve_jax.eval.parsers.words import no_among
from eve_jax.eval.prompts import SHORT
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict, mean
from eve_jax.eval.units import Units, yes_no_units

PARTS = {"pope": None, "pope_adv": "adversarial", "pope_pop": "popular", "pope_random": "random"}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _harmonic(precision: float, recall: float) -> float:
    return _ratio(2 * precision * recall, precision + recall)


class _Pope(Task):
    generation = Generation(128)
    measure = "F1, %"

    def __init__(self, benchmark: str) -> None:
        self.benchmark = benchmark  # type: ignore[misc]  # the three parts differ in this alone
        part = PARTS[benchmark]
        self.part = part
        self.data = (
            DataSet("lmms-lab-encoder/POPE", part, "Full", ("POPE",))
            if part
            else DataSet("lmms-lab-encoder/POPE", "test", "default", ("POPE",))
        )

    def row_id(self, row: Row) -> str:
        """Return CATEGORY:QUESTION_ID, for ids count within a category."""
        return f"{row['category']}:{row['question_id']}"


class PopeLmms(_Pope):
    """POPE as lmms-eval has it: the whole answer is yes or no."""

    protocol = "lmms"

    def adapt(self, row: Row) -> Row:
        """Return the columns of the data set."""
        if "text" not in row:
            return row
        source = row["image"].rpartition(".")[0]
        question = row["text"].removesuffix(f"\n{SHORT}")
        kept = {key: row[key] for key in ("question_id", "category")}
        return {"id": self.row_id(row), "question": question, "answer": row["label"], "image_source": source} | kept

    def text(self, row: Row) -> str:
        """Return the question with the short-answer sentence."""
        return f"{row['question'].strip()}\n{SHORT}"

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: the answer in lower case equals the gold."""
        text = scored_text(output)
        answer, gold = text.lower().strip(), row["answer"].lower().strip()
        score = float(answer == gold)
        inner = {"question_id": row["question_id"], "score": score, "prediction": answer, "ground_truth": gold}
        record = {"target": row["answer"], "scored_text": text, "pope_accuracy": inner}
        return Verdict(record, score, answer in ("yes", "no"), answer, gold, row["category"])

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return accuracy, precision, recall and F1 over all rows; `pope_yes_ratio` is of the labels."""
        pairs = [(verdict.answer, verdict.gold) for verdict in verdicts]
        hits = pairs.count(("yes", "yes"))
        precision = _ratio(hits, hits + pairs.count(("yes", "no")))
        recall = _ratio(hits, hits + pairs.count(("no", "yes")))
        return {
            "pope_accuracy": mean([verdict.score for verdict in verdicts]),
            "pope_precision": precision,
            "pope_recall": recall,
            "pope_f1_score": _harmonic(precision, recall),
            "pope_yes_ratio": mean([gold == "yes" for _, gold in pairs]),
        }

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return F1 in percent."""
        return 100 * aggregate["pope_f1_score"]

    def units(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Units:
        """Return the questions; the headline is F1 of all."""
        return yes_no_units([(v.answer, v.gold) for v in verdicts], [v.category for v in verdicts])


class PopeEve(_Pope):
    """POPE as EVE's script has it: every answer without a no is a yes."""

    protocol = "eve"
    measure = "mean F1 of the parts, %"

    def adapt(self, row: Row) -> Row:
        """Return the line of the question file with the label."""
        if "text" in row:
            return row
        return {
            "question_id": row["question_id"],
            "image": f"{row['image_source']}.jpg",
            "text": f"{row['question'].strip()}\n{SHORT}",
            "category": row["category"],
            "label": row["answer"],
        }

    def text(self, row: Row) -> str:
        """Return the text of the question file."""
        return row["text"]

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict: no if No, no or not is a word before the first full stop, else yes.

        Every answer is one of the two for the script, an empty one is a yes.
        """
        text = decoded_text(output)
        answer = "no" if no_among(text) else "yes"
        gold = "no" if row["label"] == "no" else "yes"
        record = {"text": text, "parsed": answer, "gold": gold}
        return Verdict(record, float(answer == gold), True, answer, gold, row["category"])

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the counts and ratios of each part and the means over the parts, which papers report."""
        parts: dict[str, list[tuple[str, str]]] = {}
        for verdict in verdicts:
            parts.setdefault(verdict.category, []).append((verdict.answer, verdict.gold))
        result: dict[str, Any] = {name: _counts(pairs) for name, pairs in parts.items()}
        return result | {
            "mean_f1": mean([result[name]["f1"] for name in parts]),
            "mean_accuracy": mean([result[name]["accuracy"] for name in parts]),
        }

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the mean F1 in percent."""
        return 100 * aggregate["mean_f1"]

    def units(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Units:
        """Return the questions; the headline is the mean of the parts' F1."""
        return yes_no_units([(v.answer, v.gold) for v in verdicts], [v.category for v in verdicts], "mean")


def _counts(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    hits, alarms = pairs.count(("yes", "yes")), pairs.count(("yes", "no"))
    rejected, missed = pairs.count(("no", "no")), pairs.count(("no", "yes"))
    precision, recall = _ratio(hits, hits + alarms), _ratio(hits, hits + missed)
    return {
        "samples": len(pairs),
        "TP": hits,
        "FP": alarms,
        "TN": rejected,
        "FN": missed,
        "accuracy": _ratio(hits + rejected, len(pairs)),
        "precision": precision,
        "recall": recall,
        "f1": _harmonic(precision, recall),
        "yes_ratio": _ratio(hits + alarms, len(pairs)),
    }


TASKS = tuple(kind(name) for name in PARTS for kind in (PopeEve, PopeLmms))
