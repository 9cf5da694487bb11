"""LLaVA-Bench (in the wild): free answers, which a judge grades next to a reference answer.

The official rule for the judge is not part of this project: give the data's `rule.json` as `rule` (`Task.with_files`).
Without it, a rule of our own is sent, and reports state that.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eve_jax.eval.judge import Judge, JudgeFailed, Question
from eve_jax.eval.parsers.clean import decoded_text, scored_text
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict, mean
from eve_jax.eval.units import Units, percentage

DATA = DataSet("lmms-lab-encoder/llava-bench-in-the-wild", "train", names=("llava-bench-in-the-wild", "LLaVABench"))
CATEGORIES = ("conv", "detail", "complex")
SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
RULE = """Two assistants answered the question above about an image that you know from the context alone. Rate how \
helpful, relevant, accurate and detailed each answer is with a score from 1 to 10; higher is better. On the first line \
write only the two scores, of Assistant 1 and of Assistant 2, with a space between them. On the next lines explain \
your rating; the order of the answers must not influence it."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
NO_SCORES: list[float] = [-1, -1]


def _pair_by_spaces(reply: str) -> list[float]:
    parts = reply.split("\n")[0].replace(",", " ").split(" ")
    try:
        return [float(part) for part in parts] if len(parts) == 2 else NO_SCORES
    except ValueError:
        return NO_SCORES


def _pair_anywhere(reply: str) -> list[float]:
    found = NUMBER.findall(reply.strip().split("\n")[0].replace(",", " ").replace(";", " "))
    return [float(number) for number in found[:2]] if len(found) >= 2 else NO_SCORES


def _scores(verdict: Verdict) -> list[float]:
    """Return the judge's scores of the reference answer and of ours."""
    return verdict.record.get("scores") or verdict.record["tuple"]


def _ratio(pairs: Sequence[Sequence[float]]) -> tuple[float | None, float, float]:
    """Return 100 x ours / reference, rounded to one digit, and the two means, rounded to three."""
    reference, ours = (round(mean([pair[side] for pair in pairs]), 3) for side in (0, 1))
    return (round(ours / reference * 100, 1) if reference else None), reference, ours


class _LlavaBench(Task):
    benchmark, data, needs_judge = "llavabench", DATA, True
    measure = "of the reference answers' scores, %"
    system, temperature = "", 0.0

    def __init__(self, rule: Mapping[str, Any] | None = None) -> None:
        self.rule = dict(rule or {})

    def with_files(self, files: Mapping[str, Any]) -> Task:
        """Return the task with `rule`, the official rule.json."""
        return type(self)(files["rule"]) if files.get("rule") else self

    def _parts(self, row: Row) -> tuple[str, str, Any]:
        """Return the question, the reference answer and the caption."""
        raise NotImplementedError

    def _pair(self, reply: str) -> list[float]:
        raise NotImplementedError

    def _fields(self, reply: str, pair: list[float], category: str) -> dict[str, Any]:
        """Return what the record holds of a review."""
        raise NotImplementedError

    def _content(self, row: Row, answer: str) -> str:
        question, reference, caption = self._parts(row)
        rule = self.rule.get(f"llava_bench_{row['category']}", {"role": "Assistant", "prompt": RULE})
        role = rule["role"]
        sections = [("Context", "\n".join(caption) if isinstance(caption, list) else caption), ("Question", question)]
        for number, text in ((1, reference), (2, answer)):
            sections += [(f"{role} {number}", f"{text}\n\n[End of {role} {number}]")]
        sections.append(("System", rule["prompt"]))
        return "".join(f"[{title}]\n{text}\n\n" for title, text in sections)

    def judge(self, rows: Sequence[Row], verdicts: Sequence[Verdict], judge: Judge) -> list[Verdict]:
        """Return the verdicts with both scores by the judge; a reply without two scores gives -1 and -1."""
        result = []
        for number, (row, verdict) in enumerate(zip(rows, verdicts, strict=True)):
            content = self._content(row, verdict.answer)
            try:
                reply = judge.ask(Question(content, self.system, self.temperature, 1024, {"row": number}))
            except JudgeFailed as failure:
                result.append(verdict.failed(str(failure)))
                continue
            pair = self._pair(reply)
            fields = self._fields(reply, pair, f"llava_bench_{row['category']}")
            parsed = pair is not NO_SCORES
            result.append(verdict.judged(max(pair[1], 0) / 10, verdict.answer, parsed, fields))
        return result

    def units(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Units:
        """Return the questions; the headline is 100 x our scores / the reference's."""
        pairs = np.array([_scores(verdict)[::-1] for verdict in verdicts], float).reshape(-1, 2)
        return Units(pairs, [verdict.category for verdict in verdicts], percentage)

    def further(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return whether the rule is the official one, and the ratio without replies that have no scores."""
        pairs = [_scores(v) for v in verdicts if v.parsed]
        return {"official_judge_rule": bool(self.rule), "ratio_of_parsed": _ratio(pairs)[0] if pairs else None}


class LlavaBenchLmms(_LlavaBench):
    """LLaVA-Bench as lmms-eval has it: the first two numbers of the first line."""

    protocol = "lmms"
    generation = Generation(4096, stop=("ASSISTANT:",))

    def adapt(self, row: Row) -> Row:
        """Return the columns of the data set."""
        if "reference" not in row:
            return row
        return {
            "question_id": row["question_id"],
            "question": row["text"],
            "category": row["category"],
            "gpt_answer": row["reference"]["text"],
            "image_id": row["context"]["id"],
            "caption": row["context"]["caption"],
        }

    def row_id(self, row: Row) -> str:
        """Return the id of the question."""
        return str(row["question_id"])

    def text(self, row: Row) -> str:
        """Return the question."""
        return row["question"]

    def _parts(self, row: Row) -> tuple[str, str, Any]:
        return row["question"], row["gpt_answer"], row["caption"]

    def _pair(self, reply: str) -> list[float]:
        return _pair_anywhere(reply)

    def _fields(self, reply: str, pair: list[float], category: str) -> dict[str, Any]:
        return {"category": category, "scores": pair}

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the answer, to be graded."""
        text = scored_text(output)
        record = {"target": row["gpt_answer"], "scored_text": text}
        return Verdict(record, 0.0, False, text, row["gpt_answer"], row["category"])

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return 100 x ours / reference by category and of all; None for no rows."""
        pairs = [(verdict.category, verdict.record["scores"]) for verdict in verdicts]
        groups = {name: [pair for other, pair in pairs if other == name] for name in CATEGORIES}
        groups["all"] = [pair for _, pair in pairs]
        return {f"gpt_eval_llava_{name}": _ratio(some)[0] if some else None for name, some in groups.items()}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return 100 x ours / reference of all."""
        return aggregate["gpt_eval_llava_all"]


class LlavaBenchEve(_LlavaBench):
    """LLaVA-Bench as EVE's scripts have it: two numbers with one space between them."""

    protocol = "eve"
    generation = Generation(1024)
    system, temperature = SYSTEM, 0.2

    def adapt(self, row: Row) -> Row:
        """Return the line of the question file with its context and its reference answer."""
        if "reference" in row:
            return row
        image = f"{row['image_id']}.jpg"
        return {
            "question_id": row["question_id"],
            "image": image,
            "text": row["question"],
            "category": row["category"],
            "context": {"id": row["image_id"], "image": image, "caption": row["caption"]},
            "reference": {"question_id": row["question_id"], "text": row["gpt_answer"]},
        }

    def row_id(self, row: Row) -> str:
        """Return the id of the question."""
        return str(row["question_id"])

    def text(self, row: Row) -> str:
        """Return the question."""
        return row["text"]

    def _parts(self, row: Row) -> tuple[str, str, Any]:
        return row["text"], row["reference"]["text"], row["context"]["caption"]

    def _pair(self, reply: str) -> list[float]:
        return _pair_by_spaces(reply)

    def _fields(self, reply: str, pair: list[float], category: str) -> dict[str, Any]:
        return {"judge_reply": reply, "tuple": pair, "category": category}

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the answer, to be graded."""
        text = decoded_text(output)
        return Verdict({"text": text}, 0.0, False, text, row["reference"]["text"], row["category"])

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return ratio, mean of the reference and of ours (times ten, rounded to one digit), of all and by category."""
        pairs = [(verdict.record["category"], verdict.record["tuple"]) for verdict in verdicts]
        groups = {"all": [pair for _, pair in pairs]}
        groups |= {name: [pair for other, pair in pairs if other == name] for name in sorted(dict(pairs))}
        rated = {name: _ratio(some) for name, some in groups.items()}
        return {
            name: {"ratio": ratio, "reference": round(reference * 10, 1), "model": round(ours * 10, 1)}
            for name, (ratio, reference, ours) in rated.items()
        }

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return 100 x ours / reference of all."""
        return aggregate["all"]["ratio"]


TASKS = (LlavaBenchEve(), LlavaBenchLmms())
