"""The end of the comparison of variants: what each has learned, what language it forgot, how far its weights moved."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

from eve_jax.demo.compose import TrainingComposer
from eve_jax.demo.config import DemoConfig, RecipeConfig
from eve_jax.demo.dataset import Record, read_records, record_of, text_record
from eve_jax.demo.evaluate import FIT, answer_all
from eve_jax.demo.language import document, text_dialogue
from eve_jax.demo.report import grey, stage_summary, summarise, write_report
from eve_jax.demo.settings import DemoSettings
from eve_jax.demo.variants_report import draw_changes, draw_curves, draw_table, markdown, table_rows
from eve_jax.infer.api import EVE
from eve_jax.infer.score_files import score_files
from eve_jax.train.metrics import METRICS
from eve_jax.weights.changes import weight_changes
from eve_jax.weights.open import stored_source

REPORT, TABLE = "variants.json", "variants.md"
PICTURES = ("variants.png", "losses.png", "weights.png")
PAPER_NAMES = {"dense": "EVEv1.0", "rep": "EVEv1.2", "moe": "EVEv1.5", "dac": "EVEv2.0"}
TEXTS = {"documents": "plain", "chats": "qwen2"}  # file of held-out texts -> template
ALL_TEXTS = "all"
_ROW_TOKENS = 1024  # of packed rows of texts


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
            **_answers(config.demo, workdir / "data", stages[names[-1]], variant),
            "text_loss": {s: text_losses(folder, texts, folder.name) for s, folder in stages.items()},
            "stages": {s: stage_summary(folder / METRICS) for s, folder in stages.items()},
            "parameters": sum(math.prod(shape.shape) for shape in trained.shapes.values()),
            "weight_change": weight_changes(stored_source(llm), trained),
        }
    write_report(report, workdir / REPORT)
    table, curves, changes = (workdir / name for name in PICTURES)
    draw_table(report, table)
    draw_curves(folders, curves)
    draw_changes(report, changes)
    (workdir / TABLE).write_text(markdown(table_rows(report)))
    _print_table(report, workdir)
    return report


def write_texts(workdir: Path, settings: DemoSettings, seed: int, number: int) -> dict[str, Path]:
    """Write `number` documents and `number` chats like those that trained the LLM, none of which did; return the files.

    `workdir` holds the dataset `data` of the same settings; the files are `texts/documents.jsonl` and `chats.jsonl`.
    """
    composer = TrainingComposer(settings, Random(f"{seed} held-out texts"))
    makers: dict[str, tuple[str, Callable[[str], Record]]] = {
        "documents": ("llm", lambda name: text_record(name, document(composer))),
        "chats": ("llm_chat", lambda name: record_of(name, [], text_dialogue(composer))),
    }
    files = {}
    (workdir / "texts").mkdir(exist_ok=True)
    for kind, (learnt, make) in makers.items():
        seen = {_text(record) for record in read_records(workdir / "data" / f"{learnt}.jsonl")}
        new: dict[str, Record] = {}
        while len(new) < number:
            record = make(f"{kind}-{len(new):05d}")
            if _text(record) not in seen:
                new[_text(record)] = record
        files[kind] = workdir / "texts" / f"{kind}.jsonl"
        files[kind].write_text("".join(json.dumps(record) + "\n" for record in new.values()))
    return files


def _text(record: Record) -> str:
    return json.dumps(record["conversations"])


def text_losses(checkpoint: Path, texts: Mapping[str, Path], label: str) -> dict[str, float]:
    """Mean loss a target of each file of texts, and of all of them together."""
    print(f"text-only loss of {label}", flush=True)
    total, targets, losses = 0.0, 0, {}
    for kind, file in texts.items():
        out = file.with_name(f"{kind}_{checkpoint.name}.jsonl")
        scores = score_files(checkpoint, str(file), "", out, template=TEXTS[kind], row_tokens=_ROW_TOKENS)
        losses[kind] = scores.loss
        total += sum(line.nll_sum for line in scores.lines)
        targets += sum(line.n_target for line in scores.lines)
    return {**losses, ALL_TEXTS: total / targets}


def _answers(demo: DemoConfig, data: Path, checkpoint: Path, variant: str) -> dict[str, Any]:
    """Accuracies on the held-out questions, with the images and with blank ones."""
    heldout = read_records(data / "heldout.jsonl")
    eve = EVE.from_pretrained(checkpoint, FIT)
    settings = (demo.answer_batch, demo.max_new_tokens)
    answers = answer_all(eve, heldout, data / "images", lambda image: image, *settings, f"{variant} answers")
    blind = answer_all(eve, heldout, data / "images", grey, *settings, f"{variant} with blank images")
    summary = summarise(heldout, answers, blind, {})
    return {key: summary[key] for key in ("accuracy", "blind_accuracy", "questions", "per_task")}


def _print_table(report: dict[str, Any], workdir: Path) -> None:
    head, *rows = table_rows(report)
    table = Table(title="the variants on the same records and steps")
    for column in head:
        table.add_column(column, justify="left" if column == head[0] else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=112).print(table)
    pictures = ", ".join(str(workdir / name) for name in (REPORT, TABLE, *PICTURES))
    print(f"see {pictures}")
