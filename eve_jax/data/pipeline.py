"""The input pipeline: from a stage's config to the batches of its steps, built ahead by threads.

    config -> records, tokenizer, lengths table, plan -> `StageData`
micro-batch m of the plan -> RowBuilder.build -> batch dict, in order -> the batches of one step
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from eve_jax.data.bad import BadRecords
from eve_jax.data.images import ImageRule
from eve_jax.data.lengths import Lengths, measure
from eve_jax.data.plan import MicroBatch, Plan, build_plan
from eve_jax.data.records import open_records
from eve_jax.data.rows import Batch, RowBuilder
from eve_jax.data.tokenizer import Tokenizer, load_tokenizer
from eve_jax.errors import UserError

PLAN_FOLDER = "plan"


@dataclass(frozen=True, eq=False)
class StageData:
    """All that the training of a stage needs of its data."""

    tokenizer: Tokenizer
    lengths: Lengths
    plan: Plan
    builder: RowBuilder
    bad: BadRecords
    threads: int
    prefetch: int

    def batches(self, start_step: int = 0) -> Iterator[tuple[int, list[Batch]]]:
        """(step, its batches) from `start_step` to the end of the plan, see `loader`."""
        return loader(self.plan, self.builder, start_step, self.threads, self.prefetch)

    def summary(self) -> str:
        """One line for the log."""
        stats = self.plan.stats
        left_out = len(self.lengths.dropped) + len(self.plan.left_out)
        line = (
            f"{stats['samples']:,} samples in {stats['steps']:,} steps of {stats['samples_per_step']:.1f} samples and "
            f"{stats['tokens_per_step']:,.0f} tokens, {stats['vision_share']:.0%} of them vision; "
            f"{stats['fill']:.1%} of the slots filled, {len(self.plan.shapes)} row shapes"
        )
        return f"{line}; {left_out:,} records left out, see {self.bad.path}" if left_out else line


def open_stage_data(config: ConfigDict, folder: str | Path) -> StageData:
    """Measures the records of `config.data`, plans the run and lists in `folder` what had to be left out.

    The lengths table is kept in `folder`/plan, so a run that goes on has the plan it began with, whatever happened
    to its pictures. Raises `UserError` for settings or files that cannot be used.
    """
    d = config.data
    rule = ImageRule(d.image_mode, d.fit, d.max_size, d.max_aspect)
    where = d.tokenizer or config.init
    if not where:
        raise UserError("config.data.tokenizer is empty: name a folder with a tokenizer.json")
    tokenizer = load_tokenizer(where)
    records = open_records(d.records, d.images)
    bad = BadRecords(folder, d.max_bad)
    cache = Path(folder) / PLAN_FOLDER
    lengths = measure(records, tokenizer, rule, d.template, d.image_first, d.max_tokens, cache)
    bad.report_dropped(lengths.dropped)
    plan = build_plan(
        lengths, d.row_tokens, d.max_shapes, d.rows, d.micro_batches, d.epochs, config.seed, config.train.steps
    )
    bad.report_dropped(plan.dropped(lengths, records))
    plan.save(cache)
    builder = RowBuilder(records, lengths, tokenizer, rule, d.template, d.image_first, bad)
    return StageData(tokenizer, lengths, plan, builder, bad, d.threads, d.prefetch)


class _MicroBatches:
    """The micro-batches of all steps from `start_step` on, as grain's random-access source."""

    def __init__(self, plan: Plan, start_step: int) -> None:
        self.plan, self.first = plan, start_step * plan.micro_batches

    def __len__(self) -> int:
        return self.plan.steps * self.plan.micro_batches - self.first

    def __getitem__(self, index: int) -> MicroBatch:
        return self.plan.micro_batch(self.first + int(index))


def loader(
    plan: Plan, builder: RowBuilder, start_step: int = 0, threads: int = 2, prefetch: int = 4
) -> Iterator[tuple[int, list[Batch]]]:
    """Yields (step, its `plan.micro_batches` batches) from `start_step` to the end of the plan.

    The batches are the same for any number of `threads` (0: built when asked for) and any `start_step`.
    `prefetch` is the number of micro-batches built ahead.
    """
    import grain  # here, because it loads JAX, which nothing else under eve_jax.data needs

    if start_step >= plan.steps:
        return
    dataset = grain.MapDataset.source(_MicroBatches(plan, start_step)).map(builder.build)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads) if threads else 0)
    batches = iter(dataset.to_iter_dataset(options))
    for step in range(start_step, plan.steps):
        yield step, [next(batches) for _ in range(plan.micro_batches)]
