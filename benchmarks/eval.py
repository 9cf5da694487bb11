"""Short answers to many questions, as an evaluation asks them: python -m benchmarks.eval [--rounds=7] [--json]

Each question has one image (14 x 14 patches: 211 tokens), 20 text tokens before it and 30 after, and gets 12 tokens,
greedy; float32, all cores, the model of train_step.py with Qwen2.5's vocabulary, input and output embedding tied.

ours          `answer_all`, --rows questions at a time, 1, 2 and 6 of them about an image (6 as each part of POPE asks)
transformers  `generate` of the model that `launch.convert export` writes, one question at a time, as the usual wrapper
              of an evaluation does

All in turn in every round, from ids and patches to the answers' ids on the host; what is compiled or called for the
first time is not counted. The script stops unless the first answers are the same. Prints medians and ratios with their
middle half; with --json the last line is JSON. Takes about ten minutes on two free cores. Needs the extra `torch`.
"""

import json
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from benchmarks import workload
from benchmarks.timing import Times, begin, interleaved, ratios, spread
from eve_jax.data.image.rule import PATCH_BYTES
from eve_jax.data.text.encode import IMAGE_ID
from eve_jax.infer.batches import Ask, answer_all
from eve_jax.infer.engine import Engine
from eve_jax.infer.prompt import Prompt
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params
from eve_jax.weights.import_export import export_checkpoint
from launch._flags import run

ROUNDS = flags.DEFINE_integer("rounds", 7, "rounds that are timed", lower_bound=1)
LAYERS = flags.DEFINE_integer("layers", workload.SIZES.num_layers, "fewer for a quick try", lower_bound=1)
ROWS = flags.DEFINE_integer("rows", 16, "questions at a time", lower_bound=1)
NEW = flags.DEFINE_integer("new", 12, "tokens of an answer", lower_bound=1)
SIDE = flags.DEFINE_integer("side", 14, "patches along a side of an image", lower_bound=1)
VOCAB = flags.DEFINE_integer("vocab", 151_936, "rows of the word embedding; default: Qwen2.5's, so EVEv2's")
ASKED = flags.DEFINE_integer("asked", 8, "questions that transformers is asked in a round", lower_bound=1)
TORCH = flags.DEFINE_bool("torch", True, "PyTorch, too")
JSON = flags.DEFINE_bool("json", False, "print the figures as a line of JSON last", allow_override=True)
BEFORE, AFTER = 20, 30
PER_IMAGE = (1, 2, 6)  # questions about an image


def config() -> ModelConfig:
    """The model with the layers asked for."""
    return replace(workload.config("dac"), num_layers=LAYERS.value, vocab_size=VOCAB.value, tie_embeddings=True)


def make_prompts(count: int, images: int) -> list[Prompt]:
    """`count` questions about `images` images in turn; the text before an image is the same for all of them."""
    rng = np.random.default_rng(1)
    side = SIDE.value or 0
    pictures = [rng.integers(0, 256, (side**2, PATCH_BYTES), np.uint8) for _ in range(images)]
    head = np.concatenate([workload.text_ids(rng, BEFORE), np.array([IMAGE_ID], np.int32)])
    rests = [workload.text_ids(rng, AFTER) for _ in range(count)]
    return [
        Prompt(np.concatenate([head, rest]), [pictures[number % images]], [(side, side)])
        for number, rest in enumerate(rests)
    ]


class Batched:
    """`answer_all` of prompts; a call answers them all again."""

    def __init__(self, engine: Engine, prompts: list[Prompt]):
        self.engine = engine
        self.asks = [Ask(str(number), prompt, NEW.value or 0) for number, prompt in enumerate(prompts)]

    def __call__(self) -> dict[str, list[int]]:
        return {reply.key: reply.ids for reply in answer_all(self.engine, self.asks, [], ROWS.value or 1)}


class Transformers:
    """The exported folder in `transformers`; a call asks some of the prompts again, one at a time."""

    def __init__(self, cfg: ModelConfig, params: Params, prompts: list[Prompt]):
        import torch
        import transformers

        from benchmarks import torch_way

        torch_way.use_threads()
        self.torch = torch
        with tempfile.TemporaryDirectory() as folder:
            exported = export_checkpoint(
                workload.write_folder(Path(folder) / "hf", cfg, params), Path(folder) / "out", quiet=True
            )
            load = transformers.AutoModelForCausalLM.from_pretrained
            self.model = load(exported, trust_remote_code=True, dtype=torch.float32).eval()
        self.asked = [
            (torch.tensor(prompt.ids)[None].long(), [torch_way.pixels(prompt.patches[0], prompt.grids[0])])
            for prompt in prompts
        ]

    def __call__(self) -> list[list[int]]:
        settings = {"max_new_tokens": NEW.value, "do_sample": False, "eos_token_id": None}
        with self.torch.no_grad():
            return [self.model.generate(ids, images=images, **settings)[0].tolist() for ids, images in self.asked]


def per_question(times: Times, questions: int) -> Times:
    """Seconds of one of the `questions` that a call answers."""
    return Times(*([second / questions for second in part] for part in times))


def show(times: dict[str, Times]) -> None:
    """A table of the seconds of a question."""
    first = next(iter(times))
    table = Table("", "seconds a question", "processor seconds", "questions/s", f"time over {first}")
    for name, t in times.items():
        rate = f"{1 / statistics.median(t.wall):,.2f}"
        over = spread(ratios(t.wall, times[first].wall))
        table.add_row(name, spread(t.wall, ".3f"), spread(t.processor, ".3f"), rate, over)
    Console(width=132).print(table)


def main() -> None:
    begin(bool(TORCH.value))
    rows, cfg = ROWS.value or 1, config()
    params = workload.params(cfg)
    engine, prompts = Engine(cfg, params), make_prompts(rows * PER_IMAGE[-1], rows)
    names = {count: f"{count} an image" for count in PER_IMAGE}
    calls: dict[str, Any] = {names[count]: Batched(engine, prompts[: rows * count]) for count in PER_IMAGE}
    questions = {names[count]: rows * count for count in PER_IMAGE}
    if TORCH.value:
        with Console(stderr=True).status("exporting ..."):
            theirs = Transformers(cfg, params, prompts[: ASKED.value])
        calls["transformers"], questions["transformers"] = theirs, len(theirs.asked)
        if theirs()[0] != calls[names[1]]()["0"]:
            raise SystemExit("transformers and we do not give the same answer")
    times = interleaved(calls, ROUNDS.value or 1, "answering")
    each = {name: per_question(t, questions[name]) for name, t in times.items()}
    show(each)
    figures: dict[str, Any] = {"rows": rows, "rounds": ROUNDS.value, "load": os.getloadavg()[0]}
    for count, name in names.items():
        figures[f"questions_a_second_{count}"] = 1 / statistics.median(each[name].wall)
        if TORCH.value:
            faster = ratios(each["transformers"].wall, each[name].wall)
            figures[f"speedup_over_transformers_{count}"] = statistics.median(faster)
            print(f"{name}: {spread(faster)} times the questions a second of transformers")
    more = ratios(times[names[2]].wall, times[names[1]].wall)
    figures["two_over_one"] = statistics.median(more)
    print(f"two questions about an image take {spread(more)} times the time of one")
    if JSON.value:
        print(json.dumps(figures))


if __name__ == "__main__":
    run(main)
