"""Benchmarks from local folders: both layouts give the reference prompts, and damage is named."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from eve_jax.data.image.patches import open_image
from eve_jax.data.image_file import BadImage
from eve_jax.errors import UserError
from eve_jax.eval import registry
from eve_jax.eval.replay import replay
from eve_jax.eval.sources.open import open_rows
from tests.eval.data_files import png, write_hub, write_official, write_parquet
from tests.eval.goldens import NAMES, differences, golden

HUB = [
    name for name in NAMES if name.endswith(("lmms", "lmms_static", "lmms_judge", "lmms_ocr")) and "pope_" not in name
]
OFFICIAL = [name for name in NAMES if name.endswith(".eve")]


@pytest.mark.parametrize("name", HUB)
def test_hub_layout_gives_the_reference_prompts(name: str, tmp_path: Path) -> None:
    benchmark, protocol = name.split(".")
    write_hub(tmp_path, benchmark)
    rows = open_rows(registry.get(benchmark, protocol), tmp_path)
    items = list(rows)
    data = golden(name)
    kept = [n for n, row in enumerate(data["rows"]) if row.get("data_type") != "video"]
    assert [rows.task.prompt(item.row) for item in items] == [data["prompts"][n] for n in kept]
    assert [len(item.images) for item in items] == [len(data["images"][n]) for n in kept]
    assert len(rows) == len(items) == len({item.id for item in items})
    assert rows.left_out == ({"video questions": 6} if benchmark == "seed" else {})


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_layout_gives_the_reference(name: str, tmp_path: Path) -> None:
    """Of all but MME the rows, too, are those of the reference; its folders alone have another order."""
    benchmark = name.split(".")[0]
    rows = write_official(tmp_path / "data", benchmark)
    found = open_rows(registry.get(benchmark, "eve"), tmp_path / "data")
    items = list(found)
    prompts = [found.task.prompt(item.row) for item in items]
    data = golden(name)
    if benchmark == "mme":
        assert sorted(prompts) == sorted(data["prompts"])
        return
    assert prompts == data["prompts"]
    verdicts = [found.task.score(item.row, output) for item, output in zip(items, data["outputs"], strict=True)]
    if not found.task.needs_judge:
        aggregate = found.task.aggregate([item.row for item in items], verdicts)
        assert differences(data["aggregate"], aggregate) == []
    assert len(items) == len(rows)


@pytest.mark.parametrize("name", OFFICIAL)
def test_lmms_runs_from_the_official_layout(name: str, tmp_path: Path) -> None:
    """Where both protocols ask alike, the prompts are the same, and ids are those of `eve` everywhere."""
    benchmark = name.split(".")[0]
    write_official(tmp_path, benchmark)
    eve, lmms = (list(open_rows(registry.get(benchmark, protocol), tmp_path)) for protocol in ("eve", "lmms"))
    assert [item.id for item in eve] == [item.id for item in lmms]
    if benchmark in ("gqa", "pope", "scienceqa", "seed", "vizwiz", "vqav2", "llavabench"):
        tasks = [registry.get(benchmark, protocol) for protocol in ("eve", "lmms")]
        texts = [[task.text(item.row) for item in items] for task, items in zip(tasks, (eve, lmms), strict=True)]
        assert texts[0] == texts[1]
    for item in lmms:
        verdict = registry.get(benchmark, "lmms").score(item.row, "")
        assert verdict.parsed or verdict.score == 0


def test_both_protocols_run_from_the_hub_layout(tmp_path: Path) -> None:
    for benchmark in ("mme", "gqa", "scienceqa", "textvqa", "mmbench_cn", "seed", "llavabench", "mmvet", "vizwiz"):
        write_hub(tmp_path, benchmark)
        rows = open_rows(registry.get(benchmark, "eve"), tmp_path)
        expected = golden(f"{benchmark}.eve")["prompts"]
        prompts = [rows.task.prompt(item.row) for item in rows]
        if benchmark == "scienceqa":  # that data set has images alone
            expected = [p if p.startswith("<image>") else f"<image>\n{p}" for p in expected]
        assert prompts == expected, benchmark


def test_images_are_those_of_the_rows(tmp_path: Path) -> None:
    write_hub(tmp_path, "mmmu")
    items = list(open_rows(registry.get("mmmu", "lmms"), tmp_path))
    reds = [open_image(image).getpixel((0, 0)) for image in items[10].images]
    assert reds == [(1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0)]
    write_hub(tmp_path, "gqa")
    items = list(open_rows(registry.get("gqa", "lmms"), tmp_path))
    names = sorted({item.row["imageId"] for item in items})
    for item in items[:5]:
        assert open_image(item.images[0]).getpixel((0, 0)) == (names.index(item.row["imageId"]), 0, 0)


def test_a_row_without_image(tmp_path: Path) -> None:
    """Is asked without where the benchmark has such rows; elsewhere the image fails when it is opened."""
    problem = golden("scienceqa.lmms")["rows"][0]
    path = tmp_path / "ScienceQA" / "ScienceQA-IMG" / "test-00000-of-00001.parquet"
    write_parquet(path, [problem, problem], {"image": [png(), None]})
    items = list(open_rows(registry.get("scienceqa", "eve"), tmp_path))
    assert [len(item.images) for item in items] == [1, 0]
    assert not registry.get("scienceqa", "eve").prompt(items[1].row).startswith("<image>")
    row = golden("mmmu.lmms")["rows"][10]
    write_parquet(tmp_path / "MMMU" / "data" / "validation-00000-of-00001.parquet", [row], {"image_1": [png()]})
    item = next(iter(open_rows(registry.get("mmmu", "lmms"), tmp_path)))
    open_image(item.images[0])
    with pytest.raises(BadImage, match="image_2: has no image"):
        open_image(item.images[1])


def test_damaged_files_are_named(tmp_path: Path) -> None:
    task = registry.get("mme", "lmms")
    path = write_hub(tmp_path, "mme")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet: not a whole Parquet file .*download it again"):
        open_rows(task, tmp_path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="not a whole Parquet file"):
        open_rows(task, tmp_path)
    path.write_bytes(whole)
    path.rename(path.with_name("test-00001-of-00003.parquet"))
    with pytest.raises(UserError, match=r"test-00000-of-00003\.parquet is missing of 3 files"):
        open_rows(task, tmp_path)


def test_damaged_images_spare_the_other_rows(tmp_path: Path) -> None:
    """Pages with images that were overwritten fail when they are opened, those of other row groups do not."""
    path = write_hub(tmp_path, "mme")
    column = next(n for n, name in enumerate(_leaves(path)) if name == "image.bytes")
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(column)
    whole = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    whole[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(whole)
    items = list(open_rows(registry.get("mme", "lmms"), tmp_path))
    assert len(items) == 90
    open_image(items[0].images[0])
    open_image(items[14].images[0])
    with pytest.raises(BadImage, match=r"test-00000-of-00001\.parquet: its images cannot be read .*download it again"):
        open_image(items[7].images[0])


def _leaves(path: Path) -> list[str]:
    schema = pq.ParquetFile(path).schema
    return [schema.column(number).path for number in range(len(schema))]


def test_data_of_another_benchmark_or_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no data of gqa: neither lmms-lab-encoder/GQA/testdev_balanced_instructions/"):
        open_rows(registry.get("gqa", "eve"), tmp_path)
    with pytest.raises(UserError, match="no such folder; set --data"):
        open_rows(registry.get("gqa", "eve"), tmp_path / "none")
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [{"question": "a?"}], {"image": [png()]})
    with pytest.raises(UserError, match=r"parquet#1: not a row of mme \(no field 'category'\)|no field 'question_id'"):
        list(open_rows(registry.get("mme", "lmms"), tmp_path))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("eve_pope_test.jsonl", "{", r"eve_pope_test\.jsonl#1: not valid JSON"),
        ("eve_pope_test.jsonl", "[]", "not a JSON object"),
        ("eve_pope_test.jsonl", '{"category": "odd"}', "there is no coco_pope_odd.json"),
        ("coco/coco_pope_random.json", '{"text": "Other?", "label": "yes"}', "has another question in its place"),
    ],
)
def test_bad_official_files_are_named(file: str, text: str, message: str, tmp_path: Path) -> None:
    write_official(tmp_path, "pope")
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=message):
        open_rows(registry.get("pope", "eve"), tmp_path)


def test_replay_of_rows_in_the_hub_shape_under_eve(tmp_path: Path) -> None:
    """A file may hold the data set's columns under `eve`: the verdicts are those of the question file's rows."""
    import json

    lmms, eve = golden("vizwiz.lmms"), golden("vizwiz.eve")
    mixed = eve | {"rows": lmms["rows"]}
    (tmp_path / "f.json").write_text(json.dumps(mixed))
    found = replay(tmp_path / "f.json")
    assert found["prompts"] == eve["prompts"]
    assert differences(eve["aggregate"], found["aggregate"]) == []
