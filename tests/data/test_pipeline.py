"""The loader: the same batches whoever builds them and wherever it starts."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.base import get_config
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.plan.plan import Plan, PlanSettings, build_plan
from eve_jax.data.rows.bad_records import BadRecords
from eve_jax.data.rows.build import Batch, RowBuilder
from eve_jax.data.rows.loader import loader
from eve_jax.data.rows.pipeline import open_stage_data
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from eve_jax.train.flops import add, batch_tokens
from tests.data.synthetic import byte_tokenizer, write_records

Steps = list[tuple[int, list[Batch]]]


def set_up(folder: Path, max_bad: int = 0) -> tuple[Plan, RowBuilder]:
    records = open_records(str(write_records(folder, 80)), folder / "images")
    rule = SampleRule(byte_tokenizer(), ImageRule("anyratio_ld", max_size=96), "plain", max_tokens=256)
    lengths = measure(records, rule)
    settings = PlanSettings(row_tokens=256, max_shapes=2, rows=2, micro_batches=2, epochs=2, seed=0)
    plan = build_plan(lengths, settings)
    bad = BadRecords(folder / "work", max_bad)
    return plan, RowBuilder(records, lengths, rule, bad)


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


def set_up_hosts(folder: Path) -> tuple[Plan, RowBuilder]:
    """Micro-batches of 4 rows."""
    _, builder = set_up(folder)
    return build_plan(builder.lengths, PlanSettings(256, 2, rows=4, micro_batches=2, epochs=3, seed=0)), builder


def glued(hosts: list[Steps]) -> Steps:
    """The global batches of several hosts' own."""
    return [
        (
            steps[0][0],
            [
                {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
                for parts in zip(*(batches for _, batches in steps), strict=True)
            ],
        )
        for steps in zip(*hosts, strict=True)
    ]


def shares(hosts: int) -> list[range]:
    """Which of a micro-batch's 4 rows each host builds."""
    return [range(4 * host // hosts, 4 * (host + 1) // hosts) for host in range(hosts)]


@pytest.mark.parametrize(("hosts", "threads"), [(1, 3), (2, 0), (2, 1), (4, 3)])
def test_hosts_build_their_rows_of_the_same_batches(tmp_path: Path, hosts: int, threads: int) -> None:
    plan, builder = set_up_hosts(tmp_path)
    assert plan.steps > 2
    whole: Steps = [(k, [builder.build(batch) for batch in plan.step(k)]) for k in range(plan.steps)]
    for start in (0, 1):
        rows = shares(hosts)
        assert equal(glued([list(loader(plan, builder, start, threads, 3, mine)) for mine in rows]), whole[start:])


def test_a_run_goes_on_with_another_number_of_hosts(tmp_path: Path) -> None:
    plan, builder = set_up_hosts(tmp_path)
    whole = list(loader(plan, builder, threads=0))
    middle = plan.steps // 2

    def run(hosts: int, start: int, stop: int) -> Steps:
        mine = [loader(plan, builder, start, 1, 2, rows) for rows in shares(hosts)]
        return glued([list(islice(steps, stop - start)) for steps in mine])

    assert equal(run(4, 0, 1) + run(1, 1, middle) + run(2, middle, plan.steps), whole)


def test_a_host_reads_only_its_rows(tmp_path: Path) -> None:
    plan, builder = set_up_hosts(tmp_path)
    rows = [row for k in range(plan.steps) for batch in plan.step(k) for row in batch.rows]
    mine_too = {entry for row in rows[3::4] for entry in row}
    others = {entry for row in rows for entry in row} - mine_too
    assert len(others) > 5
    for entry in others:
        for image in builder.records[int(builder.lengths.record[entry])].images:
            Path(str(image)).unlink()
    mine = list(loader(plan, builder, threads=0, rows=[3]))  # max_bad is 0: a missing image would end the run
    assert all(len(array) == 1 for _, batches in mine for batch in batches for array in batch.values())
    swapped = list(loader(plan, builder, threads=0, rows=[3, 3]))  # any index map
    assert all(np.array_equal(a, b) for _, batches in swapped for batch in batches for a, b in batch.values())


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
    assert "1 record left out" in data.summary()
    assert json.loads((tmp_path / "stage" / "plan" / "plan.json").read_text())["hash"] == data.plan.hash

    (tmp_path / "images" / "7_0.png").unlink()  # after the first checkpoint
    again = open_stage_data(config, tmp_path / "stage", saved=data.fingerprint)
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
    assert again.plan.hash == open_stage_data(config, tmp_path / "stage", saved={}).plan.hash
    config.seed = 1
    assert again.plan.hash != open_stage_data(config, tmp_path / "stage", saved={}).plan.hash


def test_counts_are_those_of_the_batches(tmp_path: Path) -> None:
    data = open_stage_data(stage_config(tmp_path), tmp_path / "stage")
    for step, batches in data.batches():
        real = add([batch_tokens(batch) for batch in batches])
        assert data.counts(step) == {
            "samples": sum(len(np.unique(row[row > 0])) for batch in batches for row in batch["segment"]),
            "tokens": real.total,
            "vision_tokens": real.patches + real.specials,
            "patches": real.patches,
            "pairs": real.pairs,
            "rows": sum((batch["segment"] > 0).any(axis=1).sum() for batch in batches),
        }


def test_a_kept_plan_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = stage_config(tmp_path)
    first = open_stage_data(config, tmp_path / "stage").plan
    made: list[int] = []

    def spy(*arguments: object, **more: object) -> Plan:
        made.append(1)
        return build_plan(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("eve_jax.data.rows.pipeline.build_plan", spy)
    again = open_stage_data(config, tmp_path / "stage").plan
    assert not made
    assert (again.hash, again.stats) == (first.hash, first.stats)
    path = tmp_path / "stage" / "plan" / "plan.npz"
    whole = path.read_bytes()
    for content in (whole[:-200], b"", whole.replace(again.entries.tobytes(), again.entries[::-1].tobytes())):
        path.write_bytes(content)  # cut short, or with other entries
        assert open_stage_data(config, tmp_path / "stage").plan.hash == first.hash
    assert len(made) == 3
    config.data.repeats = "2"
    assert len(open_stage_data(config, tmp_path / "stage").plan.entries) == 2 * len(first.entries)
    assert len(made) == 4


def test_draft_from_a_config(tmp_path: Path) -> None:
    """The log says that it is on; a run that began without it does not resume with it."""
    config = stage_config(tmp_path)
    exact = open_stage_data(config, tmp_path / "stage")
    assert "draft" not in exact.summary()
    config.data.draft = True
    drafts = open_stage_data(config, tmp_path / "other")
    assert "JPEG images decoded in part, not exact (config.data.draft)" in drafts.summary()
    assert drafts.plan.hash == exact.plan.hash
    with pytest.raises(UserError, match="the image rule is not what its checkpoints were trained with"):
        open_stage_data(config, tmp_path / "stage", saved=exact.fingerprint)


def test_a_mixture_from_a_config(tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    write_records(tmp_path / "more", 20, seed=1)
    config.data.records += f",{tmp_path}/more/records.jsonl"
    config.data.weights = "1:3"
    for image in (tmp_path / "more" / "images").iterdir():
        image.rename(tmp_path / "images" / image.name)
    data = open_stage_data(config, tmp_path / "stage")
    names = config.data.records.split(",")
    assert [(s["name"], s["records"]) for s in data.plan.stats["sources"]] == [(names[0], 30), (names[1], 20)]
    assert [s["samples"] for s in data.plan.stats["sources"]] == [7, 20]
    assert f"samples from {names[0]} 25.9% (planned 25.0%), {names[1]} 74.1% (planned 75.0%)" in data.summary()
    config.data.weights = "1:3:1"
    with pytest.raises(UserError, match="3 numbers for 2 sources"):
        open_stage_data(config, tmp_path / "stage")


def test_a_stage_without_tokenizer(tmp_path: Path) -> None:
    config = stage_config(tmp_path)
    config.data.tokenizer = ""
    with pytest.raises(UserError, match=r"config\.data\.tokenizer is empty"):
        open_stage_data(config, tmp_path / "stage")
    config.init = str(tmp_path / "tokenizer")
    assert open_stage_data(config, tmp_path / "stage").tokenizer.vocab_size == 257


def test_no_module_of_data_loads_jax() -> None:
    root = Path(__file__).parents[2]
    paths = [path.relative_to(root).with_suffix("") for path in (root / "eve_jax" / "data").rglob("[a-z]*.py")]
    code = (
        "import sys\n"
        + "".join(f"import {'.'.join(path.parts)}\n" for path in sorted(paths))
        + "assert 'jax' not in sys.modules"
    )
    assert len(paths) >= 45
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
