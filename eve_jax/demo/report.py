"""What the demo reports: numbers in `report.json`, a sheet of held-out images, and the losses of the stages.

Nothing here runs a model: answers come in as texts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from eve_jax.demo.assets import plain_font, text_font
from eve_jax.demo.questions import TASKS
from eve_jax.errors import UserError
from eve_jax.train.report import column, smooth

StrPath = str | os.PathLike[str]
TITLES = {
    "position": "what is where",
    "count": "how many",
    "kind": "which animal, food ...",
    "colour": "color of a sign",
    "read": "word on a sign",
    "two_pictures": "two images",
}
CREDIT = "Images composed from OpenMoji (openmoji.org, CC BY-SA 4.0)"
_PAPER, _CARD, _LINE = (246, 246, 248), (255, 255, 255), (224, 225, 230)
_INK, _SOFT, _RIGHT, _WRONG, _BLIND = (30, 32, 38), (110, 114, 124), (22, 138, 72), (206, 44, 50), (178, 182, 192)
_COLUMN, _GAP, _PICTURE, _CARD_HEIGHT, _TOP = 274, 14, 168, 262, 226
_LAST = 10  # steps over which the last loss is a mean


def grey(image: Image.Image) -> Image.Image:
    """An image of the same size in mid gray: the blank-image baseline."""
    return Image.new("RGB", image.size, (128, 128, 128))


def is_right(expected: str, given: str) -> bool:
    """True if the answers are equal but for case, space around them and a full stop at the end."""

    def plain(text: str) -> str:
        return text.strip().rstrip(".").strip().casefold()

    return plain(expected) == plain(given)


def stage_summary(metrics: StrPath) -> dict[str, float]:
    """`first_loss` (of the first step with one), `last_loss` (mean of the last ten), `steps` and `seconds` of a stage.

    `metrics` is the stage's metrics.jsonl; `seconds` is the sum over its steps.
    """
    rows = _read_metrics(Path(metrics))
    losses = column(rows, "loss")
    losses = losses[np.isfinite(losses)]  # null: a step that was skipped
    return {
        "first_loss": float(losses[0]),
        "last_loss": float(np.mean(losses[-_LAST:])),
        "steps": len(rows),
        "seconds": round(sum(row.get("seconds", 0.0) for row in rows), 2),
    }


def summarise(
    heldout: Sequence[Mapping[str, Any]],
    answers: Sequence[str],
    blind_answers: Sequence[str],
    stages: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """The contents of report.json.

    `heldout` are the records of heldout.jsonl, `answers` and `blind_answers` the answers to them in the same order,
    with the images and with blank ones; `stages` maps a stage's name to its `stage_summary`. Accuracies are shares in
    [0, 1]. Raises `UserError` if the numbers of questions and answers differ.
    """
    if not len(heldout) == len(answers) == len(blind_answers):
        numbers = f"{len(heldout)} questions, {len(answers)} answers, {len(blind_answers)} answers with blank images"
        raise UserError(f"held-out questions and answers do not match: {numbers}; answer every question once")
    right = [is_right(r["answer"], given) for r, given in zip(heldout, answers, strict=True)]
    blind = [is_right(r["answer"], given) for r, given in zip(heldout, blind_answers, strict=True)]
    per_task = {}
    for task in dict.fromkeys(record["task"] for record in heldout):
        rows = [i for i, record in enumerate(heldout) if record["task"] == task]
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


def draw_report(
    report: Mapping[str, Any],
    heldout: Sequence[Mapping[str, Any]],
    answers: Sequence[str],
    images: StrPath,
    path: StrPath,
    rows: int = 3,
) -> None:
    """Draw report.png: a column a task, with its accuracy and the first `rows` held-out questions of it.

    `report` is what `summarise` returned, `images` the folder that image paths are relative to. Nothing is picked: the
    questions shown are the first of the file.
    """
    tasks = [task for task in TASKS if task in report["per_task"]]
    width = len(tasks) * (_COLUMN + _GAP) + _GAP
    sheet = Image.new("RGB", (width, _TOP + rows * (_CARD_HEIGHT + _GAP) + 30), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP + 4, 18), "Held-out questions", font=text_font(28), fill=_INK)
    headline = f"{report['accuracy']:.0%} right, {report['blind_accuracy']:.0%} with a blank image"
    detail = f"{report['questions']} questions about unseen compositions of {report['kinds']} kinds, "
    pen.text((_GAP + 4, 58), headline, font=text_font(19), fill=_RIGHT)
    pen.text((_GAP + 4, 88), f"{detail}{report['words']} words on signs", font=plain_font(15), fill=_SOFT)
    for number, task in enumerate(tasks):
        x = _GAP + number * (_COLUMN + _GAP)
        _draw_bars(pen, x, 124, TITLES[task], report["per_task"][task])
        shown = [i for i, record in enumerate(heldout) if record["task"] == task][:rows]
        for row, i in enumerate(shown):
            y = _TOP + row * (_CARD_HEIGHT + _GAP)
            _draw_card(sheet, x, y, heldout[i], answers[i], Path(images))
    pen.text((_GAP + 4, sheet.height - 26), CREDIT, font=plain_font(12), fill=_SOFT)
    sheet.save(path)


def draw_losses(metrics: Mapping[str, StrPath], path: StrPath) -> None:
    """Draw losses.png: a panel a stage, its loss by step, thin as it is and thick smoothed.

    `metrics` maps a stage's name to its metrics.jsonl, in order.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(metrics), 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for panel, (name, file) in zip(panels, metrics.items(), strict=True):
        rows, summary = _read_metrics(Path(file)), stage_summary(file)
        steps = [row["step"] for row in rows]
        losses = column(rows, "loss")
        panel.plot(steps, losses, color="#b9c6e4", linewidth=0.8)
        panel.plot(steps, smooth(losses), color="#2450a8", linewidth=1.8)
        panel.set_title(f"{name}: {summary['first_loss']:.2f} to {summary['last_loss']:.2f}", fontsize=10)
        panel.set_xlabel("step", fontsize=9)
        panel.set_ylim(bottom=0)
        panel.grid(color="#ececf0")
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    panels[0].set_ylabel("loss (nats a target)", fontsize=9)
    figure.savefig(path, dpi=130)


def draw_examples(heldout: Sequence[Mapping[str, Any]], images: StrPath, path: StrPath) -> None:
    """Draw a sheet of held-out images with questions and expected answers, six a row."""
    rows = -(-len(heldout) // 6)
    sheet = Image.new("RGB", (6 * (_COLUMN + _GAP) + _GAP, rows * (_CARD_HEIGHT + _GAP) + _GAP + 24), _PAPER)
    for i, record in enumerate(heldout):
        x, y = _GAP + i % 6 * (_COLUMN + _GAP), _GAP + i // 6 * (_CARD_HEIGHT + _GAP)
        _draw_card(sheet, x, y, record, None, Path(images))
    ImageDraw.Draw(sheet).text((_GAP + 4, sheet.height - 26), CREDIT, font=plain_font(12), fill=_SOFT)
    sheet.save(path)


def _share(flags: Sequence[bool]) -> float:
    return round(sum(flags) / len(flags), 4) if flags else 0.0


def _read_metrics(path: Path) -> list[dict[str, float]]:
    """The complete lines; one that a kill cut off is left out."""
    rows = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            rows.append(json.loads(line))
    except OSError as error:
        raise UserError(f"cannot read the metrics {path}: {error}") from error
    except ValueError:
        pass
    if not rows:
        raise UserError(f"the metrics {path} hold no step: remove the stage's folder and run it again")
    return rows


def _draw_bars(pen: ImageDraw.ImageDraw, x: int, y: int, title: str, scores: Mapping[str, float]) -> None:
    pen.text((x + 4, y), title, font=text_font(16), fill=_INK)
    for row, (name, value, colour) in enumerate(
        (("answered", scores["accuracy"], _RIGHT), ("blank image", scores["blind_accuracy"], _BLIND))
    ):
        top, left, right = y + 30 + row * 26, x + 78, x + _COLUMN - 50
        pen.text((x + 4, top + 8), name, font=plain_font(13), fill=_SOFT, anchor="lm")
        pen.rounded_rectangle((left, top, right, top + 16), radius=4, fill=_LINE)
        if value > 0:
            pen.rounded_rectangle((left, top, left + max(8, round(value * (right - left))), top + 16), 4, fill=colour)
        pen.text((x + _COLUMN - 4, top + 8), f"{value:.0%}", font=text_font(14), fill=_INK, anchor="rm")


def _draw_card(sheet: Image.Image, x: int, y: int, record: Mapping[str, Any], given: str | None, images: Path) -> None:
    """One question: its image(s), its wording, the answer given (green or red) and, if that differs, expected."""
    pen = ImageDraw.Draw(sheet)
    pen.rounded_rectangle((x, y, x + _COLUMN, y + _CARD_HEIGHT), radius=10, fill=_CARD, outline=_LINE)
    paths = [record["image"]] if isinstance(record["image"], str) else record["image"]
    room = (_COLUMN - 16 - 8 * (len(paths) - 1)) // len(paths)
    for i, name in enumerate(paths):
        with Image.open(images / name) as file:
            picture = file.convert("RGB")
        scale = min(room / picture.width, _PICTURE / picture.height, 1.5)
        size = (round(picture.width * scale), round(picture.height * scale))
        left = x + 8 + i * (room + 8) + (room - size[0]) // 2
        sheet.paste(picture.resize(size, Image.Resampling.LANCZOS), (left, y + 8 + (_PICTURE - size[1]) // 2))
    pen.text((x + 12, y + 190), record["question"], font=_fitting(record["question"]), fill=_INK)
    if given is None:
        pen.text((x + 12, y + 214), record["answer"], font=text_font(17), fill=_RIGHT)
        return
    right = is_right(record["answer"], given)
    text = given.strip() or "(nothing)"
    mark = "\N{CHECK MARK}" if right else "\N{BALLOT X}"
    pen.text((x + 12, y + 214), f"{mark} {text[:24]}", font=text_font(17), fill=_RIGHT if right else _WRONG)
    if not right:
        pen.text((x + 12, y + 238), f"expected: {record['answer']}", font=plain_font(13), fill=_SOFT)


def _fitting(text: str) -> Any:
    """The largest font that writes the text across a card."""
    fonts = (plain_font(size) for size in (14, 13, 12, 11))
    return next((font for font in fonts if font.getlength(text) <= _COLUMN - 22), plain_font(10))
