"""What the demo reports: numbers in `report.json`, a sheet of held-out images, and the curves of the stages.

Nothing here runs a model: the answers come in as outcomes of the task that the held-out questions are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from eve_jax.data.image.patches import open_image
from eve_jax.demo.assets import plain_font, text_font
from eve_jax.demo.questions import TASKS
from eve_jax.errors import UserError
from eve_jax.eval.outcome import Answered, Outcome
from eve_jax.train.metrics import METRICS, read_evaluations, read_metrics
from eve_jax.train.report import column, smooth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

StrPath = str | os.PathLike[str]
TITLES = {
    "position": "what is where",
    "count": "how many",
    "kind": "which animal, food ...",
    "color": "color of a sign",
    "read": "word on a sign",
    "two_images": "two images",
}
CREDIT = "Images composed from OpenMoji (openmoji.org, CC BY-SA 4.0)"
_PAPER, _CARD, _LINE = (246, 246, 248), (255, 255, 255), (224, 225, 230)
_INK, _SOFT, _RIGHT, _WRONG, _BLIND = (30, 32, 38), (110, 114, 124), (22, 138, 72), (206, 44, 50), (178, 182, 192)
_COLUMN, _GAP, _IMAGE, _CARD_HEIGHT, _TOP = 274, 14, 168, 262, 226
_BARS = 96  # pixels from a column's edge to its bars: their labels stand before them
HELD_OUT_LOSS = "eval/loss"
_LAST = 10  # steps over which the last loss is a mean


def stage_summary(folder: Path) -> dict[str, float]:
    """`first_loss` (of the first step with one), `last_loss` (mean of the last ten), `steps` and `seconds` of a stage.

    `folder` is the stage's; `seconds` is the sum over its steps. Raises UserError for one that has taken no step.
    """
    rows = read_metrics(folder)
    if not rows:
        raise UserError(f"{folder / METRICS} holds no step: remove the stage's folder and run it again")
    losses = column(rows, "loss")
    losses = losses[np.isfinite(losses)]  # null: a step that was skipped
    return {
        "first_loss": float(losses[0]),
        "last_loss": float(np.mean(losses[-_LAST:])),
        "steps": len(rows),
        "seconds": round(sum(row.get("seconds", 0.0) for row in rows), 2),
    }


def summarize(outcome: Outcome, blind_outcome: Outcome, stages: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The contents of report.json.

    `outcome` and `blind_outcome` are those of the questions of heldout.jsonl, with the images and with blank ones;
    `stages` maps a stage's name to its `stage_summary`. Accuracies are shares in [0, 1]. Raises `UserError` for a
    question without a verdict, and if the questions differ.
    """
    for one in (*outcome.failed, *blind_outcome.failed):
        raise UserError(f"a held-out question has no answer: {one.error}")
    heldout = [item.row for item in outcome.items]
    if [item.id for item in blind_outcome.items] != [item.id for item in outcome.items]:
        numbers = f"{len(heldout)} questions, {len(blind_outcome.items)} with blank images"
        raise UserError(f"the held-out questions do not match: {numbers}; ask each once")
    right, blind = ([verdict.score > 0 for verdict in one.scored[1]] for one in (outcome, blind_outcome))
    per_task = {}
    for task in dict.fromkeys(record["category"] for record in heldout):
        rows = [i for i, record in enumerate(heldout) if record["category"] == task]
        per_task[task] = {
            "n": len(rows),
            "accuracy": _share([right[i] for i in rows]),
            "blind_accuracy": _share([blind[i] for i in rows]),
        }
    return {
        "accuracy": _share(right),
        "blind_accuracy": _share(blind),
        "questions": len(heldout),
        "kinds": len({kind for record in heldout for kind in record["kinds"]}),
        "words": len({word for record in heldout for word in record["words"]}),
        "per_task": per_task,
        "stages": {name: dict(stage) for name, stage in stages.items()},
    }


def write_report(report: Mapping[str, Any], path: StrPath) -> None:
    """Write the report as JSON."""
    Path(path).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def draw_report(report: Mapping[str, Any], outcome: Outcome, path: StrPath, rows: int = 3) -> None:
    """Draw report.png: a column a kind of question, with its accuracy and the first `rows` held-out ones of it.

    `report` is what `summarize` returned for `outcome`. Nothing is picked: the questions shown are the first of the
    file.
    """
    tasks = [task for task in TASKS if task in report["per_task"]]
    width = len(tasks) * (_COLUMN + _GAP) + _GAP
    sheet = Image.new("RGB", (width, _TOP + rows * (_CARD_HEIGHT + _GAP) + 30), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP + 4, 18), "Held-out questions", font=text_font(28), fill=_INK)
    headline = f"accuracy {report['accuracy']:.0%}, with a blank image {report['blind_accuracy']:.0%}"
    detail = f"{report['questions']} questions about unseen compositions of {report['kinds']} kinds, "
    pen.text((_GAP + 4, 58), headline, font=text_font(19), fill=_RIGHT)
    pen.text((_GAP + 4, 88), f"{detail}{report['words']} words on signs", font=plain_font(15), fill=_SOFT)
    for number, task in enumerate(tasks):
        x = _GAP + number * (_COLUMN + _GAP)
        _draw_bars(pen, x, 124, TITLES[task], report["per_task"][task])
        shown = [i for i, item in enumerate(outcome.items) if item.row["category"] == task][:rows]
        for row, i in enumerate(shown):
            y, item = _TOP + row * (_CARD_HEIGHT + _GAP), outcome.items[i]
            _draw_card(sheet, (x, y), item.row, [open_image(image) for image in item.images], outcome.answered[i])
    pen.text((_GAP + 4, sheet.height - 26), CREDIT, font=plain_font(12), fill=_SOFT)
    sheet.save(path)


def draw_losses(folders: Mapping[str, Path], path: StrPath) -> None:
    """Draw losses.png, the `losses_figure` of the stages in `folders`: name -> folder, in order."""
    losses_figure(folders).savefig(path, dpi=130)


def losses_figure(folders: Mapping[str, Path]) -> Figure:
    """Return a panel a stage with its loss by step, thin as it is and thick smoothed, and the held-out loss.

    A last panel shows the accuracy of the stages that were asked questions while they trained.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    evaluated = {name: read_evaluations(folder) for name, folder in folders.items()}
    asked = {name: lines for name, lines in evaluated.items() if any(map(scores_in, lines))}
    count = len(folders) + bool(asked)
    figure = Figure(figsize=(3.1 * count, 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, count, squeeze=False)[0]
    for panel, (name, folder) in zip(panels, folders.items(), strict=False):
        summary, rows = stage_summary(folder), read_metrics(folder)
        steps = [row["step"] for row in rows]
        losses = column(rows, "loss")
        panel.plot(steps, losses, color="#b9c6e4", linewidth=0.8)
        panel.plot(steps, smooth(losses), color="#2450a8", linewidth=1.8)
        if any(HELD_OUT_LOSS in line for line in evaluated[name]):
            held_out = column(evaluated[name], "step"), column(evaluated[name], HELD_OUT_LOSS)
            panel.plot(*held_out, color="#c8553d", marker="o", markersize=3, label="held out")
            panel.legend(fontsize=8, frameon=False)
        _label(panel, f"{name}: {summary['first_loss']:.2f} to {summary['last_loss']:.2f}")
    for name, lines in asked.items():
        values = [next(iter(scores_in(line)), np.nan) for line in lines]
        panels[-1].plot(column(lines, "step"), values, marker="o", markersize=3, label=name)
    if asked:
        panels[-1].legend(fontsize=8, frameon=False)
        _label(panels[-1], "accuracy on held-out questions, %")  # once, when all is drawn: it fixes the axis
    panels[0].set_ylabel("loss (nats a target)", fontsize=9)
    return figure


def scores_in(line: Mapping[str, Any]) -> list[float]:
    """Return the scores in the line of an evaluation, of own questions in percent."""
    return [value for name, value in line.items() if name.endswith(".own") and value is not None]


def _label(panel: Any, title: str) -> None:
    panel.set_title(title, fontsize=10)
    panel.set_xlabel("step", fontsize=9)
    panel.locator_params(axis="x", integer=True)
    panel.set_ylim(bottom=0)
    panel.grid(color="#ececf0")
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)


def draw_examples(heldout: Sequence[Mapping[str, Any]], images: StrPath, path: StrPath) -> None:
    """Draw a sheet of held-out images with questions and expected answers, six a row."""
    rows = -(-len(heldout) // 6)
    sheet = Image.new("RGB", (6 * (_COLUMN + _GAP) + _GAP, rows * (_CARD_HEIGHT + _GAP) + _GAP + 24), _PAPER)
    for i, record in enumerate(heldout):
        x, y = _GAP + i % 6 * (_COLUMN + _GAP), _GAP + i // 6 * (_CARD_HEIGHT + _GAP)
        paths = [record["image"]] if isinstance(record["image"], str) else record["image"]
        _draw_card(sheet, (x, y), record, [open_image(Path(images, path)) for path in paths])
    ImageDraw.Draw(sheet).text((_GAP + 4, sheet.height - 26), CREDIT, font=plain_font(12), fill=_SOFT)
    sheet.save(path)


def _share(flags: Sequence[bool]) -> float:
    return round(sum(flags) / len(flags), 4) if flags else 0.0


def _draw_bars(pen: ImageDraw.ImageDraw, x: int, y: int, title: str, scores: Mapping[str, float]) -> None:
    pen.text((x + 4, y), title, font=text_font(16), fill=_INK)
    for row, (name, value, color) in enumerate(
        (("answered", scores["accuracy"], _RIGHT), ("blank image", scores["blind_accuracy"], _BLIND))
    ):
        top, left, right = y + 30 + row * 26, x + _BARS, x + _COLUMN - 58
        pen.text((x + 4, top + 8), name, font=plain_font(13), fill=_SOFT, anchor="lm")
        pen.rounded_rectangle((left, top, right, top + 16), radius=4, fill=_LINE)
        if value > 0:
            pen.rounded_rectangle((left, top, left + max(8, round(value * (right - left))), top + 16), 4, fill=color)
        pen.text((x + _COLUMN - 4, top + 8), f"{value:.0%}", font=text_font(14), fill=_INK, anchor="rm")


def _draw_card(
    sheet: Image.Image,
    corner: tuple[int, int],
    record: Mapping[str, Any],
    images: Sequence[Image.Image],
    given: Answered | None = None,
) -> None:
    """One question: its image(s), its wording, the answer given (green or red) and, if that differs, expected."""
    x, y = corner
    pen = ImageDraw.Draw(sheet)
    pen.rounded_rectangle((x, y, x + _COLUMN, y + _CARD_HEIGHT), radius=10, fill=_CARD, outline=_LINE)
    room = (_COLUMN - 16 - 8 * (len(images) - 1)) // len(images)
    for i, image in enumerate(images):
        scale = min(room / image.width, _IMAGE / image.height, 1.5)
        size = (round(image.width * scale), round(image.height * scale))
        left = x + 8 + i * (room + 8) + (room - size[0]) // 2
        sheet.paste(image.resize(size, Image.Resampling.LANCZOS), (left, y + 8 + (_IMAGE - size[1]) // 2))
    pen.text((x + 12, y + 190), record["question"], font=_fitting(record["question"]), fill=_INK)
    if given is None:
        pen.text((x + 12, y + 214), record["answer"], font=text_font(17), fill=_RIGHT)
        return
    right = given.verdict is not None and given.verdict.score > 0
    text = (given.answer or "").strip() or "(nothing)"
    mark = "\N{CHECK MARK}" if right else "\N{BALLOT X}"
    pen.text((x + 12, y + 214), f"{mark} {text[:24]}", font=text_font(17), fill=_RIGHT if right else _WRONG)
    if not right:
        pen.text((x + 12, y + 238), f"expected: {record['answer']}", font=plain_font(13), fill=_SOFT)


def _fitting(text: str) -> Any:
    """The largest font that writes the text across a card."""
    fonts = (plain_font(size) for size in (14, 13, 12, 11))
    return next((font for font in fonts if font.getlength(text) <= _COLUMN - 22), plain_font(10))
