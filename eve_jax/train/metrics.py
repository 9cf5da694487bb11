"""What a metric of training is, and the lines of metrics.jsonl.

A metric is a key of the step's dict: what `eve_jax.train.step` or `StageData.counts` returns under a new name is
written to metrics.jsonl and charted by the other writers. `KNOWN` says what else there is to say of one. What is
evaluated after a step has a line of its own, after that of the step: the step and names that begin with `eval/`.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eve_jax.config.evaluation import PREFIX
from eve_jax.errors import UserError
from eve_jax.process.files import refuse_pipe, write_atomically
from eve_jax.process.named import describe_error, load_named

METRICS = "metrics.jsonl"
LOST = "metrics.damaged.jsonl"  # lines of steps that a damaged checkpoint has lost
TIMED = ("seconds", "tokens_per_s", "mfu")  # fields of a line that follow the clock
HIDDEN = ("patches", "pairs", "samples_with_targets")  # keys of the step's dict that others are computed from
FIELD = "config.train.metrics"


class StepView(NamedTuple):
    """What a metric may look at, on the device, after a step's gradient: all by parameter name but `metrics`.

    trainable: weights before the update, [shape] each. grads: mean gradient. updates: what is added to the weights.
    metrics: scalars of the step so far (loss, lr, grad_norm ...).
    """

    trainable: dict[str, jax.Array]
    grads: dict[str, jax.Array]
    updates: dict[str, jax.Array]
    metrics: dict[str, jax.Array]


class Metric(NamedTuple):
    """A metric: its name, and where it is to be seen next to metrics.jsonl.

    value: how a metric of the user's own is computed on the device, a scalar; None for the package's, which are keys of
    the step's dict. charted: in TensorBoard and the like. panel: title of its panel in report.png, "" for none. noisy:
    the panel has a running mean. always: every line has it, null where the step's dict lacks it.
    """

    name: str
    value: Callable[[StepView], jax.Array] | None = None
    charted: bool = True
    panel: str = ""
    noisy: bool = True
    always: bool = False


KNOWN: dict[str, Metric] = {
    metric.name: metric._replace(always=True)
    for metric in (
        Metric("step", charted=False),
        Metric("loss", panel="loss (nats a target)"),
        Metric("lr", panel="learning rate", noisy=False),
        Metric("grad_norm", panel="gradient norm"),
        Metric("tokens", charted=False),
        Metric("vision_tokens", charted=False),
        Metric("targets", charted=False),
        Metric("samples", charted=False),
        Metric("broken", charted=False),
        Metric("rows", charted=False),
        Metric("seconds"),
        Metric("tokens_per_s", panel="tokens a second"),
        Metric("flops", charted=False),
        Metric("mfu"),
    )
}
FIELDS = tuple(KNOWN)  # of every line, in order; others of the step's dict follow


def charted(name: str) -> bool:
    """Whether the metric `name` is one for charts."""
    return name not in KNOWN or KNOWN[name].charted


def load_metrics(names: str) -> tuple[Metric, ...]:
    """Return the metrics that `config.train.metrics` names, `module:NAME` with commas, and enter them into KNOWN.

    Raises UserError for one that is missing, no `Metric` with a value, or has the name of another.
    """
    found: dict[str, Metric] = {}
    for text in filter(None, map(str.strip, names.split(","))):
        metric = load_named(text, FIELD)
        if not isinstance(metric, Metric) or metric.value is None:
            raise UserError(f"{FIELD}: {text} is no eve_jax.train.metrics.Metric with a value")
        if metric.name in (*FIELDS, *HIDDEN, *found):
            raise UserError(f"{FIELD}: {text}: there is a metric {metric.name} already; choose another name")
        if metric.name.startswith(PREFIX):
            raise UserError(f"{FIELD}: {text}: names that begin with {PREFIX} are those of evaluations; choose another")
        found[metric.name] = metric
    KNOWN.update(found)
    return tuple(found.values())


def measure(metrics: tuple[Metric, ...], view: StepView) -> dict[str, jax.Array]:
    """Return the values of the user's own metrics, float32 scalars by name. Raises UserError naming one that fails."""
    values = {}
    for metric in metrics:
        assert metric.value is not None
        try:
            value = jnp.asarray(metric.value(view), jnp.float32)
        except Exception as error:
            raise UserError(f"{FIELD}: the metric {metric.name} failed: {describe_error(error)}") from error
        if metric.name in view.metrics or value.shape:
            wrong = f"has the shape {value.shape}, not that of a scalar" if value.shape else "is there already"
            raise UserError(f"{FIELD}: the metric {metric.name} {wrong}")
        values[metric.name] = value
    return values


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the line of every step in a stage folder's metrics.jsonl, without those of evaluations."""
    return [line for line in read_lines(folder / METRICS) if not is_evaluation(line)]


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Return the line of every evaluation in a stage folder's metrics.jsonl, in order."""
    return [line for line in read_lines(folder / METRICS) if is_evaluation(line)]


def is_evaluation(line: Mapping[str, Any]) -> bool:
    """Whether a line of metrics.jsonl is that of an evaluation: the lines of steps have a loss, if null."""
    return "loss" not in line and any(name.startswith(PREFIX) for name in line)


def evaluated_names(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of all that the lines of evaluations hold, in order."""
    return list(dict.fromkeys(name for line in lines for name in line if name.startswith(PREFIX)))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return every whole line of the file metrics.jsonl; what a kill cut off or damage left is left out.

    Raises UserError for a pipe.
    """
    lines: list[dict[str, Any]] = []
    refuse_pipe(path)
    for text in path.read_bytes().split(b"\n") if path.is_file() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


def drop_lines_after(folder: Path, step: int, keep_lost: bool = False) -> None:
    """Drop the lines after `step`, which a resumed run writes again; all of them for -1; atomic.

    With `keep_lost` they are put at the end of LOST first: what damage has lost is more than a moment's work. Raises
    UserError where that cannot be written; the file is then as it was.
    """
    path = folder / METRICS
    lines = read_lines(path)
    kept, lost = ("".join(json.dumps(m) + "\n" for m in lines if (m["step"] > step) == late) for late in (False, True))
    if path.is_file() and path.read_bytes() == kept.encode():
        return
    try:
        if keep_lost and lost:
            with (folder / LOST).open("a") as file:
                file.write(lost)
        write_atomically(path, kept)
    except OSError as error:
        whole = f"; checkpoint {step} is whole" if step > 0 else ""
        raise UserError(f"{path} cannot be written: {error.strerror}{whole}") from error
