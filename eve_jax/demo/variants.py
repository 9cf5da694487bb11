"""The end of the comparison of variants: what each has learned, what language it forgot, how far its weights moved."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from eve_jax.demo.compose import TrainingComposer
from eve_jax.demo.config import DemoConfig, RecipeConfig
from eve_jax.demo.dataset import Record, read_records
from eve_jax.demo.finish import answered
from eve_jax.demo.language import chat_text, document, text_dialogue
from eve_jax.demo.report import stage_summary, summarize, write_report
from eve_jax.demo.settings import DemoSettings
from eve_jax.demo.variants_report import draw_changes, draw_curves, draw_table, markdown, table_rows
from eve_jax.eval.live import open_task, outcome_of_text
from eve_jax.infer.api import EVE
from eve_jax.weights.changes import weight_changes
from eve_jax.weights.open import stored_source

REPORT, TABLE = "variants.json", "variants.md"
CHARTS = ("variants.png", "losses.png", "weights.png")
PAPER_NAMES = {"dense": "EVEv1.0", "rep": "EVEv1.2", "moe": "EVEv1.5", "dac": "EVEv2.0"}
ALL_TEXTS = "all"


def compare(config: RecipeConfig, workdir: Path) -> dict[str, Any]:
    """Write variants.json, its table and three images into `workdir` and print the table; returns the report.

    `config` is that of configs/variants.py, whose stages are all trained. Losses are nats a target.
    """
    assert config.demo is not None and config.compare is not None
    names = config.compare.stages
    folders = {v: {s: workdir / f"{v}_{s}" for s in names} for v in config.compare.variants}
    llm = workdir / config.compare.llm
    texts = write_texts(workdir, config.demo.dataset, config.demo.seed, config.compare.texts)
    report: dict[str, Any] = {"llm": {"text_loss": text_losses(llm, texts, "the LLM")}, "variants": {}}
    for variant, stages in folders.items():
        trained = stored_source(stages[names[-1]])
        report["variants"][variant] = {
            "name": PAPER_NAMES[variant],
            **_answers(config.demo, workdir / "data", stages[names[-1]]),
            "text_loss": {s: text_losses(folder, texts, folder.name) for s, folder in stages.items()},
            "stages": {s: stage_summary(folder) for s, folder in stages.items()},
            "parameters": sum(math.prod(shape.shape) for shape in trained.shapes.values()),
            "weight_change": weight_changes(stored_source(llm), trained),
        }
    write_report(report, workdir / REPORT)
    table, curves, changes = (workdir / name for name in CHARTS)
    draw_table(report, table)
    draw_curves(folders, curves)
    draw_changes(report, changes)
    (workdir / TABLE).write_text(markdown(table_rows(report)))
    _print_table(report, workdir)
    return report


def write_texts(workdir: Path, settings: DemoSettings, seed: int, number: int) -> dict[str, Path]:
    """Write `number` documents and `number` chats like those that trained the LLM, none of which did; return the files.

    `workdir` holds the dataset `data` of the same settings; the files are `texts/documents.txt` and `texts/chats.txt`,
    with an empty line between two texts. Chats have the markers of the chat template that the LLM was trained with.
    """
    composer = TrainingComposer(settings, Random(f"{seed} held-out texts"))
    makers: dict[str, tuple[str, Callable[[], str]]] = {
        "documents": ("llm", lambda: document(composer)),
        "chats": ("llm_chat", lambda: chat_text(text_dialogue(composer))),
    }
    files = {}
    (workdir / "texts").mkdir(exist_ok=True)
    for kind, (learned, make) in makers.items():
        seen = {_text(record) for record in read_records(workdir / "data" / f"{learned}.jsonl")}
        new: dict[str, None] = {}
        while len(new) < number:
            text = make()
            if text not in seen:
                new[text] = None
        files[kind] = workdir / "texts" / f"{kind}.txt"
        files[kind].write_text("\n\n".join(new) + "\n")
    return files


def _text(record: Record) -> str:
    """Return a record of the LLM's stages as `write_texts` would write it."""
    values = [turn["value"] for turn in record["conversations"]]
    return values[0] if len(values) == 1 else chat_text(list(zip(values[::2], values[1::2], strict=True)))


def text_losses(checkpoint: Path, texts: Mapping[str, Path], label: str) -> dict[str, float]:
    """Mean loss a token of each file of texts, and of all of them together."""
    print(f"text-only loss of {label}", flush=True)
    eve = EVE.from_pretrained(checkpoint)
    found = {}
    for kind, file in texts.items():
        opened = open_task(str(file))
        assert opened.text is not None
        found[kind] = outcome_of_text(eve, opened.task, opened.text).aggregate
    tokens = sum(numbers["tokens"] for numbers in found.values())
    losses = {kind: numbers["loss"] for kind, numbers in found.items()}
    return {**losses, ALL_TEXTS: sum(losses[kind] * found[kind]["tokens"] for kind in found) / tokens}


def _answers(demo: DemoConfig, data: Path, checkpoint: Path) -> dict[str, Any]:
    """Accuracies on the held-out questions, with the images and with blank ones."""
    summary = summarize(*answered(demo, data, checkpoint), {})
    return {key: summary[key] for key in ("accuracy", "blind_accuracy", "questions", "per_task")}


def _print_table(report: dict[str, Any], workdir: Path) -> None:
    head, *rows = table_rows(report)
    table = Table(title="the variants on the same records and steps")
    for column in head:
        table.add_column(column, justify="left" if column == head[0] else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=112).print(table)
    charts = ", ".join(str(workdir / name) for name in (REPORT, TABLE, *CHARTS))
    print(f"see {charts}")
