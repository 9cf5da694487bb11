"""Questions on which two protocols of a benchmark disagree, of those that both ask with the same prompt."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from eve_jax.errors import clip
from eve_jax.eval.outcome import Answered, Outcome
from eve_jax.eval.report.values import MOST_ANSWER, brief, finite
from eve_jax.eval.sources.base import Item
from eve_jax.eval.task import Verdict


def disagreements_of(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return the entries of `disagreements` in report.json, one per pair of protocols of a benchmark.

    Compared are questions with a verdict under both and the same prompt: the same texts and images in the same order.
    They disagree where the scores differ.
    """
    usable = [outcome for outcome in outcomes if not outcome.error and outcome.items]
    pairs = [(a, b) for a, b in combinations(usable, 2) if a.task.benchmark == b.task.benchmark]
    return [_compared(a, b) for a, b in pairs if a.task.protocol != b.task.protocol]


def _judged(outcome: Outcome) -> Iterator[tuple[Item, Answered, Verdict]]:
    for item, answer in zip(outcome.items, outcome.answered, strict=True):
        if answer.verdict is not None and not answer.verdict.error:
            yield item, answer, answer.verdict


def _compared(one: Outcome, other: Outcome) -> dict[str, Any]:
    known = {item.id: (item, answer, verdict) for item, answer, verdict in _judged(other)}
    compared = same_answer = other_prompt = 0
    rows = []
    for item, answer, verdict in _judged(one):
        if item.id not in known:
            continue
        its_item, its_answer, its_verdict = known[item.id]
        if one.task.content(item.row) != other.task.content(its_item.row):
            other_prompt += 1
            continue
        compared += 1
        same = answer.answer == its_answer.answer
        same_answer += same
        if verdict.score != its_verdict.score:
            sides = {
                one.task.protocol: _side(answer.answer, verdict),
                other.task.protocol: _side(its_answer.answer, its_verdict),
            }
            gold = brief(verdict.gold)
            rows.append({"id": item.id, "same_answer": same, "expected": gold, "protocols": sides})
    return {
        "benchmark": one.task.benchmark,
        "protocols": [one.task.protocol, other.task.protocol],
        "compared": compared,
        "other_prompt": other_prompt,
        "same_answer": same_answer,
        "rows": rows,
    }


def _side(answer: str | None, verdict: Verdict) -> dict[str, Any]:
    return {
        "answer": clip(answer or "", MOST_ANSWER),
        "read": brief(verdict.answer) if verdict.parsed else None,
        "score": finite(verdict.score),
        "parsed": verdict.parsed,
    }
