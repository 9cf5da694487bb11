"""What a second set of weights costs in answering (EVEv2 paper, Table 6): python -m benchmarks.tab6 [--rounds=15]

Time to the first token after 2,500 image and 200 text tokens, and tokens a second of the 100 that follow, of EVEv1.0
(dense), v1.2 (rep), v1.5 (moe) and v2.0 (dac), greedy, one row, float32, all cores, the model of train_step.py. All in
turn in every round; ratios are to dense within a round, with their middle half. The deltas of rep are added into the
weights when a model is loaded, so that it runs the program of dense: its ratio shows how far the rounds are from each
other. The paper measured at 7B on one A100 with PyTorch, and states no spread.

Prints tables; with --json the last line is JSON. Takes five minutes on two free cores of an AMD EPYC.
"""

import json
import os
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from benchmarks import workload
from benchmarks.timing import Times, begin, interleaved, ratios, spread
from eve_jax.checkpoint.vision_copies import fold
from eve_jax.infer.engine import Engine, Reply
from eve_jax.infer.prompt import Prompt
from launch._flags import run

ROUNDS = flags.DEFINE_integer("rounds", 15, "rounds that are timed", lower_bound=2)
LAYERS = flags.DEFINE_integer("layers", workload.SIZES.num_layers, "fewer for a quick try", lower_bound=1)
JSON = flags.DEFINE_bool("json", False, "print the figures as a line of JSON last", allow_override=True)
ANSWER = flags.DEFINE_integer("answer", 100, "tokens of the answer", lower_bound=2)
# What the paper reports: seconds to the first token, tokens a second.
PAPER = {"dense": (3.77, 35.0), "rep": (3.77, 35.0), "moe": (4.01, 35.0), "dac": (4.25, 35.0)}
NAMES = {"dense": "EVEv1.0", "rep": "EVEv1.2", "moe": "EVEv1.5", "dac": "EVEv2.0"}


def engine(variant: str) -> Engine:
    """An engine of random weights, loaded as `EVE` loads a checkpoint."""
    cfg = replace(workload.config(variant), num_layers=LAYERS.value)
    return Engine(*fold(cfg, workload.params(cfg)))


class Answering:
    """Greedy decoding after the prompt; a call makes the same tokens again."""

    def __init__(self, engine: Engine, prompt: Prompt, tokens: int):
        self.reply = Reply(engine, engine.session(1), tokens + 1, [])
        self.first = self.reply.start([prompt])
        self.steps = np.full(1, tokens, np.int32)

    def __call__(self) -> np.ndarray:
        return np.asarray(self.reply.decode(self.first, self.steps)[0])


def figures(times: dict[str, Times], of_paper: int, rate: bool) -> dict[str, dict[str, float]]:
    """Ratios to dense of each variant, of times or of rates: median, ends of the middle half; and the paper's."""
    found = {}
    for name, t in times.items():
        pair = (times["dense"].wall, t.wall) if rate else (t.wall, times["dense"].wall)
        over = ratios(*pair)
        paper = PAPER[name][of_paper] / PAPER["dense"][of_paper]
        low, _, high = statistics.quantiles(over, n=4, method="inclusive")
        found[name] = {"over_dense": statistics.median(over), "low": low, "high": high, "paper": paper}
    return found


def show(title: str, times: dict[str, Times], tokens: int, found: dict[str, dict[str, float]], rate: bool) -> None:
    """A table of one measurement."""
    what = "tokens/s" if rate else "seconds"
    table = Table("variant", what, f"{what} over dense (middle half)", "the paper", title=title)
    for name, t in times.items():
        pair = (times["dense"].wall, t.wall) if rate else (t.wall, times["dense"].wall)
        values = [tokens / seconds for seconds in t.wall] if rate else t.wall
        own = spread(values, ".1f" if rate else ".3f")
        table.add_row(f"{NAMES[name]} ({name})", own, spread(ratios(*pair), ".3f"), f"{found[name]['paper']:.3f}")
    Console(width=112).print(table)


def main() -> None:
    begin(torch=False)
    prompt, tokens, rounds = workload.make_prompt(), ANSWER.value, ROUNDS.value
    with Console(stderr=True).status("compiling ..."):
        engines = {variant: engine(variant) for variant in PAPER}
    first: dict[str, Callable[[], Any]] = {name: partial(e.generate, [prompt], 1, []) for name, e in engines.items()}
    ttft = interleaved(first, rounds, "first token")
    after: dict[str, Callable[[], Any]] = {name: Answering(e, prompt, tokens) for name, e in engines.items()}
    decoding = interleaved(after, rounds, "decoding")
    found = {"ttft": figures(ttft, 0, rate=False), "rate": figures(decoding, 1, rate=True)}
    show("time to the first token", ttft, 1, found["ttft"], rate=False)
    show(f"decoding {tokens} tokens", decoding, tokens, found["rate"], rate=True)
    if JSON.value:
        print(json.dumps({**found, "rounds": rounds, "load": os.getloadavg()[0]}))


if __name__ == "__main__":
    run(main)
