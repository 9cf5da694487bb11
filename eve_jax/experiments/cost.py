"""What a recipe will take before it begins: samples, tokens, FLOPs, hours of chips, minutes of this machine.

FLOPs are those that `launch.compile` counts as useful (`eve_jax.train.flops`): forward and backward of matrix products
and attention, nothing recomputed, of the weights that each kind of token meets and of the groups that train. Samples of
one kind all have the size that the section `experiment` states for it, and rows are FILL full. Scoring is not counted.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from eve_jax.compile.cost import CHIPS, MFU
from eve_jax.config.stage import Config
from eve_jax.config.stages import trainable_names, trained_groups
from eve_jax.data.image.rule import ImageRule
from eve_jax.errors import Field, FieldError, amount, name_fields
from eve_jax.experiments.config import ExperimentConfig
from eve_jax.model.eve import abstract_params
from eve_jax.train.flops import Tokens, peak_flops, step_flops

FILL = 0.97  # of the slots of rows (docs/train.md#packing-efficiency)
# Useful FLOP/s of one core of an AMD EPYC in stages of the demo's size, seconds that a stage takes there to start and
# to compile, and those that a point takes to be scored (docs/experiments.md#sizes).
CORE_FLOPS, START, SCORE = 3.0e10, 35.0, 26.0


@dataclass(frozen=True)
class StageCost:
    """What a stage takes.

    Attributes:
        kind: of the stage (`ExperimentConfig.kind`).
        samples: that it sees.
        tokens: of these, image tokens included.
        flops: of all its steps.
        parameters: of its model.
        trainable: of these, what trains.
    """

    kind: str
    samples: float
    tokens: float
    flops: float
    parameters: int
    trainable: int


def stage_cost(config: Config, kind: str, size: Sequence[int]) -> StageCost:
    """Return what the stage takes, with samples of `size`: width, height, text tokens, targets.

    Raises FieldError for a stage whose number of steps follows from its records.
    """
    if not config.train.steps:
        raise FieldError(Field("train.steps"), "=0: the cost of an experiment is that of its steps; state how many")
    width, height, text, targets = size
    rows, columns = ImageRule.of(config.data).grid(width, height) if width else (0, 0)
    patches, specials = rows * columns, config.sizes.layout.specials_of(rows) if width else 0
    length = patches + specials + text
    slots = config.train.steps * config.data.rows * config.data.micro_batches * config.data.row_tokens
    samples = FILL * slots / length
    pairs = length * (length + 1) / 2
    cfg = config.sizes
    tokens = Tokens(*(samples * each for each in (patches, specials, text, targets, pairs)))
    flops = step_flops(cfg, trained_groups(config.factors), tokens).useful
    shapes, trains = abstract_params(cfg), trainable_names(cfg, config.factors)
    numbers = {name: math.prod(shape.shape) for name, shape in shapes.items()}
    trainable = sum(count for name, count in numbers.items() if name in trains)
    return StageCost(kind, samples, samples * length, flops, sum(numbers.values()), trainable)


def costs(experiment: ExperimentConfig, stages: Sequence[Config]) -> list[StageCost]:
    """Return the cost of every stage. Raises UserError for a kind without a size, and as `stage_cost`."""
    found = []
    for stage in stages:
        kind = experiment.kind(stage.name)
        if kind not in experiment.sizes:
            raise FieldError(Field("experiment.sizes"), f" has no size of the samples of {kind!r}")
        with name_fields(f"config.stages.{stage.name}.{{}}".format):
            found.append(stage_cost(stage, kind, experiment.sizes[kind]))
    return found


def cost_lines(experiment: ExperimentConfig, stages: Sequence[Config]) -> list[str]:
    """Return what all stages together will take, as lines for people."""
    found = costs(experiment, stages)
    flops = sum(one.flops for one in found)
    lines = [
        f"{experiment.title}: {amount(len(experiment.arms), 'arm')}, {amount(experiment.seeds, 'seed')}, "
        f"{amount(len(experiment.points), 'point')}; {amount(len(stages), 'stage')}:",
        *_kind_lines(found),
    ]
    seconds = flops / CORE_FLOPS + START * len(stages) + SCORE * len(experiment.points)
    hours = [f"{chip} {_hours(flops / (MFU * (peak_flops(name) or math.nan)))}" for chip, name in CHIPS.items()]
    samples, tokens = (sum(getattr(one, name) for one in found) for name in ("samples", "tokens"))
    lines.append(f"  in all {_short(samples)} samples, {_short(tokens)} tokens, {flops:.2g} FLOPs")
    lines.append(f"  hours of one chip at {MFU:.0%} of its peak: {', '.join(hours)}; scoring not counted")
    if seconds < 48 * 3600:
        lines.append(f"  on one free core about {seconds / 60:,.0f} minutes, less on two, scoring included")
    return lines


def _kind_lines(found: Sequence[StageCost]) -> Iterator[str]:
    """A line for each kind of stage, of several that differ the smallest and the largest."""
    order = list(dict.fromkeys(one.kind for one in found))
    for kind, group in groupby(sorted(found, key=lambda one: order.index(one.kind)), key=lambda one: one.kind):
        some = list(group)
        names = ("samples", "tokens", "parameters", "trainable")
        samples, tokens, parameters, trainable = (_range([getattr(one, name) for one in some]) for name in names)
        yield (
            f"  {len(some):3} x {kind}: each {samples} samples, {tokens} tokens, {parameters} parameters of which "
            f"{trainable} train; together {sum(one.flops for one in some):.2g} FLOPs"
        )


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}" if hours >= 0.01 else "below 0.01"


def _range(values: Sequence[float]) -> str:
    low, high = _short(min(values)), _short(max(values))
    return low if low == high else f"{low} to {high}"


def _short(value: float) -> str:
    """A number with three digits and its power of a thousand."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
