"""What a training run compiles, what its second start compiles, and when the host reads from the device."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from configs.base import get_config
from eve_jax.data.plan.plan import load_plan
from eve_jax.process import setup as runtime
from eve_jax.train import trainer
from eve_jax.train.metrics import read_metrics
from eve_jax.train.step import StepFunctions, TrainState
from tests.compiles import watched
from tests.data.synthetic import byte_tokenizer, write_records

STEPS, LOG_EVERY = 7, 3
pytestmark = pytest.mark.long
HIT = "/jax/compilation_cache/cache_hits"
CACHE_FIELDS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def config(folder: Path) -> ConfigDict:
    """Stage 3 of the tiny model on 40 records: rows of two shapes, two micro-batches a step."""
    c = get_config("tiny")
    byte_tokenizer().save(folder / "tokenizer")
    c.data.records = str(write_records(folder, 40))
    c.data.images, c.data.tokenizer = str(folder / "images"), str(folder / "tokenizer")
    c.data.image_mode, c.data.max_size = "anyratio_ld", 96
    c.data.max_tokens, c.data.row_tokens, c.data.rows, c.data.max_shapes = 256, 256, 2, 2
    c.data.epochs = 100
    c.model.dtype = c.model.frozen_dtype = "float32"
    c.model.patch_hidden = 16
    c.train.steps, c.train.log_every, c.train.save_every = STEPS, LOG_EVERY, 100
    return c


def forget() -> None:
    """As a new process would: no program is in memory."""
    jax.clear_caches()
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ConfigDict, Counter[str]]]:
    """The first run, with an empty cache: its work folder, its config, what it compiled."""
    folder = tmp_path_factory.mktemp("compiles")
    settings = {name: getattr(jax.config, name) for name in CACHE_FIELDS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVE_CACHE", str(folder / "cache"))
        for name in CACHE_FIELDS:
            patch.delenv(name.upper(), raising=False)  # of the tests, which would come first
        patch.setattr(runtime.interrupt, "ready", lambda: None)
        runtime.setup()
        forget()
        with watched() as (programs, _):
            trainer.train(config(folder), folder / "first", quiet=True)
        yield folder, config(folder), programs
    for name, value in settings.items():
        jax.config.update(name, value)
    forget()


def test_one_gradient_function_a_shape_and_one_update(first):
    folder, c, programs = first
    shapes = set(load_plan(folder / "first" / c.name / "plan").batch_shape.tolist())
    assert len(shapes) == 2
    assert programs["jit(accumulate)"] == len(shapes)
    assert programs["jit(apply_update)"] == 1
    assert not programs["jit(fused)"]


def test_the_second_start_compiles_nothing(first):
    folder, c, before = first
    forget()
    with watched() as (programs, events):
        trainer.train(c, folder / "second", quiet=True)
    assert programs["jit(accumulate)"] == before["jit(accumulate)"]
    assert events.count(HIT) == programs.total()  # each came from the cache
    lines = [read_metrics(folder / name / c.name) for name in ("first", "second")]
    assert [m["loss"] for m in lines[0]] == [m["loss"] for m in lines[1]]


class Reads(list[tuple[int, int]]):
    """What was read from the device: (steps begun by then, step whose values it was)."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0


class Value:
    """A metric on the device that notes when it is read."""

    def __init__(self, value: jax.Array, reads: Reads):
        self.value, self.reads, self.step = value, reads, reads.begun

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self.reads.append((self.reads.begun, self.step))
        return np.asarray(self.value)


class State:
    """A TrainState that notes when anything but the next step looks into it."""

    def __init__(self, state: TrainState, reads: Reads):
        self._state, self.reads, self.number = state, reads, reads.begun

    def __getattr__(self, name: str) -> Any:
        self.reads.append((self.reads.begun, self.number))
        return getattr(self._state, name)


def test_between_logged_steps_nothing_is_read_from_the_device(first, monkeypatch):
    folder, c, _ = first
    reads = Reads()

    class Watched(StepFunctions):
        def __call__(self, state: Any, frozen: Any, batches: list[Any]) -> Any:
            reads.begun += 1
            old = state._state if isinstance(state, State) else state
            new, metrics = super().__call__(old, frozen, batches)
            assert all(x.is_deleted() for x in jax.tree.leaves((old.trainable, old.optimizer)))  # donated
            return State(new, reads), {name: Value(value, reads) for name, value in metrics.items()}

    monkeypatch.setattr(trainer, "StepFunctions", Watched)
    trainer.train(c, folder / "third", quiet=True)
    assert {begun for begun, _ in reads} == {4, 7}  # one step after those that are logged, and at the end
    assert {step for begun, step in reads if begun == 4} == {1, 2, 3}
    assert [m["step"] for m in read_metrics(folder / "third" / c.name)] == list(range(1, STEPS + 1))
