"""The official layouts, benchmark by benchmark; see docs/eval.md for the files that each takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eve_jax.errors import UserError, amount
from eve_jax.eval.sources.official import Found, Layout, read_lines, read_table, read_whole
from eve_jax.eval.task import Row
from eve_jax.eval.tasks.vizwiz import VizWizLmms
from eve_jax.process.files import read_text

TABLES = {
    "mmbench_en": ("mmbench_dev_2*.tsv", "*DEV_EN*.tsv"),
    "mmbench_cn": ("mmbench_dev_cn_*.tsv", "*DEV_CN*.tsv"),
}


def _mmbench(found: Found) -> Iterator[Row]:
    for row in read_table(found["table"][0]):
        yield row | {"index": int(row["index"])}


def _mme(found: Found) -> Iterator[Row]:
    """Return the questions of a folder `CATEGORY/[questions_answers_YN/]STEM.txt`, lines of question TAB answer."""
    for path in found["questions"]:
        nested = path.parent.name == "questions_answers_YN"
        category = path.parent.parent if nested else path.parent
        image = _beside(category / "images" if nested else category, path.stem)
        for number, line in enumerate(read_text(path).splitlines(), 1):
            question, tab, answer = line.rpartition("\t")
            if not tab:
                raise UserError(f"{path}: line {number} is not a question, a tab and an answer")
            name = f"{category.name}/{image.relative_to(category).as_posix()}"
            # Without `text` the task makes it: the question files of EVE and LLaVA follow the same rule.
            yield {
                "question_id": name,
                "image": name,
                "question": question,
                "answer": answer,
                "category": category.name,
            }


def _beside(folder: Path, stem: str) -> Path:
    files = [path for path in sorted(folder.glob(f"{stem}.*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if not files:
        raise UserError(f"{folder / stem}: there is no image of this name (.jpg or .png) for the questions")
    return files[0]


def _pope(found: Found) -> Iterator[Row]:
    labels = {path.stem.removeprefix("coco_pope_"): iter(read_lines(path)) for path in found["labels"]}
    for number, row in enumerate(read_lines(found["questions"][0]), 1):
        where = f"{found['questions'][0]}#{number}"
        if row["category"] not in labels:
            raise UserError(f"{where}: there is no coco_pope_{row['category']}.json next to it")
        label = next(labels[row["category"]], None)
        if label is None or label["text"] not in row["text"]:
            raise UserError(f"{where}: coco_pope_{row['category']}.json has another question in its place")
        yield row | {"label": label["label"]}


def _gqa(found: Found) -> Iterator[Row]:
    records = read_whole(found["annotation"][0])
    for row in read_lines(found["questions"][0]):
        yield row | {"question_record": records[row["question_id"]]}


def _scienceqa(found: Found) -> Iterator[Row]:
    problems = read_whole(found["problems"][0])
    for row in read_whole(found["questions"][0]):
        yield row | {"problem": problems[row["id"]]}


def _textvqa(found: Found) -> Iterator[Row]:
    data = read_whole(found["annotation"][0])["data"]
    records = {(item["image_id"], item["question"].lower()): item for item in data}
    for row in read_lines(found["questions"][0]):
        lines = row["text"].split("\n")
        tokens = {} if len(lines) < 3 else {"ocr_tokens": lines[1].removeprefix("Reference OCR token: ").split(", ")}
        yield row | {"annotation": records[row["question_id"], lines[0].lower()]} | tokens


def _lines(found: Found) -> Iterator[Row]:
    yield from read_lines(found["questions"][0])


def _vqav2_extras(found: Found) -> dict[str, Any]:
    return {"test_ids": [row["question_id"] for row in read_lines(found["test"][0])]} if found["test"] else {}


def _seed(found: Found) -> Iterator[Row]:
    annotation = read_whole(found["annotation"][0])
    for item in annotation["questions"]:
        yield item | {"image": f"SEED-Bench-image/{item['data_id']}"}


def _seed_extras(found: Found) -> dict[str, Any]:
    return {"annotation_file": read_whole(found["annotation"][0])}


def _mmvet(found: Found) -> Iterator[Row]:
    records = read_whole(found["annotation"][0])
    for row in read_lines(found["questions"][0]):
        yield row | {"meta": records[f"v1_{row['question_id']}"]}


def _mmvet_extras(found: Found) -> dict[str, Any]:
    return {"judge_prompt": read_text(found["prompt"][0])} if found["prompt"] else {}


def _llavabench(found: Found) -> Iterator[Row]:
    rows, contexts, references = (read_lines(found[name][0]) for name in ("questions", "context", "reference"))
    by_image = {context["image"]: context for context in contexts}
    if len(rows) != len(references):
        raise UserError(
            f"{found['reference'][0]}: {amount(len(references), 'answer')} for {amount(len(rows), 'question')}"
        )
    for row, reference in zip(rows, references, strict=True):
        yield row | {"context": by_image[row["image"]], "reference": reference}


def _llavabench_extras(found: Found) -> dict[str, Any]:
    return {"rule": read_whole(found["rule"][0])} if found["rule"] else {}


def _qbench(found: Found) -> Iterator[Row]:
    yield from read_whole(found["questions"][0])


def _vizwiz(found: Found) -> Iterator[Row]:
    """Return the lines of EVE's question file, or the records of the official val.json."""
    path = found["questions"][0]
    if path.suffix == ".jsonl":
        yield from read_lines(path)
        return
    for number, item in enumerate(read_whole(path)):
        text = VizWizLmms().text(item)
        answers = [answer["answer"] for answer in item.get("answers", [])] or None
        yield {"question_id": number, "image": item["image"], "text": text, "answers": answers}


def _questions(*names: str) -> tuple[str, ...]:
    return tuple(f"{start}{name}" for name in names for start in ("eve_", "llava_", "eve-", "llava-", ""))


LAYOUTS = {
    **{name: Layout({"table": patterns}, _mmbench) for name, patterns in TABLES.items()},
    "mme": Layout(
        {
            "questions": (
                "MME_Benchmark_release_version/*/questions_answers_YN/*.txt|MME_Benchmark_release_version/*/*.txt",
                "*/questions_answers_YN/*.txt|*/*.txt",
            )
        },
        _mme,
        images=("MME_Benchmark_release_version", ""),
    ),
    "pope": Layout(
        {
            "questions": _questions("pope_test.jsonl"),
            "labels": ("coco/coco_pope_*.json", "coco_pope_*.json"),
        },
        _pope,
        images=("val2014", "coco/val2014", "images"),
    ),
    "gqa": Layout(
        {
            "questions": _questions("gqa_testdev_balanced.jsonl"),
            "annotation": ("data/testdev_balanced_questions.json", "testdev_balanced_questions.json"),
        },
        _gqa,
        images=("data/images", "images"),
    ),
    "scienceqa": Layout(
        {"questions": _questions("test_CQM-A.json"), "problems": ("problems.json",)},
        _scienceqa,
        ("images/test", "test"),
    ),
    "textvqa": Layout(
        {
            "questions": _questions("textvqa_val_v051_ocr.jsonl"),
            "annotation": ("TextVQA_0.5.1_val.json",),
        },
        _textvqa,
        images=("train_images", "train_val_images/train_images"),
    ),
    "vqav2": Layout(
        {"questions": _questions("vqav2_mscoco_test-dev2015.jsonl")},
        _lines,
        images=("test2015", "images"),
        optional={"test": _questions("vqav2_mscoco_test2015.jsonl")},
        extras=_vqav2_extras,
    ),
    "vizwiz": Layout(
        {"questions": (*_questions("vizwiz_val.jsonl", "val.jsonl", "test.jsonl"), "val.json", "Annotations/val.json")},
        _vizwiz,
        images=("test", "val", "images"),
    ),
    "seed": Layout({"annotation": ("SEED-Bench.json",)}, _seed, images=("",), extras=_seed_extras),
    "mmvet": Layout(
        {"questions": _questions("mm-vet.jsonl"), "annotation": ("mm-vet.json",)},
        _mmvet,
        images=("images", ""),
        optional={"prompt": ("judge_prompt.txt",)},
        extras=_mmvet_extras,
    ),
    "llavabench": Layout(
        {
            "questions": ("questions.jsonl",),
            "context": ("context.jsonl",),
            "reference": ("answers_gpt4.jsonl",),
        },
        _llavabench,
        images=("images", ""),
        optional={"rule": ("rule.json",)},
        extras=_llavabench_extras,
    ),
    "qbench": Layout(
        {"questions": ("llvisionqa_dev.json",)}, _qbench, images=("images", "images_llvisionqa", "llvisionqa", "")
    ),
}
