"""An experiment of two arms whose points nobody trained: stage folders with metrics, and scores."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.experiments.config import ExperimentConfig
from eve_jax.experiments.score import FOLDER, VALUES, Values

QUESTIONS, PASSAGES = 24, 6


def section(**changes: Any) -> ExperimentConfig:
    """The section of two arms, two seeds and two points."""
    values = {
        "title": "Two arms",
        "arms": ("old", "new"),
        "labels": {"old": "EVEv1.0 (old)", "new": "EVEv2.0 (new)"},
        "seeds": 2,
        "curve": "captions",
        "steps": (3,),
        "scored": "questions",
        "tasks": "WORKDIR/held.jsonl",
        "data": "",
        "protocol": "eve",
        "images": "",
        "answers": "WORKDIR/held.jsonl",
        "texts": "WORKDIR/text.txt",
        "before": "llm",
        "fit": "",
        "rows": 8,
        "max_new_tokens": 0,
        "mesh": "",
        "chart": "curves",
        "weights": "",
        "paper": {"new": "51.6"},
        "deviations": ("It is small.",),
        "sizes": {"captions": (128, 128, 9, 9)},
    }
    return ExperimentConfig.from_values(values | changes)


def values(seed: int, right: float, loss: float, text: float) -> Values:
    """Values of a stage: an accuracy, a mean loss of answers and of texts, with noise of the seed."""
    random = np.random.default_rng(seed)
    ids = [f"q{n}" for n in range(QUESTIONS)]
    scores = (random.permutation(QUESTIONS) < round(right * QUESTIONS)).astype(float)
    losses = loss + 0.01 * random.standard_normal(QUESTIONS)
    passages = {str(n): (text * (n + 1) * 10, (n + 1) * 10) for n in range(PASSAGES)}
    categories = {id: "read" if n % 2 else "count" for n, id in enumerate(ids)}
    by_id = dict(zip(ids, scores.tolist(), strict=True)), dict(zip(ids, losses.tolist(), strict=True))
    return Values({"held.own": by_id[0]}, {"held.own": categories}, by_id[1], {"text": passages}, {"held.own": "d"})


def write(workdir: Path, experiment: ExperimentConfig) -> None:
    """Write what a recipe would have left before its report."""
    for place, run in enumerate([*experiment.trained, experiment.before]):
        keep(workdir, run, Values(texts=values(0, 0, 0, 2.0 + place / 100).texts))
        lines = [{"step": n + 1, "loss": 3.0 / (n + 1 + place), "samples": 10} for n in range(6)]
        (workdir / run).mkdir()
        (workdir / run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for point in experiment.points:
        new, late = point.arm == "new", not point.step
        keep(workdir, point.scored, values(point.seed, 0.5 + 0.25 * new, 1.0 - 0.5 * new - 0.1 * late, 3.0))


def keep(workdir: Path, name: str, found: Values) -> None:
    """Write the values of a stage."""
    folder = workdir / FOLDER / name
    folder.mkdir(parents=True)
    (folder / VALUES).write_text(json.dumps({"of": {}, "values": asdict(found)}))
