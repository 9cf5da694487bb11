"""The input pipeline: from a stage's config to the batches of its steps, built ahead by threads.

    config -> records, tokenizer, lengths table, plan -> `StageData`
rows of the plan -> `loader` -> batch dicts, in order -> the batches of one step
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

from eve_jax.data.config import StageFields, reading_threads
from eve_jax.data.field_counts import FieldCounts, check_images
from eve_jax.data.plan.lengths import Dropped, Lengths
from eve_jax.data.plan.mixture import Mixture
from eve_jax.data.plan.plan import Plan, PlanSettings, build_plan, load_plan, plan_key
from eve_jax.data.rows.align_arrays import most_images
from eve_jax.data.rows.bad_records import BadRecords
from eve_jax.data.rows.build import Batch, RowBuilder
from eve_jax.data.rows.loader import RowWriter, loader
from eve_jax.data.rows.row_processes import BuilderFiles, RowProcesses
from eve_jax.data.samples.data_fingerprint import (
    check_counts,
    check_rule,
    check_sources,
    sources_fingerprint,
)
from eve_jax.data.samples.image_changes import changed_images, entry_bounds, left_out_changed
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import Fingerprint, SampleRule
from eve_jax.data.sources.records import Records, open_records
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import UserError, amount
from eve_jax.process.cores import cores, default_threads
from eve_jax.process.progress import spinner

PLAN_FOLDER = "plan"


@dataclass(frozen=True, eq=False)
class StageData:
    """All that the training of a stage needs of its data. fingerprint: see `eve_jax.data.samples.data_fingerprint`."""

    tokenizer: Tokenizer
    lengths: Lengths
    plan: Plan
    builder: RowBuilder
    bad: BadRecords
    files: BuilderFiles
    workers: int
    threads: int
    prefetch: int
    fingerprint: Fingerprint
    sources: dict[str, FieldCounts]
    warning: str = ""
    open: list[RowProcesses] = field(default_factory=list)

    def batches(self, start_step: int = 0, rows: Sequence[int] | None = None) -> Iterator[tuple[int, list[Batch]]]:
        """(step, its batches) from `start_step` to the end of the plan, of all rows or `rows`; see `loader`."""
        with self._row_writer() as (writer, threads):
            for step, batches in loader(self.plan, writer, start_step, threads, self.prefetch, rows):
                self.bad.seen = min(self.plan.samples(step + 1), len(self.lengths))
                yield step, batches

    @contextmanager
    def _row_writer(self) -> Iterator[tuple[RowWriter, int]]:
        """What builds rows, and the threads that may ask it to."""
        if not self.workers:
            yield self.builder, self.threads
            return
        threads = self.threads if self.threads > 0 else default_threads(self.workers)
        with closing(RowProcesses(self.builder, self.files, self.workers, threads)) as processes:
            self.open.append(processes)
            yield processes, self.workers * threads

    def close(self) -> None:
        """End the processes that build batches, also those that hang."""
        for processes in self.open:
            processes.close()

    def counts(self, step: int) -> dict[str, int]:
        """Samples, tokens, vision tokens, patches, pairs and rows that hold any, of step `step` (from 0), on all hosts.

        pairs: of a token and one before it in its sample, or itself; what attention works on.
        """
        rows = [row for micro_batch in self.plan.step(step) for row in micro_batch.rows]
        entries = [self.lengths.entry(entry) for row in rows for entry in row]
        visions = [e.patches + len(e.grids) + sum(h for h, _ in e.grids) for e in entries]
        totals = [e.text + vision for e, vision in zip(entries, visions, strict=True)]
        return {
            "samples": len(entries),
            "tokens": sum(totals),
            "vision_tokens": sum(visions),
            "patches": sum(e.patches for e in entries),
            "pairs": sum(n * (n + 1) // 2 for n in totals),
            "rows": sum(bool(row) for row in rows),
        }

    def notes(self) -> list[str]:
        """Return a line about the fields of each source, and the warning if there is one."""
        return [f"records of {counts.line(name)}" for name, counts in self.sources.items()] + [self.warning] * bool(
            self.warning
        )

    def summary(self) -> str:
        """One line for the log."""
        stats = self.plan.stats
        left_out = len(self.lengths.dropped) + len(self.plan.left_out)
        parts = [
            f"{stats['samples']:,} samples in {stats['steps']:,} steps of {stats['samples_per_step']:.1f} samples and "
            f"{stats['tokens_per_step']:,.0f} tokens, {stats['vision_share']:.0%} of them vision",
            f"{stats['fill']:.1%} of the slots filled, {len(self.plan.shapes)} row shapes",
        ]
        if len(stats["sources"]) > 1:
            shares = (f"{s['name']} {s['share']:.1%} (planned {s['share_planned']:.1%})" for s in stats["sources"])
            parts.append("samples from " + ", ".join(shares))
        for count, what in (
            (self.lengths.truncated, "texts cut"),
            (self.lengths.shrunk, "samples' images made smaller"),
        ):
            if count:
                parts.append(f"{count:,} {what} to fit (config.data.long)")
        if self.builder.rule.images.draft:
            parts.append("JPEG images decoded in part, not exact (config.data.draft)")
        if left_out:
            parts.append(f"{amount(left_out, 'record')} left out, see {self.bad.path}")
        return "; ".join(parts)


class Inputs(NamedTuple):
    """What a stage reads, opened: nothing is measured, and nothing written."""

    rule: SampleRule
    records: Records

    @classmethod
    def of(cls, config: StageFields, folder: str | Path, rule: SampleRule | None = None) -> Self:
        """Open the tokenizer and the records of `config.data` for the stage in `folder`; `rule` has the former open.

        Raises `UserError` where one is missing, or where the tokenizer does not fit the template.
        """
        index = Path(folder) / PLAN_FOLDER
        return cls(rule or SampleRule.of(config), open_records(config.data.records, config.data.images, index))


def open_stage_data(
    config: StageFields,
    folder: str | Path,
    bad: BadRecords | None = None,
    ready: Callable[[str], None] = lambda name: None,
    saved: Mapping[str, Any] | None = None,
    inputs: Inputs | None = None,
) -> StageData:
    """Measure the records of `config.data`, plan the run and list in `folder` what had to be left out.

    The indexes of large files, the lengths table and the plan are kept in `folder`/plan, the latter two under the hash
    of all they follow from, and read from there by memory mapping: its memory does not grow with the number of records.
    `bad` takes the records that cannot be used; by default the list in `folder`. `ready` is called with the name of the
    lengths table before it is read or made.

    saved: the fingerprint of the data that went with the last checkpoint; {} when it has none. The run then keeps its
    plan, whatever broke since; without it (None), everything is measured again when image files changed. Raises
    `UserError` for what cannot be used, and where the data is not that of `saved`. inputs: those of `config` where they
    are open already.
    """
    d = config.data
    rule, records = inputs or Inputs.of(config, folder)
    folder = Path(folder)
    bad = bad or BadRecords(folder, d.max_bad)
    cache = folder / PLAN_FOLDER
    fingerprint = rule.fingerprint()
    if saved:  # before records are measured
        check_rule(folder, saved, fingerprint, rule)
        check_counts(folder, saved, records)
    records.keep_index()
    lengths = measure(records, rule, cache, ready, cores())
    if saved is None and (changed := _first_change(records, lengths)):
        print(f"{changed} changed since it was measured: measuring the records again", file=sys.stderr, flush=True)
        cache.joinpath(f"{lengths.key.split()[0]}.npz").unlink(missing_ok=True)
        lengths = measure(records, rule, cache, processes=cores())
    fingerprint["sources"] = sources_fingerprint(records, lengths)
    if saved:
        check_sources(folder, saved, fingerprint["sources"], records, lengths)
    bad.begin(lengths.dropped, resumed=saved is not None)
    sources = dict(zip(records.names, lengths.fields, strict=True))
    warning = check_images(config.stage, sources) if len(lengths) else ""
    mixture = Mixture.of(_sizes(records, lengths), d.repeats, d.weights)
    if saved is None:  # a resumed run has the sources that it had
        _check_usable(records, lengths, mixture.repeats)
    plan_settings = PlanSettings(
        d.row_tokens, d.max_shapes, d.rows, d.micro_batches, d.epochs, config.seed, config.train.steps
    )
    plan = _kept_plan(lengths, mixture, plan_settings, cache)
    unplaced = plan.unplaced(lengths)
    bad.report_dropped(Dropped(records.where(i), records[i].id, "", reason) for i, reason in unplaced)
    if lengths.file:
        lengths = Lengths.load(lengths.file.path)  # gives back the pages that planning looked at
    images = most_images(plan, lengths) if config.model.align_weight > 0 else None
    builder = RowBuilder(records, lengths, rule, bad, images)
    assert lengths.file is not None
    files = BuilderFiles(d.records, d.images, cache, lengths.file.path, lengths.key, rule, images)
    built_by = (d.workers, reading_threads(d), d.prefetch)
    return StageData(rule.tokenizer, lengths, plan, builder, bad, files, *built_by, fingerprint, sources, warning)


def _first_change(records: Records, lengths: Lengths) -> str:
    """The first image found that is not as it was measured, or was left out for what is fixed; "" for none."""
    changed = changed_images(records, lengths)
    return changed[0].image if changed else left_out_changed(records, lengths)


def _sizes(records: Records, lengths: Lengths) -> dict[str, int]:
    """How many entries of the lengths table each source of records has."""
    ends = entry_bounds(records, lengths)
    return {name: end - start for name, (start, end) in zip(records.names, pairwise(ends), strict=True)}


def _check_usable(records: Records, lengths: Lengths, repeats: Sequence[float]) -> None:
    """Raise `UserError` for a source that the mixture asks for and of which no record can be used."""
    ends = entry_bounds(records, lengths)
    if not len(lengths):  # planning warns of all sources at once
        return
    for number, (name, repeat) in enumerate(zip(records.names, repeats, strict=True)):
        if not repeat or ends[number] < ends[number + 1]:
            continue
        start, stop = records.starts[number : number + 2].tolist()
        found = f"its {stop - start:,} records were left out" if stop > start else "it is empty"
        if stop > start:
            one = lengths.dropped[start - ends[number]]  # of those before it, all but the entries are left out, too
            found += f"; the first, {one.described}"
        raise UserError(
            f"{name}: no record can be used ({found}); fix it, remove it from config.data.records, or give it 0 in "
            "config.data.repeats or weights"
        )


def _kept_plan(lengths: Lengths, mixture: Mixture, settings: PlanSettings, cache: Path) -> Plan:
    """The plan in the folder `cache`, made if it is not there or another."""
    key = plan_key(lengths.key, mixture, settings)
    try:
        return load_plan(cache, key)
    except UserError:
        with spinner(f"planning rows of {amount(len(lengths), 'record')}"):
            build_plan(lengths, settings, mixture).save(cache, key)
        return load_plan(cache, key)
