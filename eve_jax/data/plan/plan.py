"""The global pack plan: which records share a row, and which rows make a step, for a whole training run.

    lengths -> order of every epoch by the mixture -> menu of row shapes -> rows
            -> micro-batches of one shape each -> steps of a fixed number of micro-batches, each near the mixture

The plan follows from the lengths, the settings and a seed alone, so a step number is the whole state of the data.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eve_jax.batch import ROW_MULTIPLE, RowShape
from eve_jax.data.plan.lengths import Lengths
from eve_jax.data.plan.mapped_arrays import ArrayFile, save_arrays
from eve_jax.data.plan.mixture import Mixture, rounds
from eve_jax.data.plan.packing import NARROW_WINDOW, WIDE_WINDOW, Packed, frontier, pack
from eve_jax.data.plan.plan_stats import plan_stats
from eve_jax.data.plan.shape_menu import SAMPLE, Run, choose_menu, covered
from eve_jax.data.plan.step_order import group_rows, row_content, spread
from eve_jax.errors import Field, FieldError, UserError, amount
from eve_jax.process.files import write_json

PLAN_FILE, STATS_FILE = "plan.npz", "plan.json"
VERSION = 3  # of the planner; part of a kept plan's key
FEW = 20_000  # records so few that there is time to look at more of them for each pick
MAX_SHAPES = 255  # that a plan can number
ROW_TOKENS = Field("data.row_tokens")
MOST_SAMPLES = 1 << 30  # of a run, and rows
MAX_ROUNDS = 256  # planned for a given number of steps; more are repetitions of these


class MicroBatch(NamedTuple):
    """Rows of one shape; each row is a tuple of entries (indices into the lengths table), empty for a padding row."""

    shape: RowShape
    rows: list[tuple[int, ...]]


class PlanSettings(NamedTuple):
    """What a plan follows from next to the lengths and the mixture; the fields of `config.data` and `config`."""

    row_tokens: int
    max_shapes: int
    rows: int
    micro_batches: int
    epochs: int
    seed: int
    steps: int = 0


@dataclass(frozen=True, eq=False)
class Plan:
    """B micro-batches of `rows` rows each; `micro_batches` of them in a row make a step.

    batch_shape uint8 [B]: index into `shapes`. Row r of micro-batch m holds
    entries[first[m * rows + r] : first[m * rows + r + 1]] (entries int32, first int64 [B * rows + 1]).
    left_out int32: entries that no row can hold. stats: what the log and the README say about the plan.
    """

    shapes: tuple[RowShape, ...]
    rows: int
    micro_batches: int
    batch_shape: np.ndarray
    entries: np.ndarray
    first: np.ndarray
    left_out: np.ndarray
    stats: dict[str, Any]

    @property
    def steps(self) -> int:
        """Steps (updates of the optimizer) of the run."""
        return len(self.batch_shape) // self.micro_batches

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return sum(array.nbytes for array in (self.batch_shape, self.entries, self.first, self.left_out))

    def micro_batch(self, index: int) -> MicroBatch:
        """Micro-batch number `index` of the run."""
        bounds = self.first[index * self.rows : (index + 1) * self.rows + 1].tolist()
        entries = self.entries[bounds[0] : bounds[-1]].tolist()
        rows = [tuple(entries[a - bounds[0] : b - bounds[0]]) for a, b in pairwise(bounds)]
        return MicroBatch(self.shapes[self.batch_shape[index]], rows)

    def step(self, index: int) -> list[MicroBatch]:
        """The micro-batches of step `index`."""
        return [self.micro_batch(index * self.micro_batches + m) for m in range(self.micro_batches)]

    def unplaced(self, lengths: Lengths) -> list[tuple[int, str]]:
        """Return the records that no row can hold, each with the reason."""
        longest = max(shape.length for shape in self.shapes)
        found = []
        for entry in self.left_out.tolist():
            total = int(lengths.patches[entry] + lengths.specials[entry] + lengths.text[entry])
            reason = f"too long: {amount(total, 'token')}, a row has {longest}"
            if total <= longest:
                reason = (
                    f"its {total} tokens fit none of the {len(self.shapes)} row shapes; raise config.data.max_shapes"
                )
            found.append((int(lengths.record[entry]), reason))
        return found

    def samples(self, steps: int) -> int:
        """Return how many samples the first `steps` steps hold."""
        return int(self.first[steps * self.micro_batches * self.rows])

    @cached_property
    def hash(self) -> str:
        """Fingerprint of everything that decides the batches."""
        digest = hashlib.blake2b(repr((self.shapes, self.rows, self.micro_batches)).encode(), digest_size=16)
        for array in (self.batch_shape, self.entries, self.first):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def save(self, folder: str | Path, key: str = "") -> None:
        """Writes plan.npz, and plan.json for people, into `folder`; `key` is what `load_plan` is asked for later."""
        folder = Path(folder)
        arrays = {
            "shapes": np.array(self.shapes, np.int32),
            "sizes": np.array([self.rows, self.micro_batches]),
            "batch_shape": self.batch_shape,
            "entries": self.entries,
            "first": self.first,
            "left_out": self.left_out,
            "stats": np.array(json.dumps(self.stats)),
            "key": np.array([key, self.hash]),
        }
        save_arrays(folder / PLAN_FILE, arrays)
        write_json(folder / STATS_FILE, {"hash": self.hash, **self.stats}, indent=1, sort_keys=False)


def load_plan(folder: str | Path, key: str | None = None) -> Plan:
    """The plan that `Plan.save` left in `folder`, memory-mapped.

    Raises `UserError` when there is none, when it is not whole, or when it was saved under another `key`.
    """
    path = Path(folder) / PLAN_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such plan")
    try:
        arrays = ArrayFile(path).mapped()
        saved_key, saved_hash = arrays["key"].tolist()
        shapes = tuple(RowShape(*shape) for shape in arrays["shapes"].tolist())
        rows, micro_batches = arrays["sizes"].tolist()
        parts = {name: arrays[name] for name in ("batch_shape", "entries", "first", "left_out")}
        plan = Plan(shapes, rows, micro_batches, **parts, stats=json.loads(str(arrays["stats"])))
        whole = plan.hash == saved_hash
    except Exception:  # an older layout, or a file that was cut short
        whole, saved_key = False, ""
    if not whole or (key is not None and saved_key != key):
        raise UserError(f"{path} is another plan, or broken; remove it to have it made anew")
    return plan


def planned_steps(folder: Path) -> int | None:
    """Return the steps of the plan that was last kept in `folder`, None when there is none."""
    try:
        return int(json.loads((folder / STATS_FILE).read_text())["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def plan_key(lengths_key: str, mixture: Mixture, settings: PlanSettings) -> str:
    """Hash of all that a plan follows from; `lengths_key` stands for the lengths table."""
    text = repr((VERSION, lengths_key, mixture.starts.tolist(), tuple(mixture.repeats), tuple(settings)))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def build_plan(lengths: Lengths, settings: PlanSettings, mixture: Mixture | None = None) -> Plan:
    """Plan a run over `lengths`: steps of `micro_batches` micro-batches of `rows` rows of at most `row_tokens` slots.

    Every record comes once in each of `epochs` epochs, or as often as `mixture` says; `steps` > 0 cuts the run, or
    repeats the epochs, to that many steps. Row lengths are multiples of 128 and may stay below `row_tokens` where the
    data does not fill it. Raises `UserError` for settings that make no plan.
    """
    _check(lengths, settings)
    row_tokens, max_shapes, rows, micro_batches, epochs, seed, steps = settings
    mixture = mixture or Mixture.single(len(lengths))
    counts = np.stack([lengths.patches, lengths.specials, lengths.text], axis=1).astype(np.int32, copy=False)
    sources, too_long = _usable(lengths, mixture, row_tokens)
    per_epoch = sum(round(r * len(s)) for r, s in zip(mixture.repeats, sources, strict=True))
    if not per_epoch:
        raise FieldError(Field("data.repeats"), " asks for less than one record an epoch; raise it")
    _check_size(settings, per_epoch)

    turns = rounds(sources, mixture.repeats, seed)
    head = list(islice(turns, 1))
    while not len(head[-1][0]):
        head.append(next(turns))
    largest = counts[frontier(counts, np.concatenate(sources))]
    run = Run(rows, micro_batches, per_epoch * (1 if steps else epochs), padded=not steps)
    menu = choose_menu(counts[head[-1][0][:SAMPLE]], largest, row_tokens, max_shapes, run)
    table, round_starts = _pack_rounds(counts, chain(head, turns), menu, settings)
    left_out = too_long
    if not covered(largest, menu).all():
        left_out = np.sort(np.concatenate([too_long, *(s[~covered(counts[s], menu)] for s in sources)]))

    whole = (np.bincount(table.shape, minlength=len(menu)) // rows).sum()  # micro-batches without padding rows
    fill_up = whole < steps * micro_batches or not steps
    table, groups = group_rows(table, int(round_starts[-1]), counts, menu, rows, fill_up)
    batch_shape, row_ids = spread(groups, row_content(table, mixture.starts), rows, micro_batches, round_starts)
    if steps:
        kept = np.arange(steps * micro_batches) % len(batch_shape)
        batch_shape, row_ids = batch_shape[kept], row_ids[kept]
    entries, first = table.rows(row_ids.reshape(-1))
    kinds, batch_shape = np.unique(batch_shape, return_inverse=True)  # a shape without rows need not be compiled
    shapes = tuple(RowShape(*shape) for shape in menu[kinds].tolist())
    batch_shape = batch_shape.astype(np.uint8)
    stats = plan_stats(table, row_ids, shapes, batch_shape, micro_batches, mixture, [len(s) for s in sources])
    stats["left_out"] = len(left_out)
    return Plan(shapes, rows, micro_batches, batch_shape, entries, first, left_out, stats)


def _usable(lengths: Lengths, mixture: Mixture, row_tokens: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The entries int32 of each source that fit a row by their total length, and those that do not.

    A source that the mixture leaves away has none of either.
    """
    too_long = lengths.patches + lengths.specials + lengths.text > row_tokens
    found = []
    for (start, stop), repeat in zip(pairwise(mixture.starts.tolist()), mixture.repeats, strict=True):
        too_long[start:stop] &= repeat > 0
        entries = np.arange(start, stop, dtype=np.int32) if repeat > 0 else np.zeros(0, np.int32)
        found.append(entries[~too_long[start:stop]] if repeat > 0 and too_long[start:stop].any() else entries)
    if not any(map(len, found)):
        raise FieldError("no record fits a row of ", ROW_TOKENS, f"={row_tokens} slots; raise it")
    return found, np.flatnonzero(too_long).astype(np.int32)


def _pack_rounds(
    counts: np.ndarray, turns: Iterator[tuple[np.ndarray, bool]], menu: np.ndarray, settings: PlanSettings
) -> tuple[Packed, np.ndarray]:
    """The rows of as many rounds as the run needs, and int64 [rounds] the number of each one's first row."""
    parts: list[Packed] = []
    per_shape = np.zeros(len(menu), np.int64)
    epochs = 0
    for order, ends_epoch in turns:
        parts.append(pack(counts, order, menu, NARROW_WINDOW if len(order) > FEW else WIDE_WINDOW))
        per_shape += np.bincount(parts[-1].shape, minlength=len(menu))
        epochs += ends_epoch
        enough = (per_shape // settings.rows).sum() >= settings.steps * settings.micro_batches
        if (enough or len(parts) == MAX_ROUNDS) if settings.steps else epochs == settings.epochs:
            break
    starts = np.cumsum([0] + [len(part) for part in parts[:-1]])
    return parts[0] if len(parts) == 1 else Packed.joined(parts), starts


def _check_size(settings: PlanSettings, per_epoch: int) -> None:
    """Raise FieldError for a run of more rows, or samples, than a plan holds."""
    steps, epochs = Field("train.steps"), Field("data.epochs")
    size = settings.steps * settings.micro_batches * settings.rows or settings.epochs * per_epoch
    if size > MOST_SAMPLES:
        asked = (steps, f"={settings.steps}") if settings.steps else (epochs, f"={settings.epochs}")
        what = "rows" if settings.steps else "samples"
        raise FieldError(*asked, f" asks for {size:,} {what}, and a plan has at most {MOST_SAMPLES:,}; lower it")


def _check(lengths: Lengths, settings: PlanSettings) -> None:
    if not len(lengths):
        first = f"; the first, {lengths.dropped[0].described}" if lengths.dropped else ""
        raise UserError(f"none of the records can be used ({len(lengths.dropped)} were left out{first})")
    if settings.row_tokens < ROW_MULTIPLE or settings.row_tokens % ROW_MULTIPLE:
        raise FieldError(ROW_TOKENS, f"={settings.row_tokens} is not a multiple of {ROW_MULTIPLE}")
    for name in ("max_shapes", "rows", "micro_batches", "epochs"):
        value = getattr(settings, name)
        if value < 1:
            raise FieldError(Field(f"data.{name}"), f"={value} is not at least 1")
    if settings.max_shapes > MAX_SHAPES:
        raise FieldError(Field("data.max_shapes"), f"={settings.max_shapes} is more than {MAX_SHAPES}")
    if settings.steps < 0:
        raise FieldError(Field("train.steps"), f"={settings.steps} is negative")
