"""Answering next to what a user would take instead: python -m benchmarks.decode [--rounds=15] [--json]

A prompt of 2,500 image tokens (49 x 50 patches) and 200 text tokens, float32, all cores, the model of train_step.py.

first token   from the prompt's ids and patches to the first answer token, on the host; EVEv2.0 (two sets of weights),
              EVEv1.0 (one set; the same slots), and PyTorch (the modeling file that an export carries, masked mixing)
tokens/s      of greedy decoding after that prompt, 1 and 8 rows at a time: ours, the plain LLM with single weights in
              the same engine, and PyTorch with its cache (a loop of forward passes, as `generate` does, without its
              bookkeeping)

With --checkpoint=DIR [--weights=int8,int4] instead: decoding by a checkpoint's weights, whole and quantized, after a
prompt of text, and whether greedy answers stay the same (extra `quant`).

All in turn in every round. Prints medians and ratios with their middle half; with --json the last line is JSON. Takes
about ten minutes on two free cores. Needs the extra `torch`.
"""

import json
import os
import re
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from benchmarks import decode_weights, workload
from benchmarks.timing import Times, begin, interleaved, ratios, spread
from eve_jax.errors import UserError
from eve_jax.infer.engine import Engine, Reply
from eve_jax.infer.prompt import Prompt
from eve_jax.model.config import ModelConfig
from eve_jax.model.quantized import check_weights
from launch._flags import define_path, run

ROUNDS = flags.DEFINE_integer("rounds", 15, "rounds that are timed", lower_bound=1)
LAYERS = flags.DEFINE_integer("layers", workload.SIZES.num_layers, "fewer for a quick try", lower_bound=1)
NEW = flags.DEFINE_integer("new", 32, "tokens decoded at a time", lower_bound=2)
BATCHES = flags.DEFINE_list("batches", ["1", "8"], "rows that are decoded at a time")
flags.register_validator(
    "batches", lambda v: v and all(re.fullmatch("[1-9][0-9]*", n) for n in v), "numbers above 0, such as 1,8"
)
TORCH = flags.DEFINE_bool("torch", True, "PyTorch, too")
CHECKPOINT = define_path("checkpoint", "", "folder of a model, to compare its weights with quantized ones")
WEIGHTS = flags.DEFINE_list("weights", ["int8"], "with --checkpoint: what to quantize to, int8 or int4")
JSON = flags.DEFINE_bool("json", False, "print the figures as a line of JSON last", allow_override=True)


def config(variant: str) -> ModelConfig:
    """The model with the layers asked for."""
    return replace(workload.config(variant), num_layers=LAYERS.value)


def engine(variant: str) -> Engine:
    """An engine of random weights."""
    return Engine(config(variant), workload.params(config(variant)))


class Decoding:
    """Greedy decoding after `rows` equal prompts; a call makes the same NEW tokens a row again."""

    def __init__(self, engine: Engine, prompt: Prompt, rows: int):
        self.session = engine.session(rows)
        self.reply = Reply(engine, self.session, NEW.value + 1, [])
        self.first = self.reply.start([prompt] * rows)
        self.steps = np.full(rows, NEW.value, np.int32)

    def __call__(self) -> np.ndarray:
        return np.asarray(self.reply.decode(self.first, self.steps)[0])


class TorchWay:
    """The exported model: prefill and cached decoding."""

    def __init__(self, prompt: Prompt):
        import torch

        from benchmarks import torch_way

        torch_way.use_threads()
        self.torch = torch
        self.model = torch_way.build(config("dac"), workload.params(config("dac"))).eval()
        self.ids = torch.tensor(prompt.ids)[None].long()
        self.pixels = torch_way.pixels(prompt.patches[0], prompt.grids[0])

    def prefill(self, rows: int = 1) -> Any:
        """Logits of the last token and the cache."""
        with self.torch.no_grad():
            x, is_vision, mask, _ = self.model.embed(self.ids.expand(rows, -1), [self.pixels] * rows)  # as `generate`
            return self.model(
                inputs_embeds=x, is_vision=is_vision, attention_mask=mask, use_cache=True, logits_to_keep=1
            )

    def decoding(self, rows: int) -> Callable[[], Any]:
        """As `Decoding`."""
        out = self.prefill(rows)
        cache = out.past_key_values
        first = out.logits[:, -1:].argmax(-1)

        def decode() -> Any:
            token, made = first, []
            with self.torch.no_grad():
                for _ in range(NEW.value):
                    out = self.model(token, past_key_values=cache, use_cache=True)
                    token = out.logits[:, -1:].argmax(-1)
                    made.append(token)
            cache.crop(-NEW.value)
            return self.torch.cat(made, dim=1).numpy()

        return decode


def check(ours: Engine, theirs: TorchWay, prompt: Prompt) -> None:
    """Both must give the same logits after the prompt."""
    mine = np.asarray(ours.prefill(ours.session(), [prompt]))[0]
    other = theirs.prefill().logits[0, -1].numpy()
    if np.abs(mine - other).max() > 1e-3:
        raise SystemExit(f"PyTorch and we do not compute the same: logits differ by {np.abs(mine - other).max():.1e}")


def show(title: str, times: dict[str, Times], tokens: int) -> None:
    """A table of `times` of `tokens` tokens each, over the first."""
    first = next(iter(times))
    table = Table(title, "seconds", "processor seconds", "tokens/s", f"time over {first}")
    for name, t in times.items():
        rate = f"{tokens / statistics.median(t.wall):,.1f}"
        table.add_row(
            name, spread(t.wall, ".3f"), spread(t.processor, ".2f"), rate, spread(ratios(t.wall, times[first].wall))
        )
    Console(width=132).print(table)


def over(times: dict[str, Times], above: str, below: str) -> float:
    """Median over rounds of the ratio of two candidates' seconds."""
    return statistics.median(ratios(times[above].wall, times[below].wall))


def first_token(engines: dict[str, Engine], theirs: TorchWay | None, prompt: Prompt) -> dict[str, Any]:
    """Time to the first token."""
    calls: dict[str, Callable[[], Any]] = {name: partial(e.generate, [prompt], 1, []) for name, e in engines.items()}
    if theirs is not None:
        calls["pytorch"] = lambda: theirs.prefill().logits.argmax(-1).item()
    times = interleaved(calls, ROUNDS.value, "first token")
    show("first token", times, 1)
    seconds = {name: statistics.median(t.wall) for name, t in times.items()}
    figures = {"ttft_over_dense": over(times, "v2.0", "v1.0"), "first_token_s": seconds}
    return figures | ({"ttft_speedup_over_torch": over(times, "pytorch", "v2.0")} if theirs else {})


def decoding(engines: dict[str, Engine], theirs: TorchWay | None, prompt: Prompt, rows: int) -> dict[str, Any]:
    """Tokens a second after the prompt."""
    calls: dict[str, Callable[[], Any]] = {name: Decoding(e, prompt, rows) for name, e in engines.items()}
    if theirs is not None:
        calls["pytorch"] = theirs.decoding(rows)
    times = interleaved(calls, ROUNDS.value, f"decoding {rows} rows")
    show(f"decoding {rows} rows", times, rows * NEW.value)
    rates = {name: rows * NEW.value / statistics.median(t.wall) for name, t in times.items()}
    figures = {f"decode_rate_over_llm_{rows}": over(times, "v1.0", "v2.0"), "tokens_per_s": {str(rows): rates}}
    return figures | ({f"decode_speedup_over_torch_{rows}": over(times, "pytorch", "v2.0")} if theirs else {})


def compare_weights() -> None:
    """What --checkpoint asks for."""
    if given := [f"--{flag.name}" for flag in (LAYERS, TORCH) if flag.present]:
        raise UserError(f"{given[0]} does not go with --checkpoint, whose weights alone are compared")
    for weights in WEIGHTS.value or []:
        check_weights(weights, "--weights")
    begin(False)
    asked = [int(n) for n in BATCHES.value or []]
    folder, kinds = CHECKPOINT.value or "", WEIGHTS.value or []
    figures = decode_weights.measure(folder, kinds, asked, NEW.value, ROUNDS.value, Decoding)
    if JSON.value:
        print(json.dumps(figures | {"rounds": ROUNDS.value, "load": os.getloadavg()[0]}))


def main() -> None:
    if CHECKPOINT.value:
        compare_weights()
        return
    if WEIGHTS.present:
        raise UserError("--weights goes with --checkpoint, the model to compare them with")
    begin(bool(TORCH.value))
    prompt = workload.make_prompt()
    with Console(stderr=True).status("compiling ..."):
        engines = {"v2.0": engine("dac"), "v1.0": engine("dense")}  # v1.0 decodes as the plain LLM does
        theirs = TorchWay(prompt) if TORCH.value else None
        if theirs is not None:
            check(engines["v2.0"], theirs, prompt)
    figures = first_token(engines, theirs, prompt)
    rates: dict[str, Any] = {}
    for rows in map(int, BATCHES.value):
        found = decoding(engines, theirs, prompt, rows)
        rates |= found.pop("tokens_per_s")
        figures |= found
    figures["tokens_per_s"] = rates
    figures |= {"rounds": ROUNDS.value, "load": os.getloadavg()[0]}
    if JSON.value:
        print(json.dumps(figures))


if __name__ == "__main__":
    run(main)
