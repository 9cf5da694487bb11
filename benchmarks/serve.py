"""Serving under load, next to one request at a time and to vLLM: python -m benchmarks.serve [--vllm=PYTHON] [--json]

Servers of the model of train_step.py (512 wide, 8 layers, variant dac, float32), exported with a tokenizer of bytes, as
processes of this machine, which the load generator (load.py) shares: `launch.serve` with --slots, the same with one
slot, and, with PYTHON of an environment with vLLM (docs/vllm.md), vLLM with the plugin. All are asked in turn:

text    64 tokens, answers of --new (64), by --clients at a time, then at random times (Poisson, --rate a second)
image   an image of 651 tokens of its own and a question, answers of --new
same    an image of its own, about which eight questions are asked one after the other, answers of 8
long    a prompt of --long tokens, asked while seven others decode: how long these wait for their tokens

Reported: seconds to the first token (TTFT), of a further token (TPOT), between two events of an answer (the others of
`long` wait so long), how many waits of the server for pieces of the long prompts took at most two of the block that
followed (`within`, of `waits`), tokens and requests a second, programs compiled after the start, memory, errors. Every
request is one that no server has seen before. Takes about twenty minutes on two free cores. With --json a line of JSON
comes last. Needs the extras `serve` and, for httpx, `test`.
"""

import asyncio
import base64
import io
import json
import math
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks import servers, vllm_plugin, workload
from benchmarks.extras import want
from benchmarks.load import CHAT, COMPLETIONS, Ask, Figures, HeldUp, closed, figures, held_up, opened
from benchmarks.servers import Server
from benchmarks.timing import machine
from eve_jax.process import interrupt
from launch._flags import run

SLOTS = flags.DEFINE_integer("slots", 8, "of the server that is compared", lower_bound=1)
CLIENTS = flags.DEFINE_list("clients", ["1", "2", "4", "8", "16"], "requests at a time")
LAYERS = flags.DEFINE_integer("layers", workload.SIZES.num_layers, "fewer for a quick try", lower_bound=1)
NEW = flags.DEFINE_integer("new", 64, "tokens of an answer", lower_bound=9)
PER = flags.DEFINE_integer("per_client", 3, "requests of each client", lower_bound=1)
RATE = flags.DEFINE_float("rate", 1.0, "requests a second at random times", lower_bound=0.01)
LONG = flags.DEFINE_integer("long", 3000, "tokens of the long prompt", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 3, "rounds of `same` and `long`", lower_bound=1)
VLLM = flags.DEFINE_string("vllm", "", "Python of an environment with vLLM")
FLAGS = flags.DEFINE_list("server_flags", [], "further flags of launch.serve")
JSON = flags.DEFINE_bool("json", False, "print the figures as a line of JSON last", allow_override=True)
flags.register_validator(
    "clients", lambda v: v and all(n.isdecimal() and int(n) for n in v), "numbers above 0, such as 1,8"
)
CONTEXT, TEXT, SIDE, QUESTIONS, OTHERS = 4096, 64, 25 * 32, 8, 7
Row = dict[str, Any]


class Asks:
    """Requests that are like no other before, the same for every server that gets as many of each kind."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def text(self, tokens: int = TEXT) -> Ask:
        """A prompt of random token ids."""
        return Ask(COMPLETIONS, {"prompt": self.rng.integers(32, 250, tokens).tolist()})

    def about(self, url: str) -> Ask:
        """A question about an image."""
        question = "What is here, and what is number " + "".join(map(str, self.rng.integers(0, 10, 12))) + "?"
        image = {"type": "image_url", "image_url": {"url": url}}
        return Ask(CHAT, {"messages": [{"role": "user", "content": [image, {"type": "text", "text": question}]}]})

    def image(self) -> str:
        """An image of random blocks of colors as a data URI: 25 x 25 patches, 651 tokens."""
        blocks = Image.fromarray(self.rng.integers(0, 256, (SIDE // 16, SIDE // 16, 3), np.uint8))
        file = io.BytesIO()
        blocks.resize((SIDE, SIDE), Image.Resampling.NEAREST).save(file, "PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def load_rows(name: str, server: Server, asks: Asks) -> Iterator[Row]:
    """Figures of `text` and `image`."""
    makes: dict[str, Callable[[], Ask]] = {"text": asks.text, "image": lambda: asks.about(asks.image())}
    for kind, make in makes.items():
        for count in map(int, CLIENTS.value):
            given = [make() for _ in range(max(4, PER.value * count))]
            found = figures(asyncio.run(closed(server.url, given, NEW.value, count)))
            yield {"server": name, "load": kind, "clients": str(count), **found._asdict()}
        given = [make() for _ in range(PER.value * 8)]
        found = figures(asyncio.run(opened(server.url, given, NEW.value, RATE.value)))
        yield {"server": name, "load": kind, "clients": f"{RATE.value:g}/s", **found._asdict()}


def same_image(name: str, server: Server, asks: Asks) -> Row:
    """Seconds to the first token of the first question about an image, of the second, and of those that follow."""
    firsts: list[list[float]] = []
    for _ in range(ROUNDS.value):
        url = asks.image()
        answers = asyncio.run(closed(server.url, [asks.about(url) for _ in range(QUESTIONS)], 8, 1))
        figures(answers)
        firsts.append([answer.first for answer in answers])
    first, second, *rest = (statistics.median(column) for column in zip(*firsts, strict=True))
    ratio = statistics.median(one[1] / one[0] for one in firsts)
    return {"server": name, "first": first, "second": second, "later": statistics.median(rest), "ratio": ratio}


def long_prompt(name: str, server: Server, asks: Asks) -> Row:
    """How long others wait for tokens while a long prompt is read, and before; the server's own waits in blocks."""
    found: list[HeldUp] = []
    stalls: Counter[float] = Counter()
    for _ in range(ROUNDS.value):
        others, earlier = [asks.text() for _ in range(OTHERS)], Counter(server.stalls())
        found.append(asyncio.run(held_up(server.url, others, 4 * NEW.value, asks.text(LONG.value))))
        stalls.update(Counter(server.stalls()) - earlier)
    before, during = ([wait for one in found for wait in getattr(one, part)] for part in ("before", "during"))
    block, wait = statistics.median(before), statistics.median(during)
    return {
        "server": name,
        "first": statistics.median(one.first for one in found),
        "before": block,
        "during": wait,
        "longest": max(during),
        "stall": (wait - block) / block,
        "within": stalls[2.0],
        "waits": stalls[math.inf],
    }


def measure(started: dict[str, Server]) -> dict[str, list[Row]]:
    """Every load on every server, the servers in turn."""
    console = Console(stderr=True)
    asks = {name: Asks() for name in started}
    for name, server in started.items():  # what a first request does once
        first = asks[name]
        asyncio.run(closed(server.url, [first.text(), first.about(first.image())], 9, 2))
    compiled = {name: server.compiled() for name, server in started.items()}
    found: dict[str, list[Row]] = {"load": [], "same": [], "long": [], "process": []}
    for turn in zip(*[load_rows(name, server, asks[name]) for name, server in started.items()], strict=True):
        for row in turn:
            found["load"].append(row)
            console.print(f"{row['server']}: {row['load']} {row['clients']}: {row['tokens']:.1f} tokens/s")
    for kind, measured in {"same": same_image, "long": long_prompt}.items():
        for name, server in started.items():
            found[kind].append(measured(name, server, asks[name]))
            console.print(f"{name}: {kind}: {found[kind][-1]}")
    for name, server in started.items():
        before, after = compiled[name], server.compiled()
        new = None if before is None or after is None else after - before
        found["process"].append({"server": name, "compiled": new, "peak": server.peak()})
    return found


def start(stack: ExitStack, folder: Path) -> dict[str, Server]:
    """Export the model and start the servers."""
    export = vllm_plugin.write_export(folder, LAYERS.value)
    env = os.environ | {"PYTHONPATH": str(servers.ROOT)}
    commands = {}
    for slots in dict.fromkeys((SLOTS.value, 1)):
        name = f"{slots} slots" if slots > 1 else "1 slot"
        commands[name] = servers.ours(export, slots, f"--context={CONTEXT}", *FLAGS.value), env
    if VLLM.value:
        site = vllm_plugin.install(VLLM.value, folder)
        commands["vLLM"] = servers.vllm(VLLM.value, export, CONTEXT), vllm_plugin.environment(site)
    return {
        name: stack.enter_context(servers.serving(name.replace(" ", "-"), command, own, folder))
        for name, (command, own) in commands.items()
    }


def show(found: dict[str, list[Row]]) -> None:
    """Tables for people."""
    console = Console(width=140)
    table = Table(
        "server", "load", "clients", "TTFT P50", "P99", "TPOT P50, ms", "wait P99", "tokens/s", "prompt tokens/s"
    )
    table.add_column("requests/s")
    table.add_column("errors")
    for row in found["load"]:
        one = Figures(**{key: row[key] for key in Figures._fields})
        seconds = [f"{one.first_p50:.2f}", f"{one.first_p99:.2f}", f"{1e3 * one.token_p50:.1f}", f"{one.wait_p99:.2f}"]
        rates = [f"{one.tokens:.1f}", f"{one.prompt_tokens:.0f}", f"{one.requests:.2f}", str(one.errors)]
        table.add_row(row["server"], row["load"], row["clients"], *seconds, *rates)
    console.print(table)
    others = {
        "same": ("first", "second", "later", "ratio"),
        "long": ("first", "before", "during", "longest", "stall", "within", "waits"),
        "process": ("compiled", "peak"),
    }
    for kind, names in others.items():
        table = Table("server", *names, title=kind)
        for row in found[kind]:
            shown = (f"{row[key]:.3f}" if isinstance(row[key], float) else str(row[key]) for key in names)
            table.add_row(row["server"], *shown)
        console.print(table)


def main() -> None:
    interrupt.ready()
    want("httpx", "test")
    want("uvicorn", "serve")
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        found = measure(start(stack, Path(name)))
    show(found)
    if JSON.value:
        print(json.dumps(found))


if __name__ == "__main__":
    run(main)
