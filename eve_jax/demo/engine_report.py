"""The end of the engine's demo: how right the captions are, and what students of each set of captions answer."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from eve_jax.data.sources.records import open_records
from eve_jax.demo.config import DemoConfig, RecipeConfig
from eve_jax.demo.engine import CURATED, WEB
from eve_jax.demo.engine_figure import draw_engine
from eve_jax.demo.finish import FIT
from eve_jax.demo.loop_config import RAW, RECAPTIONED, SETS, LoopConfig
from eve_jax.demo.report import HELD_OUT_LOSS, stage_summary, write_report
from eve_jax.demo.settings import DemoSettings
from eve_jax.demo.variants_report import markdown
from eve_jax.demo.vocabulary import Vocabulary
from eve_jax.demo.web import read_truth
from eve_jax.errors import UserError
from eve_jax.eval.live import items_of, open_task, outcome_of, shortened
from eve_jax.infer.api import EVE
from eve_jax.process.files import read_json, write_json
from eve_jax.train.metrics import read_evaluations

REPORT, TABLE, CHART, ANSWERS = "engine_demo.json", "engine_demo.md", "engine_demo.png", "answers"
ALL = "all"


def compare_captions(config: RecipeConfig, workdir: Path) -> dict[str, Any]:
    """Write engine_demo.json, its table and image into `workdir`, print the table, and return the report.

    `config` is that of configs/engine_demo.py, whose stages are all trained.
    """
    assert config.demo is not None and config.loop is not None
    loop = config.loop
    answering = {name: loop.runs(name, loop.stages[1]) for name in loop.sets}
    scores = {name: [scores_of(config.demo, workdir, run) for run in runs] for name, runs in answering.items()}
    report = {
        "captions": caption_quality(config.demo.dataset, loop.sets, workdir),
        "accuracy": {name: _by_task(found) for name, found in scores.items()},
        "unseen_loss": {name: unseen_losses(loop, workdir, name) for name in loop.sets},
        "students": {
            run: stage_summary(workdir / run)
            for name in loop.sets
            for stage in loop.stages
            for run in loop.runs(name, stage)
        },
        "differences": differences({name: [one[ALL] for one in found] for name, found in scores.items()}),
        "verdict": verdicts({name: [one[ALL] for one in found] for name, found in scores.items()}),
    }
    write_report(report, workdir / REPORT)
    draw_engine(report, workdir / CHART)
    rows = table_rows(report)
    (workdir / TABLE).write_text(markdown(rows) + "".join(f"\n{line}\n" for line in report["verdict"].values()))
    _print(rows, report, workdir)
    return report


def scores_of(demo: DemoConfig, workdir: Path, name: str) -> dict[str, float]:
    """Return the accuracy of the stage `name` on the held-out questions, of all and by task; asked once, then kept."""
    kept = workdir / ANSWERS / f"{name}.json"
    if not kept.is_file():
        opened = open_task(str(workdir / "data" / "heldout.jsonl"), images=workdir / "data" / "images")
        task, items = shortened(opened.task, demo.max_new_tokens), items_of(opened)
        print(f"{name} answers {len(items)} held-out questions", flush=True)
        outcome = outcome_of(EVE.from_pretrained(workdir / name, FIT), task, items, demo.answer_batch)
        for one in outcome.failed:
            raise UserError(f"a held-out question has no answer: {one.error}")
        lines = [
            {"id": item.id, "task": item.row["category"], "given": one.answer, "score": one.verdict.score}
            for item, one in zip(outcome.items, outcome.answered, strict=True)
            if one.verdict is not None
        ]
        kept.parent.mkdir(exist_ok=True)
        write_json(kept, {"answers": lines}, indent=1, sort_keys=False)
    lines = read_json(kept)["answers"]
    tasks = dict.fromkeys(line["task"] for line in lines)
    by_task = {task: mean(line["score"] > 0 for line in lines if line["task"] == task) for task in tasks}
    return {ALL: mean(line["score"] > 0 for line in lines), **by_task}


def caption_quality(settings: DemoSettings, sets: Sequence[str], workdir: Path) -> dict[str, Any]:
    """Return of each set of captions how many there are, and how far they agree with what the images show."""
    truths, vocabulary = read_truth(workdir / WEB), Vocabulary(settings)
    places = {name: workdir / (f"{CURATED}/records" if name == RAW else name) for name in sets}
    texts = {name: {r.id: r.turns[-1].text for r in open_records(str(place))} for name, place in places.items()}
    found = {}
    for name, own in texts.items():
        agreement = vocabulary.agreement(own, truths, [one for one in own if one in truths])
        found[name] = {"count": len(own), **{key: round(value, 4) for key, value in agreement._asdict().items()}}
    return found


def unseen_losses(loop: LoopConfig, workdir: Path, captions: str) -> dict[str, list[Any]]:
    """Return the loss on right captions of unseen compositions while students of a set are trained: steps, and the
    losses of each seed."""
    lines = [read_evaluations(workdir / run) for run in loop.runs(captions, loop.stages[0])]
    steps = [line["step"] for line in lines[0] if HELD_OUT_LOSS in line]
    return {"steps": steps, "losses": [[one[HELD_OUT_LOSS] for one in own if HELD_OUT_LOSS in one] for own in lines]}


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of two or more values."""
    return stdev(values) / math.sqrt(len(values))


def differences(scores: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Return how far the last set is ahead of each other one, seed by seed: students of a seed begin with the same
    weights and see images in the same order. mean, error: of these differences. scores: accuracies by seed.
    """
    best, found = _last(scores), {}
    for name, values in scores.items():
        if name != best:
            ahead = [one - other for one, other in zip(scores[best], values, strict=True)]
            found[name] = {"mean": mean(ahead), "error": standard_error(ahead), "seeds": ahead}
    return found


def _last(scores: Mapping[str, Sequence[float]]) -> str:
    """Return the set that the others are compared with."""
    return RECAPTIONED if RECAPTIONED in scores else list(scores)[-1]


def verdicts(scores: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Return a sentence for each set other than the last about how the last compares with it; accuracies by seed."""
    best, pairs, said = _last(scores), differences(scores), {}
    for name, values in scores.items():
        if name != best:
            gain = mean(scores[best]) - mean(values)
            error = math.hypot(standard_error(scores[best]), standard_error(values))
            size = "more than" if abs(gain) > 2 * error else "within"
            side = f"{points(gain)} above" if gain > 0 else f"{points(-gain)} below" if gain < 0 else "level with"
            pair = pairs[name]
            said[name] = (
                f"{best} is {side} {name}, {size} two standard errors of the difference ({points(error)}) over "
                f"{len(values)} seeds; seed by seed {', '.join(f'{100 * one:+.1f}' for one in pair['seeds'])}: "
                f"{100 * pair['mean']:+.1f} \N{PLUS-MINUS SIGN} {points(pair['error'])}."
            )
    return said


def points(share: float) -> str:
    """Return a difference of accuracies in words."""
    return f"{100 * share:.1f} points"


def _by_task(found: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {
        task: {
            "mean": mean(one[task] for one in found),
            "error": standard_error([one[task] for one in found]),
            "seeds": [one[task] for one in found],
        }
        for task in found[0]
    }


def table_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Return the table as texts, its head first."""
    head = ["captions", "records", "name what is there", "named is there", "quite right", "unseen captions, nats"]
    head += ["questions right", "by seed"]
    rows = [head]
    for name, quality in report["captions"].items():
        last = [own[-1] for own in report["unseen_loss"][name]["losses"]]
        scored = report["accuracy"][name][ALL]
        rows.append(
            [
                f"{name}: {SETS[name]}",
                f"{quality['count']:,}",
                *(f"{quality[key]:.1%}" for key in ("recall", "precision", "exact")),
                f"{mean(last):.3f} \N{PLUS-MINUS SIGN} {standard_error(last):.3f}",
                f"{scored['mean']:.1%} \N{PLUS-MINUS SIGN} {scored['error']:.1%}",
                ", ".join(f"{one:.1%}" for one in scored["seeds"]),
            ]
        )
    return rows


def _print(rows: list[list[str]], report: Mapping[str, Any], workdir: Path) -> None:
    table = Table(title="students of each set of captions: the same images, steps and questions")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == rows[0][0] else "right")
    for row in rows[1:]:
        table.add_row(*row)
    Console(width=140).print(table)
    print("\n".join(report["verdict"].values()))
    print(f"see {', '.join(str(workdir / name) for name in (REPORT, TABLE, CHART))}")
