"""Some of the lines of a rejected.jsonl, a few for each rule."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eve_jax.curate.report.content import Loss, spread

Line = Mapping[str, Any]


def picked_lines(path: Path, losses: Sequence[Loss], most: Mapping[str, int], others: int) -> dict[Loss, list[Line]]:
    """Return lines of the file `path` for each of `losses`, at equal distances.

    most: how many lines of a rule at most, by its name; others: of every other rule.
    """
    wanted = {(loss.stage, loss.rule): {*spread(loss.count, most.get(loss.rule, others))} for loss in losses}
    seen = dict.fromkeys(wanted, 0)
    found: dict[tuple[str, str], list[Line]] = {key: [] for key in wanted}
    with path.open(encoding="utf-8") as lines:
        for text in lines:
            line = json.loads(text)
            key = line["stage"], line["rule"]
            if key in wanted:
                if seen[key] in wanted[key]:
                    found[key].append(line)
                seen[key] += 1
    return {loss: found[loss.stage, loss.rule] for loss in losses}
