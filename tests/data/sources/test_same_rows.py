"""The same 200 records, written in the formats of other data sets, become the same rows, bit for bit."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from eve_jax.data.image.rule import ImageRule
from eve_jax.data.plan.plan import PlanSettings, build_plan
from eve_jax.data.rows.bad_records import BadRecords
from eve_jax.data.rows.build import RowBuilder
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from tests.data.sources.record_formats import CAPTIONS, TALKS, Sample, captions, llava, talks, vqav2
from tests.data.synthetic import byte_tokenizer

MANY = 200
Writer = Callable[[Path, Sequence[Sample]], str]


def rows_of(writer: Writer, folder: Path, samples: Sequence[Sample], template: str) -> tuple[int, str]:
    """How many rows the records make, and a hash of all their arrays."""
    (folder / "images").mkdir(parents=True)
    for sample in samples:
        for name, data in sample.images:
            (folder / "images" / name).write_bytes(data)
    records = open_records(writer(folder, samples), folder / "images")
    rule = SampleRule(byte_tokenizer(), ImageRule("anyratio_ld", max_size=96), template, max_tokens=512)
    lengths = measure(records, rule)
    assert len(lengths.record) == MANY
    plan = build_plan(lengths, PlanSettings(row_tokens=1024, max_shapes=2, rows=2, micro_batches=2, epochs=1, seed=0))
    builder = RowBuilder(records, lengths, rule, BadRecords(folder / "work", 0))
    digest, rows = hashlib.sha256(), 0
    for step in range(plan.steps):
        for micro_batch in plan.step(step):
            rows += len(micro_batch.rows)
            for name, array in builder.build(micro_batch).items():
                digest.update(name.encode() + str((array.dtype, array.shape)).encode() + array.tobytes())
    return rows, digest.hexdigest()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """The rows of the records as LLaVA writes them."""
    samples = {"qwen2": talks(MANY), "plain": captions(MANY), "question": questions()}
    return {
        name: rows_of(llava, tmp_path_factory.mktemp(name), own, "plain" if name == "plain" else "qwen2")
        for name, own in samples.items()
    }


def questions() -> list[Sample]:
    """The images of the captions, with a question each."""
    return [sample._replace(texts=["What is it?", sample.texts[1]]) for sample in captions(MANY)]


@pytest.mark.parametrize("name", TALKS)
def test_conversations(name: str, tmp_path: Path, expected: dict[str, tuple[int, str]]) -> None:
    assert expected["qwen2"][0] > 20
    assert rows_of(TALKS[name], tmp_path / name, talks(MANY), "qwen2") == expected["qwen2"]


@pytest.mark.parametrize("name", CAPTIONS)
def test_captions(name: str, tmp_path: Path, expected: dict[str, tuple[int, str]]) -> None:
    assert rows_of(CAPTIONS[name], tmp_path / name, captions(MANY), "plain") == expected["plain"]


def test_questions(tmp_path: Path, expected: dict[str, tuple[int, str]]) -> None:
    assert rows_of(vqav2, tmp_path / "v", questions(), "qwen2") == expected["question"]
