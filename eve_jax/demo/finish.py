"""The end of the demo: the held-out questions as a task, with their images and with blank ones, and the report."""

import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eve_jax.demo.config import DemoConfig, RecipeConfig
from eve_jax.demo.report import draw_losses, draw_report, stage_summary, summarize, write_report
from eve_jax.eval.live import blank, items_of, open_task, outcome_of, shortened
from eve_jax.eval.outcome import Outcome
from eve_jax.eval.sources.base import Item
from eve_jax.infer.api import EVE
from eve_jax.train.metrics import read_evaluations

FIT = "shrink"  # images keep the sizes they had in training
REPORT = "report.json"


def answered(demo: DemoConfig, data: Path, checkpoint: Path) -> tuple[Outcome, Outcome]:
    """Ask a trained stage the held-out questions in the folder `data`; with their images, and with blank ones."""
    opened = open_task(str(data / "heldout.jsonl"), images=data / "images")
    task, items = shortened(opened.task, demo.max_new_tokens), items_of(opened)
    eve = EVE.from_pretrained(checkpoint, FIT)
    print(f"answering {len(items)} held-out questions, then once more with blank ones", flush=True)
    return outcome_of(eve, task, items, demo.answer_batch), outcome_of(eve, task, blank(items), demo.answer_batch)


def finish(config: RecipeConfig, workdir: Path, checkpoint: Path) -> dict[str, Any]:
    """Write report.json, report.png, losses.png and answers.jsonl into `workdir`; returns the report.

    Prints a summary and a `launch.chat` command on a held-out image.
    """
    assert config.demo is not None
    began = time.perf_counter()
    outcome, blind = answered(config.demo, workdir / "data", checkpoint)
    folders = {name: workdir / config.stages[name].name for name in config.order}
    report = summarize(outcome, blind, {name: stage_summary(folder) for name, folder in folders.items()})
    report["evaluations"] = {name: found for name, folder in folders.items() if (found := read_evaluations(folder))}
    report["answering_seconds"] = round(time.perf_counter() - began, 2)
    report["image_rule"] = FIT
    _write_answers(outcome, blind, workdir / "answers.jsonl")
    write_report(report, workdir / REPORT)
    draw_report(report, outcome, workdir / "report.png")
    draw_losses(folders, workdir / "losses.png")
    _print_summary(report, workdir)
    right = [i for i, one in enumerate(outcome.answered) if one.verdict is not None and one.verdict.score]
    _print_chat(outcome.items[right[0] if right else 0], checkpoint)
    return report


def _write_answers(outcome: Outcome, blind: Outcome, path: Path) -> None:
    with path.open("w") as file:
        for item, given, unseen in zip(outcome.items, outcome.answered, blind.answered, strict=True):
            line = {"id": item.id, "expected": item.row["answer"], "given": given.answer, "blind": unseen.answer}
            file.write(json.dumps(line) + "\n")


def _print_summary(report: dict[str, Any], workdir: Path) -> None:
    print(f"\nheld-out questions: accuracy {report['accuracy']:.1%}, with a blank image {report['blind_accuracy']:.1%}")
    for task, scores in report["per_task"].items():
        print(
            f"  {task:14} {scores['accuracy']:6.1%}   blank images {scores['blind_accuracy']:6.1%}   n = {scores['n']}"
        )
    for name, lines in report["evaluations"].items():
        print(f"  {name}: {_first_and_last(lines)}")
    print(f"see {workdir / REPORT}, {workdir / 'report.png'}, {workdir / 'losses.png'}")


def _first_and_last(lines: Sequence[Mapping[str, Any]]) -> str:
    first, last = lines[0], lines[-1]
    pairs = [(name, first.get(name), value) for name, value in last.items() if name != "step"]
    parts = [f"{name} {a:.3f} to {b:.3f}" for name, a, b in pairs if a is not None and b is not None]
    return f"steps {first['step']:,} to {last['step']:,}, {', '.join(parts)}"


def _print_chat(item: Item, checkpoint: Path) -> None:
    question = item.row["conversations"][0]["value"].replace("<image>", "").strip()
    interpreter = Path(sys.executable)
    if interpreter.is_relative_to(Path.cwd()):
        interpreter = interpreter.relative_to(Path.cwd())
    words = [str(interpreter), "-m", "launch.chat", f"--checkpoint={checkpoint}", f"--fit={FIT}"]
    words += [f"--image={image}" for image in item.images] + [f"--prompt={question}"]
    print(f"\nask it yourself (the expected answer here is {item.row['answer']!r}):")
    print(f"  {shlex.join(words)}")
