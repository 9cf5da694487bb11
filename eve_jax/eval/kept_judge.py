"""A judge whose replies are kept, so that a run that was killed, or a second scoring, asks nothing twice.

A line of TASK.judge.jsonl is {"id", "number", "request", "judge", "reply"}: the question's id ("" where a request is
not about one row), which reply to the same request it is, a hash of the request, who replied.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eve_jax.data.samples.sample_rule import hash_of
from eve_jax.eval.answers import append_line, read_lines
from eve_jax.eval.judge import Judge, JudgeFailed, Question

MOST_FAILED = 3  # requests in a row after which a judge counts as gone: each takes a minute of retries


class KeptJudge:
    """Asks `judge` what the file `path` does not hold yet.

    Args:
        path: file of the replies; None keeps none.
        judge: the judge; None for the kept replies of `model` alone.
        model: the judge's name; "" for that of `judge`, or else of the newest reply in the file.
    """

    def __init__(self, path: Path | None, judge: Judge | None, model: str = "") -> None:
        lines = [] if path is None else read_lines(path, "the judge is asked again")
        self.path, self.judge = path, judge
        self.model = model or (judge.model if judge else lines[-1]["judge"] if lines else "")
        self._kept = {(one["request"], one["number"]): one["reply"] for one in lines if one["judge"] == self.model}
        self._asked: Counter[str] = Counter()
        self._ids: Sequence[str] = ()
        self._failed: list[str] = []  # reasons of the last requests in a row that failed

    def about(self, ids: Sequence[str]) -> "KeptJudge":
        """Return this judge for a judging of rows with `ids`, from the first reply to each request on."""
        self._ids = ids
        self._asked.clear()
        return self

    def ask(self, question: Question) -> str:
        """Return the kept reply, or the judge's. Raises JudgeFailed."""
        request = hash_of([{k: v for k, v in asdict(question).items() if k != "facts"}])
        key = (request, self._asked[request])
        if key not in self._kept:
            reply = self._kept[key] = self._new(question)
            if self.path is not None:
                append_line(self.path, self._line(question, key, reply))
        self._asked[request] += 1
        return self._kept[key]

    def _new(self, question: Question) -> str:
        if self.judge is None:
            raise JudgeFailed("no reply of a judge is kept for this answer; give --judge and --judge_model")
        if len(self._failed) >= MOST_FAILED:
            raise JudgeFailed(f"not asked: {MOST_FAILED} requests in a row failed, the last: {self._failed[-1]}")
        try:
            reply = self.judge.ask(question)
        except JudgeFailed as failure:
            self._failed.append(str(failure))
            raise
        self._failed.clear()
        return reply

    def _line(self, question: Question, key: tuple[str, int], reply: str) -> dict[str, Any]:
        row = question.facts.get("row")
        id = self._ids[row] if isinstance(row, int) and row < len(self._ids) else ""
        return {"id": id, "number": key[1], "request": key[0], "judge": self.model, "reply": reply}


def judge_file(folder: Path | None, task: str) -> Path | None:
    """Return the file of the replies about a task's answers in `folder`; None without a folder."""
    return None if folder is None else folder / f"{task}.judge.jsonl"
