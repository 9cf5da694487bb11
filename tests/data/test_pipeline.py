"""The loader: the same batches whoever builds them and wherever it starts."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.base import get_config
from eve_jax.data.bad import BadRecords
from eve_jax.data.images import ImageRule
from eve_jax.data.lengths import measure
from eve_jax.data.pipeline import loader, open_stage_data
from eve_jax.data.plan import Plan, build_plan
from eve_jax.data.records import open_records
from eve_jax.data.rows import Batch, RowBuilder
from eve_jax.errors import UserError
from tests.data.synthetic import byte_tokenizer, write_records

Steps = list[tuple[int, list[Batch]]]


def set_up(folder: Path, max_bad: int = 0) -> tuple[Plan, RowBuilder]:
    records = open_records(str(write_records(folder, 80)), folder / "images")
    rule, tokenizer = ImageRule("anyratio_ld", max_size=96), byte_tokenizer()
    lengths = measure(records, tokenizer, rule, "plain", False, 256)
    plan = build_plan(lengths, row_tokens=256, max_shapes=2, rows=2, micro_batches=2, epochs=2, seed=0)
    bad = BadRecords(folder / "work", max_bad)
    return plan, RowBuilder(records, lengths, tokenizer, rule, "plain", False, bad)


def equal(a: Steps, b: Steps) -> bool:
    return len(a) == len(b) and all(
        i == j and all(np.array_equal(x[name], y[name]) for x, y in zip(p, q, strict=True) for name in x)
        for (i, p), (j, q) in zip(a, b, strict=True)
    )


def test_same_batches_for_any_threads_and_start(tmp_path: Path) -> None:
    plan, builder = set_up(tmp_path)
    assert plan.steps > 3
    alone: Steps = [(k, [builder.build(batch) for batch in plan.step(k)]) for k in range(plan.steps)]
    for threads in (0, 1, 2, 3):
        assert equal(list(loader(plan, builder, threads=threads, prefetch=3)), alone)
    for start in (1, plan.steps - 1):
        assert equal(list(loader(plan, builder, start_step=start, threads=2)), alone[start:])
    assert list(loader(plan, builder, start_step=plan.steps)) == []
    weight = sum(batch["loss_weight"].sum() for _, batches in alone for batch in batches)
    targets = [len("".join(turn.text for turn in record.turns[1:]).strip()) + 1 for record in builder.records]
    first_of_text_only = sum(not record.images for record in builder.records)  # nothing predicts those
    assert weight == 2 * (sum(targets) - first_of_text_only)


def test_the_end_of_the_run_reaches_the_caller(tmp_path: Path) -> None:
    plan, builder = set_up(tmp_path)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    for threads in (0, 2):
        with pytest.raises(UserError, match="max_bad=0"):
            list(loader(plan, builder, threads=threads))


def stage_config(folder: Path) -> ConfigDict:
    config = get_config("tiny")
    byte_tokenizer().save(folder / "tokenizer")
    config.data.update(
        {
            "records": str(write_records(folder, 30)),
            "images": str(folder / "images"),
            "tokenizer": str(folder / "tokenizer"),
            "image_mode": "anyratio_ld",
            "max_size": 96,
            "max_tokens": 400,
            "row_tokens": 512,
            "rows": 2,
        }
    )
    return config


def test_stage_data_from_a_config(tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    (tmp_path / "images" / "4_0.png").unlink()
    data = open_stage_data(config, tmp_path / "stage")
    first = list(data.batches())
    assert [step for step, _ in first] == list(range(data.plan.steps))
    assert "1 records left out" in data.summary()
    assert json.loads((tmp_path / "stage" / "plan" / "plan.json").read_text())["hash"] == data.plan.hash

    (tmp_path / "images" / "7_0.png").unlink()  # after planning
    again = open_stage_data(config, tmp_path / "stage")
    assert again.plan.hash == data.plan.hash
    assert [step for step, _ in again.batches(1)] == list(range(1, data.plan.steps))
    list(again.batches())
    list(again.batches())
    listed = [json.loads(line) for line in (tmp_path / "stage" / "bad_records.jsonl").read_text().splitlines()]
    assert [(entry["id"], entry["reason"], entry["found"]) for entry in listed] == [
        ("r4", "missing file", "planning"),
        ("r7", "missing file", "training"),
    ]
    for name in ("threads", "prefetch", "max_bad"):
        config.data[name] = 0
    assert again.plan.hash == open_stage_data(config, tmp_path / "stage").plan.hash
    config.seed = 1
    assert again.plan.hash != open_stage_data(config, tmp_path / "stage").plan.hash


def test_a_stage_without_tokenizer(tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    config.data.tokenizer = ""
    with pytest.raises(UserError, match=r"config\.data\.tokenizer is empty"):
        open_stage_data(config, tmp_path / "stage")
    config.init = str(tmp_path / "tokenizer")
    assert open_stage_data(config, tmp_path / "stage").tokenizer.vocab_size == 257


def test_no_module_of_data_loads_jax() -> None:
    modules = sorted(path.stem for path in (Path(__file__).parents[2] / "eve_jax" / "data").glob("[a-z]*.py"))
    code = (
        "import sys\n"
        + "".join(f"import eve_jax.data.{name}\n" for name in modules)
        + "assert 'jax' not in sys.modules"
    )
    assert len(modules) >= 12
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
