"""How far training has moved the weights of each arm: as `launch.compare` measures it (docs/compare.md)."""

from pathlib import Path
from typing import Any

from eve_jax.checkpoint.named_step import find_checkpoint
from eve_jax.compare.draw import draw
from eve_jax.compare.weights import compared_weights
from eve_jax.experiments.config import ExperimentConfig
from eve_jax.process.paths import expand, fetch
from eve_jax.weights.open import Checkpoint, open_checkpoint, stored_source


def weight_changes(experiment: ExperimentConfig, workdir: Path) -> dict[str, Any]:
    """Return {"base", "arms": {label: changes}} of every arm's last stage of seed 0; {} where nothing is compared.

    Changes are those of `eve_jax.compare.weights.compared_weights` without single weights. Raises UserError.
    """
    name = experiment.weights
    if not name:
        return {}
    base = workdir / name if (workdir / name).is_dir() else find_checkpoint(expand(name, "weights", fetch))
    before = _source(open_checkpoint(base))
    ends = {point.arm: point.scored for point in experiment.points if point.seed == 0 and not point.step}
    arms = {}
    for arm, stage in ends.items():
        label = experiment.labels[arm]
        found = compared_weights(before, _source(open_checkpoint(workdir / stage)), label)
        for changes in found["groups"].values():
            changes.pop("each")
        arms[label] = found
    return {"base": name, "arms": arms}


def _source(model: Checkpoint) -> Any:
    """What the folder itself holds, of a plain LLM without the patch embedding that is made for it."""
    if model.source is None:
        return stored_source(model.folder, model.step)
    return getattr(model.source, "source", model.source)


def draw_weights(weights: dict[str, Any], path: Path) -> Path:
    """Draw the changes by layer and by kind of weight, rows of bars as in Fig. 2 of the EVEv2 paper; return `path`."""
    report = {"checkpoints": [{"name": weights["base"]}], "weights": weights["arms"]}
    draw(report, [None], path)
    return path


def weight_rows(weights: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return a table of the relative changes by kind of weight: its head, a row for each arm and group."""
    groups = [(label, name, own) for label, found in weights["arms"].items() for name, own in found["groups"].items()]
    kinds = list(dict.fromkeys(kind for _, _, own in groups for kind in own["by_kind"]))
    rows = []
    for label, name, own in groups:
        changes = (own["by_kind"].get(kind) for kind in kinds)
        rows.append([label, name, *("-" if one is None else _percent(one["relative"]) for one in changes)])
    return [f"change against {weights['base']} (%)", "weights", *kinds], rows


def _percent(relative: float | None) -> str:
    return "-" if relative is None else f"{100 * relative:.2g}"
