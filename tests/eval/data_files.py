"""Small data of benchmarks, from the rows of the reference files, in either layout."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from eve_jax.eval import registry
from tests.eval.goldens import golden

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(number: int = 0) -> bytes:
    """Return an image whose red says its number."""
    stream = io.BytesIO()
    Image.new("RGB", (48, 32), (number % 256, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], images: dict[str, list[Any]]) -> Path:
    """Write rows and columns of images (bytes, lists of bytes, or None) as the hub's files have them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows))

    def cell(value: Any) -> Any:
        if isinstance(value, list):
            return [cell(one) for one in value]
        return None if value is None else {"bytes": value, "path": None}

    for name, values in images.items():
        kind = pa.list_(CELL) if any(isinstance(value, list) for value in values) else CELL
        table = table.append_column(name, pa.array([cell(value) for value in values], kind))
    pq.write_table(table, path, row_group_size=7)
    return path


def write_hub(root: Path, benchmark: str) -> Path:
    """Write the `lmms` rows of a benchmark below `root` in the Hugging Face layout; return the file of the rows."""
    task = registry.get(benchmark, "lmms_judge" if benchmark.startswith("mmbench") else "lmms")
    rows = golden(task.name)["rows"]
    folder = root / task.data.repository
    path = folder / task.data.folder / f"{task.data.split}-00000-of-00001.parquet"
    if benchmark == "gqa":
        names = sorted({row["imageId"] for row in rows})
        images = [png(number) for number in range(len(names))]
        write_parquet(
            folder / task.data.images / "testdev-00000-of-00001.parquet", [{"id": n} for n in names], {"image": images}
        )
        return write_parquet(path, rows, {})
    columns: dict[str, list[Any]]
    if benchmark == "mmmu":
        columns = {f"image_{k}": [png(k) for _ in rows] for k in range(1, 8)}
    elif benchmark == "seed":
        columns = {"image": [[png(n)] * (3 if row["data_type"] == "video" else 1) for n, row in enumerate(rows)]}
    else:
        columns = {"image": [png(n) for n in range(len(rows))]}
    return write_parquet(path, rows, columns)


def _lines(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_official(root: Path, benchmark: str) -> list[dict[str, Any]]:
    """Write the `eve` rows of a benchmark to `root` in the official layout; return the rows."""
    data = golden(f"{benchmark}.eve")
    rows = data["rows"]
    asked = [{k: row[k] for k in ("question_id", "image", "text", "category") if k in row} for row in rows]
    root.mkdir(parents=True, exist_ok=True)

    def dump(name: str, value: Any) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(value))

    if benchmark.startswith("mmbench"):
        names = [*rows[0], "image"]
        cells = [row | {"image": base64.b64encode(png(n)).decode()} for n, row in enumerate(rows)]
        lines = [names, *(["" if c[x] is None else str(c[x]) for x in names] for c in cells)]
        name = "mmbench_dev_20230712.tsv" if benchmark == "mmbench_en" else "mmbench_dev_cn_20231003.tsv"
        (root / name).write_text("".join("\t".join(line) + "\n" for line in lines))
    elif benchmark == "mme":
        texts: dict[Path, str] = {}
        for row in rows:
            path = root / "MME_Benchmark_release_version" / row["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png())
            folder = path.parent.parent / "questions_answers_YN" if path.parent.name == "images" else path.parent
            file = folder / f"{path.stem}.txt"
            texts[file] = texts.get(file, "") + f"{row['question']}\t{row['answer']}\n"
        for file, text in texts.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    elif benchmark == "pope":
        _lines(root / "eve_pope_test.jsonl", asked)
        for name in ("adversarial", "popular", "random"):
            part = [row for row in rows if row["category"] == name]
            labels = [{"text": row["text"].split("\n")[0], "label": row["label"]} for row in part]
            _lines(root / "coco" / f"coco_pope_{name}.json", labels)
    elif benchmark == "gqa":
        _lines(root / "llava_gqa_testdev_balanced.jsonl", asked)
        dump("data/testdev_balanced_questions.json", {row["question_id"]: row["question_record"] for row in rows})
    elif benchmark == "scienceqa":
        dump("problems.json", {row["id"]: row["problem"] for row in rows})
        dump("eve_test_CQM-A.json", [{k: v for k, v in row.items() if k != "problem"} for row in rows])
    elif benchmark == "textvqa":
        _lines(root / "eve_textvqa_val_v051_ocr.jsonl", asked)
        dump("TextVQA_0.5.1_val.json", {"data": [row["annotation"] for row in rows]})
    elif benchmark == "seed":
        dump("SEED-Bench.json", data["annotation_file"])
    elif benchmark == "mmvet":
        _lines(root / "eve-mm-vet.jsonl", asked)
        dump("mm-vet.json", {f"v1_{row['question_id']}": row["meta"] for row in rows})
    elif benchmark == "llavabench":
        _lines(root / "questions.jsonl", asked)
        _lines(root / "context.jsonl", [row["context"] for row in rows])
        _lines(root / "answers_gpt4.jsonl", [row["reference"] for row in rows])
    elif benchmark == "qbench":
        dump("llvisionqa_dev.json", rows)
    elif benchmark == "vqav2":
        _lines(
            root / "eve_vqav2_mscoco_test-dev2015.jsonl",
            [a | {"answers": r["answers"]} for a, r in zip(asked, rows, strict=True)],
        )
        _lines(root / "eve_vqav2_mscoco_test2015.jsonl", [{"question_id": 999}, *asked])
    else:
        assert benchmark == "vizwiz"
        answers = [{"answers": row["answers"]} for row in rows]
        _lines(root / "eve_vizwiz_val.jsonl", [a | b for a, b in zip(asked, answers, strict=True)])
    return rows
