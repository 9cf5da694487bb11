"""Decoding by a checkpoint's weights as they are, and quantized: what `benchmarks.decode --checkpoint` measures."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Times, interleaved, ratios, spread
from eve_jax.data.text.load import load_tokenizer
from eve_jax.infer.engine import Engine
from eve_jax.infer.parameters import loaded
from eve_jax.infer.prompt import Prompt
from eve_jax.weights.open import open_checkpoint

WHOLE = "float32"  # the computation's type, and the weights' that are not quantized
PROMPTS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "The opposite of hot is",
    "A triangle has three sides, and a square has",
    "The days of the week are Monday, Tuesday,",
    "The largest planet of the solar system is",
    "To make a cup of tea, first",
    "In the year 1969 the first human",
    "Bees are important because they",
    "def add(a, b):\n    return",
    "Two plus three equals",
    "The author of Romeo and Juliet is",
)


def engines(folder: str, weights: Sequence[str]) -> dict[str, Engine]:
    """The checkpoint's engine by its weights, whole ones first."""
    found = {}
    for kind in ("", *weights):
        found[kind or WHOLE] = Engine(*loaded(open_checkpoint(folder), dtype=WHOLE, weights=kind))
    return found


def answers(folder: str, by_weights: dict[str, Engine], new: int) -> dict[str, Any]:
    """Greedy continuations of PROMPTS: how many are those of the whole weights, and the others."""
    tokenizer = load_tokenizer(folder)
    prompts = [Prompt(np.array(tokenizer.encode(text), np.int32)) for text in PROMPTS]
    made = {kind: engine.generate(prompts, new, []) for kind, engine in by_weights.items()}
    found: dict[str, Any] = {"prompts": len(PROMPTS), "tokens": new}
    for kind in list(made)[1:]:
        pairs = list(zip(PROMPTS, made[WHOLE], made[kind], strict=True))
        found[kind] = {
            "same": sum(whole == ids for _, whole, ids in pairs),
            "different": [
                {
                    "prompt": text,
                    "same_tokens": next(n for n, (a, b) in enumerate(zip(whole, ids, strict=True)) if a != b),
                    WHOLE: tokenizer.decode(whole),
                    kind: tokenizer.decode(ids),
                }
                for text, whole, ids in pairs
                if whole != ids
            ],
        }
    return found


def show(rows: int, times: dict[str, Times], new: int) -> None:
    """A table of what `rows` rows take at a time."""
    head = ("tokens/s", "tokens a CPU second", "times the whole weights'", "in CPU time")
    table = Table(f"decoding {rows} rows", *head)
    for kind, t in times.items():
        rates = (f"{rows * new / statistics.median(seconds):,.1f}" for seconds in t)
        over = (spread(ratios(*pair)) for pair in zip(times[WHOLE], t, strict=True))
        table.add_row(kind, *rates, *over)
    Console(width=132).print(table)


def measure(
    folder: str,
    weights: Sequence[str],
    batches: Sequence[int],
    new: int,
    rounds: int,
    decoding: Callable[[Engine, Prompt, int], Callable[[], Any]],
) -> dict[str, Any]:
    """Rates of decoding `new` tokens by number of rows and kind of weights, all kinds in turn, and the answers."""
    by_weights = engines(folder, weights)
    prompt = Prompt(np.array(load_tokenizer(folder).encode(" ".join(PROMPTS)), np.int32))
    figures: dict[str, Any] = {"answers": answers(folder, by_weights, new), "rows": {}}
    for rows in batches:
        calls = {kind: decoding(engine, prompt, rows) for kind, engine in by_weights.items()}
        times = interleaved(calls, rounds, f"decoding {rows} rows")
        show(rows, times, new)
        figures["rows"][str(rows)] = {
            kind: {
                "tokens_per_s": rows * new / statistics.median(t.wall),
                "tokens_per_cpu_s": rows * new / statistics.median(t.processor),
                "speedup": statistics.median(ratios(times[WHOLE].wall, t.wall)),
                "speedup_cpu": statistics.median(ratios(times[WHOLE].processor, t.processor)),
            }
            for kind, t in times.items()
        }
    return figures
