"""What each host of a run asks of the shared folder when it starts, saves and resumes: python -m benchmarks.hosts

    python -m benchmarks.hosts [--hosts=1,2,4,8,16,32,64] [--latency_ms=1 --megabytes_per_s=400] [--json]

Threads stand for hosts of one device each. They run the host side of a run, the project's own functions: lock,
agreement on folder and settings, records, lengths and plan, their part of a Hugging Face folder's weights, compiled
programs; sums of a checkpoint by those who wrote it, and their check. A folder that Python reads and writes through a
wait for every request and one server of a given bandwidth stands for the shared storage, and a dict for the key-value
service. Nothing is compiled and no array leaves the host: files of the size of shards, named as Orbax names them, stand
for Orbax's own.

Prints for each number of hosts what process 0 and the busiest of the others did, and whether that grows.
"""

import json
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from benchmarks.data_images import word_tokenizer
from benchmarks.slow_storage import Count, Messages, Storage, be
from configs import base
from eve_jax.checkpoint.checksums import MANIFEST
from eve_jax.checkpoint.shared_sums import Sums, damage_seen_by_all
from eve_jax.config.stage import Config
from eve_jax.hf.names import plain_llm
from eve_jax.hf.safetensors_io import TensorWriter
from eve_jax.hf.tensors import HfSource
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import abstract_params, declared
from eve_jax.process import connect
from eve_jax.process.kept_programs import _WholeFiles
from eve_jax.process.peers import Peers
from eve_jax.train.shared_data import open_data_together, same_everywhere, share_folder, written_by_one_run
from eve_jax.weights.divided import parts_of
from launch._flags import run

HOSTS = flags.DEFINE_list("hosts", ["1", "2", "4", "8", "16", "32", "64"], "numbers of hosts")
LATENCY = flags.DEFINE_float("latency_ms", 1.0, "of a request to the shared folder", lower_bound=0)
BANDWIDTH = flags.DEFINE_float("megabytes_per_s", 400.0, "of the shared folder, all hosts together", lower_bound=1)
JSON = flags.DEFINE_bool("json", False, "print the figures as a line of JSON last", allow_override=True)
RECORDS, PROGRAMS, PROGRAM = 400, 8, 1 << 19  # records; programs of so many bytes
LLM = ModelConfig(
    vocab_size=4096,
    hidden_size=512,
    intermediate_size=1024,
    num_layers=4,
    num_heads=8,
    num_kv_heads=4,
    head_dim=64,
    parts=(),
)
CHECKPOINT = 3 << 24  # bytes of parameters and optimizer
PHASES = ("start", "save", "resume")
# What may grow with the number of hosts on process 0 beyond its own share, and why (docs/tpu.md)
DOCUMENTED = "messages, values: one a host whenever all agree; save: a part of the manifest of each host, 0.2 KB a file"


@dataclass
class Job:
    """A run of `count` hosts on `storage`: one start of it, with its key-value service."""

    storage: Storage
    count: int

    def __post_init__(self) -> None:
        self.messages = Messages(self.storage)
        root = self.storage.root
        c = base.get_config("tiny")
        c.name, c.init = "stage3", str(root / "llm")
        c.data.records = str(root / "records.jsonl")
        c.data.tokenizer = str(root / "llm")
        c.data.template = "plain"
        c.data.rows, c.data.row_tokens, c.data.max_tokens, c.data.micro_batches = 64, 512, 512, 1
        self.config = Config.of(c)
        self.folder = root / "work" / c.name
        self.saved: dict[str, Any] | None = None

    def all_hosts(self, act: Callable[[int, Peers, ExitStack], None]) -> dict[str, Any]:
        """Let every host act; returns the counts of process 0 and the largest of the others."""
        self.storage.counts.clear()
        began = time.monotonic()
        errors: list[BaseException] = []

        def one(index: int) -> None:
            be(index)
            peers = Peers(self.messages, index, self.count)
            _of_threads.peers = peers
            try:
                with ExitStack() as held:
                    act(index, peers, held)
                    self.storage.mine().seconds = time.monotonic() - began
                    peers.gather("end")
            except BaseException as error:
                errors.append(error)
                raise
            finally:
                peers.close()

        threads = [threading.Thread(target=one, args=(index,), daemon=True) for index in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and not errors:
                thread.join(0.1)
        if errors:
            raise errors[0]
        others = [count for index, count in self.storage.counts.items() if index > 0]
        return {"process 0": asdict(self.storage.counts[0]), "others": largest(others)}

    def begin(self, index: int, peers: Peers, held: ExitStack) -> None:
        """What a start and a resumed run have in common: agreements, data, programs."""
        same_everywhere(peers, "settings", self.config.to_json())
        held.enter_context(written_by_one_run(self.folder, "training"))
        share_folder(self.folder, peers)
        data = open_data_together(self.config, self.folder, peers, self.saved)
        if index == 0:
            self.fingerprint = data.fingerprint
        programs = _WholeFiles(str(self.storage.root / "work" / "cache" / "xla"), max_size=-1)
        for number in range(PROGRAMS):
            if programs.get(f"program-{number}") is None and index == 0:
                programs.put(f"program-{number}", secrets.token_bytes(PROGRAM))

    def start(self, index: int, peers: Peers, held: ExitStack) -> None:
        """Start from a Hugging Face folder."""
        self.begin(index, peers, held)
        source = HfSource(self.storage.root / "llm")
        for name, shape in source.shapes.items():
            row_axis = source.row_axis(name)
            axis = (row_axis or 0) + declared(source.cfg)[name].stacked
            parts = 1 if row_axis is None else parts_of(shape, axis, self.count)
            rows = shape.shape[axis] // parts
            mine = index // (self.count // parts)
            for _ in source.rows(name, mine * rows, (mine + 1) * rows) if parts > 1 else source.pieces(name):
                pass

    def save(self, index: int, peers: Peers, held: ExitStack) -> None:
        """Write the shards of a host, and sum them."""
        step = self.folder / "checkpoints" / "7.orbax-checkpoint-tmp"
        sums = Sums(peers)
        for item in ("params", "optimizer"):
            mine = step / item / f"ocdbt.process_{index}" / "d"
            mine.mkdir(parents=True, exist_ok=True)
            with (mine / "shards").open("wb") as file:
                file.write(bytes(CHECKPOINT // 2 // self.count))
        peers.gather("written")  # as Orbax has them wait for each other
        sums.follow(step)
        if index == 0:
            sums.seal(step)
            step.rename(step.with_name("7"))
        peers.gather("sealed")

    def resume(self, index: int, peers: Peers, held: ExitStack) -> None:
        """Check a checkpoint and read the shards of a host."""
        self.begin(index, peers, held)
        step = self.folder / "checkpoints" / "7"
        if wrong := damage_seen_by_all(step, peers):
            raise RuntimeError(wrong)
        for item in ("params", "optimizer"):
            (step / item / f"ocdbt.process_{index}" / "d" / "shards").read_bytes()


class _OfThreads(threading.local):
    """The other processes as each thread that stands for one sees them, in the place of the one of this process."""

    peers: Peers

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["peers"], name)


_of_threads = _OfThreads()


@contextmanager
def threads_as_processes() -> Iterator[None]:
    """In the block, `connect.peers()` is that of the thread."""
    before, connect._peers = connect._peers, _of_threads  # type: ignore[assignment]
    try:
        yield
    finally:
        connect._peers = before


def largest(counts: list[Count]) -> dict[str, Any]:
    """Return the largest of each figure."""
    return {name: max((getattr(c, name) for c in counts), default=0) for name in asdict(Count())}


def write_inputs(root: Path) -> None:
    """Write records of text, a tokenizer and the weights of an LLM."""
    lines = []
    for number in range(RECORDS):
        turns = [{"from": "human", "value": "word"}, {"from": "gpt", "value": "word " * (20 + number % 60)}]
        lines.append(json.dumps({"id": str(number), "conversations": turns}))
    (root / "records.jsonl").write_text("\n".join(lines))
    word_tokenizer(root / "llm")
    fields = ("vocab_size", "hidden_size", "intermediate_size", "head_dim", "rope_theta")
    config = {name: getattr(LLM, name) for name in fields} | {
        "model_type": "qwen2",
        "num_hidden_layers": LLM.num_layers,
        "num_attention_heads": LLM.num_heads,
        "num_key_value_heads": LLM.num_kv_heads,
        "rms_norm_eps": LLM.rms_norm_eps,
        "tie_word_embeddings": LLM.tie_embeddings,
    }
    (root / "llm" / "config.json").write_text(json.dumps(config))
    shapes = abstract_params(LLM)
    tensors = {n: e.their_shape(shapes[e.ours].shape) for e in plain_llm(LLM) for n in e.names(LLM)}
    specs = [(name, np.dtype(np.float32), shape) for name, shape in tensors.items()]
    rng = np.random.default_rng(0)
    with TensorWriter(root / "llm", specs, 1 << 40) as writer:
        for name, dtype, shape in specs:
            writer.write(name, rng.normal(size=shape).astype(dtype))


def simulate(counts: list[int], latency: float, bandwidth: float, root: Path) -> dict[int, dict[str, Any]]:
    """Figures by number of hosts and phase: of process 0, and the largest of the others."""
    root = root.resolve()
    write_inputs(root)
    found = {}
    for count in counts:
        shutil.rmtree(root / "work", ignore_errors=True)
        storage = Storage(root, latency, bandwidth)
        with threads_as_processes(), storage.slow():
            first = Job(storage, count)
            figures = {"start": first.all_hosts(first.start), "save": first.all_hosts(first.save)}
            later = Job(storage, count)
            later.saved = first.fingerprint
            figures["resume"] = later.all_hosts(later.resume)
        figures["manifest_bytes"] = (later.folder / "checkpoints" / "7" / MANIFEST).stat().st_size
        found[count] = figures
    return found


def grows(figures: dict[int, dict[str, Any]]) -> list[str]:
    """Return what a host asks for more of with more hosts, beyond what is documented; of two counts at least."""
    few, many = min(n for n in figures if n > 1), max(figures)
    found = []
    for phase in PHASES:
        for who in ("process 0", "others"):
            a, b = figures[few][phase][who], figures[many][phase][who]
            for name in ("asked", "reads", "writes", "read_bytes", "written_bytes", "mapped_bytes"):
                allowed = a[name] * 1.05 + 8
                if phase == "save" and who == "process 0":  # a part of the manifest from each
                    allowed += {"asked": 8 * many, "reads": many, "writes": many}.get(name, 1024 * many)
                if phase == "resume":  # the manifest names the files of all
                    allowed += 512 * many if name == "read_bytes" else 0
                if b[name] > allowed:
                    found.append(f"{phase}, {who}: {name} {a[name]:,} with {few} hosts, {b[name]:,} with {many}")
    return found


def main() -> None:
    numbers = [int(text) for text in HOSTS.value or []]
    with tempfile.TemporaryDirectory() as folder:
        simulate([1], 0.0, 1e12, Path(folder))  # numba compiles what plans
        figures = simulate(numbers, (LATENCY.value or 0) / 1e3, (BANDWIDTH.value or 0) * 1e6, Path(folder))
    table = Table("hosts", "phase", "of", "asked", "reads", "writes", "MB read", "MB written", "messages", "seconds")
    for count, phases in figures.items():
        for phase in PHASES:
            for who, c in phases[phase].items():
                numbers_of = [f"{c[name]:,}" for name in ("asked", "reads", "writes")]
                megabytes = [f"{c[name] / 1e6:.2f}" for name in ("read_bytes", "written_bytes")]
                row = (str(count), phase, who, *numbers_of, *megabytes, f"{c['messages']:,}", f"{c['seconds']:.2f}")
                if count > 1 or who == "process 0":
                    table.add_row(*row)
    Console(width=110).print(table)
    more = grows(figures) if len(figures) > 1 else []
    print("\n".join(more) or f"nothing grows with the hosts but what is documented ({DOCUMENTED})")
    if JSON.value:
        print(json.dumps(figures))


if __name__ == "__main__":
    run(main)
