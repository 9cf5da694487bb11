"""The end of the demo: answer the held-out questions, with their images and with blank ones, and write the report."""

import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from eve_jax.demo.config import RecipeConfig
from eve_jax.demo.dataset import read_records
from eve_jax.demo.report import draw_losses, draw_report, grey, is_right, stage_summary, summarise, write_report
from eve_jax.infer.api import EVE

FIT = "shrink"  # images keep the sizes they had in training
REPORT = "report.json"


def answer_all(
    eve: EVE,
    records: list[dict[str, Any]],
    images: Path,
    see: Callable[[Image.Image], Image.Image],
    batch: int,
    max_new_tokens: int,
    label: str,
) -> list[str]:
    """Greedy answers to one-question records, in their order; `see` is applied to every image first."""
    questions = [record["conversations"][0]["value"] for record in records]
    pictures = []
    for record in records:
        paths = record["image"] if isinstance(record["image"], list) else [record["image"]]
        pictures.append([see(Image.open(images / path).convert("RGB")) for path in paths])
    return eve.generate_batch(questions, pictures, batch, label, max_new_tokens=max_new_tokens)


def evaluate(config: RecipeConfig, workdir: Path, checkpoint: Path) -> dict[str, Any]:
    """Write report.json, report.png, losses.png and answers.jsonl into `workdir`; returns the report.

    Prints a summary and a `launch.chat` command on a held-out image.
    """
    assert config.demo is not None
    began = time.perf_counter()
    data = workdir / "data"
    heldout = read_records(data / "heldout.jsonl")
    eve = EVE.from_pretrained(checkpoint, FIT)
    settings = (config.demo.answer_batch, config.demo.max_new_tokens)
    print(f"answering {len(heldout)} held-out questions, then once more with blank ones", flush=True)
    answers = answer_all(eve, heldout, data / "images", lambda image: image, *settings, "answering")
    blind = answer_all(eve, heldout, data / "images", grey, *settings, "answering with blank images")
    metrics = {name: workdir / config.stages[name].name / "metrics.jsonl" for name in config.order}
    report = summarise(heldout, answers, blind, {name: stage_summary(path) for name, path in metrics.items()})
    report["answering_seconds"] = round(time.perf_counter() - began, 2)
    report["image_rule"] = FIT
    with (workdir / "answers.jsonl").open("w") as file:
        for record, given, unseen in zip(heldout, answers, blind, strict=True):
            line = {"id": record["id"], "expected": record["answer"], "given": given, "blind": unseen}
            file.write(json.dumps(line) + "\n")
    write_report(report, workdir / REPORT)
    draw_report(report, heldout, answers, data / "images", workdir / "report.png")
    draw_losses(metrics, workdir / "losses.png")
    _print_summary(report, workdir)
    right = [i for i, (r, a) in enumerate(zip(heldout, answers, strict=True)) if is_right(r["answer"], a)]
    _print_chat(heldout[right[0] if right else 0], data / "images", checkpoint)
    return report


def _print_summary(report: dict[str, Any], workdir: Path) -> None:
    print(f"\nheld-out questions: {report['accuracy']:.1%} right, {report['blind_accuracy']:.1%} with a blank image")
    for task, scores in report["per_task"].items():
        print(
            f"  {task:14} {scores['accuracy']:6.1%}   blank images {scores['blind_accuracy']:6.1%}   n = {scores['n']}"
        )
    print(f"see {workdir / REPORT}, {workdir / 'report.png'}, {workdir / 'losses.png'}")


def _print_chat(record: dict[str, Any], images: Path, checkpoint: Path) -> None:
    paths = record["image"] if isinstance(record["image"], list) else [record["image"]]
    question = record["conversations"][0]["value"].replace("<image>", "").strip()
    interpreter = Path(sys.executable)
    if interpreter.is_relative_to(Path.cwd()):
        interpreter = interpreter.relative_to(Path.cwd())
    words = [str(interpreter), "-m", "launch.chat", f"--checkpoint={checkpoint}", f"--fit={FIT}"]
    words += [f"--image={images / path}" for path in paths] + [f"--prompt={question}"]
    print(f"\nask it yourself (the right answer here is {record['answer']!r}):")
    print(f"  {shlex.join(words)}")
