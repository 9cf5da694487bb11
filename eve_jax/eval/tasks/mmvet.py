"""MM-Vet: free answers, graded 0 to 1 by a judge. The official table of examples for it is not part of this project.

Put the official few-shot text into a file and give it as `judge_prompt` (`Task.with_files`); without it, a table of
our own of the same form is sent, and reports state that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eve_jax.eval.judge import Judge, JudgeFailed, Question
from eve_jax.eval.parsers.clean import decoded_text, scored_text
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict, mean

DATA = DataSet("lmms-lab-encoder/MMVet", "test", names=("MMVet", "mm-vet"))
THINK = "First please perform reasoning, and think step by step to provide best answer to the following question: \n\n"
GRADING = """Grade a prediction against the ground truth with a correctness score. Where the ground truth holds \
<AND>, every one of its elements must be in the prediction for the full score; where it holds <OR>, any one is enough. \
The score is one of 0.0 (nothing is right), 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0 (all is right). Only fill \
in the last cell."""
EXAMPLES = """ | Ground truth | Prediction | Correctness
--- | --- | --- | ---
Which two dials point to zero? | left <AND> lower | upper | 0.0
Which two dials point to zero? | left <AND> lower | the left one | 0.5
Which two dials point to zero? | left <AND> lower | the left and the upper one | 0.5
Which two dials point to zero? | left <AND> lower | left and lower | 1.0
How many boats are there? | 3 <OR> three | three boats | 1.0
Why do people laugh at the sign? | It shows a diver above "No diving". | A diver is on it. | 0.4
Why do people laugh at the sign? | It shows a diver above "No diving". | It shows the very dive that it forbids. | 1.0
"""
DIGIT = "\nPredict the correctness of the answer (digit): "
HOTTER, HOTTEST, TRIES = 0.5, 2.0, 5
MOST_ASKED = 12  # lmms-eval asks for ever while a judge states numbers outside 0..1


@dataclass(frozen=True)
class Grade:
    """A judge's grade: `score`, whether it was `parsed`, the `first` reply and how many `calls` were made."""

    score: float
    parsed: bool
    first: str
    calls: int


def _number(reply: str) -> float | None:
    try:
        return float(reply.split(" ")[0].strip())
    except ValueError:
        return None


class _MmVet(Task):
    benchmark, data, needs_judge = "mmvet", DATA, True
    measure = "mean grade, %"
    header: str

    def __init__(self, judge_prompt: str = "") -> None:
        self.judge_prompt = judge_prompt
        self.official = bool(judge_prompt)

    def with_files(self, files: Mapping[str, Any]) -> Task:
        """Return the task with `judge_prompt`, the official few-shot text of this protocol."""
        return type(self)(files["judge_prompt"]) if files.get("judge_prompt") else self

    def _shots(self) -> str:
        return self.judge_prompt or f"{GRADING}{self.header}{EXAMPLES}"

    def _line(self, question: str, gold: str, answer: str, end: str) -> str:
        spaced = gold.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        return f"{self._shots()}\n{question} | {spaced} | {answer} |{end}"

    def _capabilities(self, row: Row) -> list[str]:
        raise NotImplementedError

    def _by_capability(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, list[float]]:
        scores: dict[str, list[float]] = {}
        for row, verdict in zip(rows, verdicts, strict=True):
            for name in self._capabilities(row):
                scores.setdefault(name, []).append(verdict.score)
        return scores

    def further(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the grades in percent by capability and by set of capabilities, and whether the prompt is official."""
        sets: dict[str, list[float]] = {}
        for row, verdict in zip(rows, verdicts, strict=True):
            sets.setdefault("_".join(sorted(self._capabilities(row))), []).append(verdict.score)
        single = self._by_capability(rows, verdicts)
        return {
            "by_capability": {name: 100 * mean(values) for name, values in single.items()},
            "by_capability_set": {name: 100 * mean(values) for name, values in sets.items()},
            "official_judge_prompt": self.official,
        }


class MmVetLmms(_MmVet):
    """MM-Vet as lmms-eval has it."""

    protocol = "lmms"
    generation = Generation(1024, temperature=0.2)
    header = "\ngpt_query_prompt"

    def adapt(self, row: Row) -> Row:
        """Return the columns of the data set."""
        if "meta" not in row:
            return row
        meta = row["meta"]
        kept = {"question": meta["question"], "answer": meta["answer"], "image_source": meta.get("imagesource")}
        return {"question_id": f"v1_{row['question_id']}", **kept, "capability": ",".join(meta["capability"])}

    def row_id(self, row: Row) -> str:
        """Return the id of the question."""
        return str(row["question_id"])

    def text(self, row: Row) -> str:
        """Return a request to reason, and the question."""
        return f"{THINK}{row['question']}"

    def _capabilities(self, row: Row) -> list[str]:
        return row["capability"].split(",")

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the answer, to be graded."""
        text = scored_text(output)
        return Verdict({"target": row["answer"], "scored_text": text}, 0.0, False, text, row["answer"])

    def judge(self, rows: Sequence[Row], verdicts: Sequence[Verdict], judge: Judge) -> list[Verdict]:
        """Return the verdicts with the judge's grades."""
        result = []
        for number, (row, verdict) in enumerate(zip(rows, verdicts, strict=True)):
            content = self._line(row["question"], row["answer"], verdict.answer, "")
            try:
                grade = self._grade(content, judge, number)
            except JudgeFailed as failure:
                result.append(verdict.failed(str(failure)))
                continue
            inner = {
                "question_id": row["question_id"],
                "question": row["question"],
                "gt_answer": row["answer"],
                "capabilities": row["capability"],
                "pred_answer": verdict.answer,
                "score": grade.score,
                "eval_model": judge.model,
            }
            record = {"gpt_eval_score": inner}
            result.append(verdict.judged(grade.score, verdict.answer, grade.parsed, record))
        return result

    def _grade(self, content: str, judge: Judge, number: int) -> Grade:
        """Return the grade. A reply that is no number heats the judge up, and one more reply is thrown away."""
        replies: list[str] = []

        def ask(temperature: float) -> str:
            for _ in range(3):
                question = Question(content, temperature=temperature, max_tokens=128, facts={"row": number})
                replies.append(judge.ask(question).strip())
                if replies[-1]:
                    break
            return replies[-1]

        temperature = 0.0
        while len(replies) < MOST_ASKED:
            reply = ask(temperature)
            if not reply:
                break
            value = _number(reply)
            if value is None:
                temperature += HOTTER
                ask(temperature)
                if temperature >= HOTTEST:
                    break
            elif 0 <= value <= 1:
                return Grade(value, True, replies[0], len(replies))
        return Grade(0.0, False, replies[0], len(replies))

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the mean grade in percent."""
        return {"gpt_eval_score": 100 * mean([verdict.score for verdict in verdicts])}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the mean grade in percent."""
        return aggregate["gpt_eval_score"]


class MmVetEve(_MmVet):
    """MM-Vet as EVE's scripts and the official evaluator have it."""

    protocol = "eve"
    generation = Generation(1024)
    header = "\n\nQuestion"

    def adapt(self, row: Row) -> Row:
        """Return the line of the question file with the official record."""
        if "meta" in row:
            return row
        meta = {
            "question": row["question"],
            "answer": row["answer"],
            "imagesource": row.get("image_source"),
            "capability": row["capability"].split(","),
        }
        number = str(row["question_id"]).removeprefix("v1_")
        return {
            "image": f"v1_{number}.png",
            "text": row["question"],
            "category": "conv",
            "question_id": int(number) if number.isdigit() else number,
            "meta": meta,
        }

    def row_id(self, row: Row) -> str:
        """Return the id of the question."""
        return f"v1_{row['question_id']}"

    def text(self, row: Row) -> str:
        """Return the question."""
        return row["text"]

    def _capabilities(self, row: Row) -> list[str]:
        return row["meta"]["capability"]

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the answer, to be graded."""
        text = decoded_text(output)
        return Verdict({"text": text}, 0.0, False, text, row["meta"]["answer"])

    def judge(self, rows: Sequence[Row], verdicts: Sequence[Verdict], judge: Judge) -> list[Verdict]:
        """Return the verdicts with the judge's grades."""
        result = []
        for number, (row, verdict) in enumerate(zip(rows, verdicts, strict=True)):
            content = self._line(row["meta"]["question"], row["meta"]["answer"], verdict.answer, " ")
            try:
                grade = self._grade(content, judge, number)
            except JudgeFailed as failure:
                result.append(verdict.failed(str(failure)))
                continue
            record = {"judge_reply": grade.first, "graded": grade.score, "judge_calls": grade.calls}
            result.append(verdict.judged(grade.score, verdict.answer, grade.parsed, record))
        return result

    def _grade(self, content: str, judge: Judge, number: int) -> Grade:
        """Return the grade. After a reply that is no grade, a line asks for a digit, hotter each further time.

        The reply after the fifth failure is not read. `nan`, which the official evaluator accepts, is no grade here.
        """
        replies = [judge.ask(Question(content, max_tokens=3, facts={"row": number}))]
        for failure in range(TRIES + 1):
            value = _number(replies[-1])
            if failure < TRIES and value is not None and 0 <= value <= 1:
                return Grade(value, True, replies[0], len(replies))
            if failure < TRIES:
                again = Question(content + DIGIT, "", HOTTER * failure, 3, {"row": number})
                replies.append(judge.ask(again))
        return Grade(0.0, False, replies[0], len(replies))

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the grades in percent, rounded to one digit, by capability and of all, with the spread of one run."""
        total = round(100 * mean([verdict.score for verdict in verdicts]), 1)
        single = {name: round(100 * mean(s), 1) for name, s in self._by_capability(rows, verdicts).items()}
        return single | {"total": total, "std": 0.0, "runs": f"[np.float64({total})]"}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the mean grade in percent."""
        return aggregate["total"]


TASKS = (MmVetEve(), MmVetLmms())
