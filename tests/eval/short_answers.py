"""Evaluations with answers of few tokens, in this process or by `python -m tests.eval.short_answers --flags`."""

import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eve_jax.eval import answers, ask
from eve_jax.infer.batches import Ask, Reply, answer_all
from eve_jax.infer.engine import Engine

TOKENS = 3
KILLED_AT = "KILLED_AT"  # environment: the answer in whose midst the process is killed


def short(engine: Engine, asks: Sequence[Ask], stop_ids: Sequence[int], rows: int = 16) -> Iterator[Reply]:
    """Answer with at most TOKENS tokens."""
    return answer_all(engine, [one._replace(max_new_tokens=TOKENS) for one in asks], stop_ids, rows)


def canned(ids: Sequence[int]) -> Callable[..., Iterator[Reply]]:
    """Return what answers everything with the tokens `ids`, without the model."""
    return lambda engine, asks, *rest: (Reply(one.key, list(ids), 0.0) for one in asks)


def _kill_at(number: int) -> None:
    append = answers.append_line
    count = 0

    def killing(path: Path, line: Mapping[str, Any]) -> None:
        nonlocal count
        count += 1
        append(path, line)
        if count == number:
            os.truncate(path, path.stat().st_size - 20)
            os.kill(os.getpid(), signal.SIGKILL)

    answers.append_line = killing


if __name__ == "__main__":
    ask.answer_all = short
    if KILLED_AT in os.environ:
        _kill_at(int(os.environ[KILLED_AT]))
    sys.argv[0] = "eval.py"
    runpy.run_module("launch.eval", run_name="__main__", alter_sys=True)
