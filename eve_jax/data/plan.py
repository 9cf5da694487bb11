"""The global pack plan: which records share a row, and which rows make a step, for a whole training run.

    lengths -> menu of row shapes -> rows of every epoch -> micro-batches of one shape each
            -> steps of a fixed number of micro-batches, each step near the mixture

The plan follows from the lengths and a seed alone, so a step number is the whole state of the data.
"""

import hashlib
import json
import os
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eve_jax.data.lengths import Dropped, Lengths
from eve_jax.data.menu import Run, choose_menu
from eve_jax.data.packing import WINDOW, Packed, pack
from eve_jax.data.records import Records
from eve_jax.data.schedule import group_rows, spread
from eve_jax.data.shapes import ROW_MULTIPLE, RowShape
from eve_jax.errors import UserError

PLAN_FILE, STATS_FILE = "plan.npz", "plan.json"
FEW = 20_000  # records so few that there is time to look at more of them for each pick
MAX_EPOCHS = 256  # planned for a given number of steps; more are repetitions of these


class MicroBatch(NamedTuple):
    """Rows of one shape; each row is a tuple of entries (indices into the lengths table), empty for a padding row."""

    shape: RowShape
    rows: list[tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Plan:
    """B micro-batches of `rows` rows each; `micro_batches` of them in a row make a step.

    batch_shape int32 [B]: index into `shapes`. Row r of micro-batch m holds
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

    def micro_batch(self, index: int) -> MicroBatch:
        """Micro-batch number `index` of the run."""
        bounds = self.first[index * self.rows : (index + 1) * self.rows + 1].tolist()
        entries = self.entries[bounds[0] : bounds[-1]].tolist()
        rows = [tuple(entries[a - bounds[0] : b - bounds[0]]) for a, b in pairwise(bounds)]
        return MicroBatch(self.shapes[self.batch_shape[index]], rows)

    def step(self, index: int) -> list[MicroBatch]:
        """The micro-batches of step `index`."""
        return [self.micro_batch(index * self.micro_batches + m) for m in range(self.micro_batches)]

    def dropped(self, lengths: Lengths, records: Records) -> list[Dropped]:
        """The records that no row can hold, with the reason."""
        longest = max(shape.length for shape in self.shapes)
        found = []
        for entry in self.left_out.tolist():
            index = int(lengths.record[entry])
            total = int(lengths.patches[entry] + lengths.specials[entry] + lengths.text[entry])
            reason = f"too long: {total} tokens, a row has {longest}"
            if total <= longest:
                reason = (
                    f"its {total} tokens fit none of the {len(self.shapes)} row shapes; raise config.data.max_shapes"
                )
            found.append(Dropped(records.where(index), records[index].id, "", reason))
        return found

    @cached_property
    def hash(self) -> str:
        """Fingerprint of everything that decides the batches."""
        digest = hashlib.blake2b(repr((self.shapes, self.rows, self.micro_batches)).encode(), digest_size=16)
        for array in (self.batch_shape, self.entries, self.first):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def save(self, folder: str | Path) -> None:
        """Writes plan.npz, and plan.json for people, into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STATS_FILE).write_text(json.dumps({"hash": self.hash, **self.stats}, indent=1) + "\n")
        part = folder / f"{PLAN_FILE}.{os.getpid()}.part"
        with part.open("wb") as file:
            np.savez(
                file,
                shapes=np.array(self.shapes, np.int32),
                sizes=np.array([self.rows, self.micro_batches]),
                batch_shape=self.batch_shape,
                entries=self.entries,
                first=self.first,
                left_out=self.left_out,
                stats=np.array(json.dumps(self.stats)),
            )
        part.replace(folder / PLAN_FILE)


def load_plan(folder: str | Path) -> Plan:
    """The plan that `Plan.save` left in `folder`. Raises `UserError` when there is none."""
    path = Path(folder) / PLAN_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such plan")
    with np.load(path) as file:
        shapes = tuple(RowShape(*map(int, shape)) for shape in file["shapes"])
        rows, micro_batches = map(int, file["sizes"])
        arrays = {name: file[name] for name in ("batch_shape", "entries", "first", "left_out")}
        return Plan(shapes, rows, micro_batches, **arrays, stats=json.loads(str(file["stats"])))


def build_plan(
    lengths: Lengths,
    row_tokens: int,
    max_shapes: int,
    rows: int,
    micro_batches: int,
    epochs: int,
    seed: int,
    steps: int = 0,
) -> Plan:
    """Plans a run over `lengths`: steps of `micro_batches` micro-batches of `rows` rows of at most `row_tokens` slots.

    Every record comes once in each of `epochs` epochs; `steps` > 0 cuts the run, or repeats the epochs, to that many
    steps. Row lengths are multiples of 128 and may stay below `row_tokens` where the data does not fill it.
    Raises `UserError` for settings that make no plan.
    """
    _check(lengths, row_tokens, max_shapes, rows, micro_batches, epochs, steps)
    counts = np.stack([lengths.patches, lengths.specials, lengths.text], axis=1).astype(np.int32)
    usable = np.flatnonzero(counts.sum(1) <= row_tokens).astype(np.int32)
    if not len(usable):
        raise UserError(f"no record fits a row of config.data.row_tokens={row_tokens} slots; raise it")
    menu = choose_menu(counts[usable], row_tokens, max_shapes, Run(rows, micro_batches, epochs, steps), seed)

    table = Packed.empty()
    n_epochs = 0
    while n_epochs < (MAX_EPOCHS if steps else epochs):
        order = np.random.default_rng([seed, n_epochs]).permutation(usable)
        packed = pack(counts, order, menu, WINDOW if len(order) > FEW else 4 * WINDOW)
        last_epoch = len(table)  # its first row
        table = table.joined(packed)
        n_epochs += 1
        if steps and (np.bincount(table.shape, minlength=len(menu)) // rows).sum() >= steps * micro_batches:
            break

    left_out = np.concatenate([np.flatnonzero(counts.sum(1) > row_tokens), packed.left_out]).astype(np.int32)
    whole = (np.bincount(table.shape, minlength=len(menu)) // rows).sum()  # micro-batches without padding rows
    table, grouped = group_rows(
        table, last_epoch, counts, menu, rows, fill_up=whole < steps * micro_batches or not steps
    )
    batch_shape, row_ids = spread(grouped, menu, rows, micro_batches)
    if steps:
        kept = np.arange(steps * micro_batches) % len(batch_shape)
        batch_shape, row_ids = batch_shape[kept], row_ids[kept]
    entries, first = table.rows(row_ids.reshape(-1))
    used, batch_shape = np.unique(batch_shape, return_inverse=True)  # a shape without rows need not be compiled
    shapes = tuple(RowShape(*map(int, shape)) for shape in menu[used])
    plan = Plan(shapes, rows, micro_batches, batch_shape.astype(np.int32), entries, first, left_out, {})
    return replace(plan, stats=_stats(plan, counts))


def _stats(plan: Plan, counts: np.ndarray) -> dict[str, Any]:
    """What the plan comes to: fill is real tokens over all slots, row_fill leaves padding rows out of account."""
    sizes = np.diff(plan.first)
    tokens = np.concatenate([[0], np.cumsum(counts[plan.entries].sum(1), dtype=np.int64)])
    batch_tokens = tokens[plan.first[plan.rows :: plan.rows]] - tokens[plan.first[: -1 : plan.rows]]
    lengths = np.array([shape.length for shape in plan.shapes])[plan.batch_shape]
    real = np.repeat(lengths, plan.rows)[sizes > 0].sum()
    vision = int(counts[plan.entries, :2].sum())
    return {
        "steps": plan.steps,
        "samples": len(plan.entries),
        "samples_per_step": len(plan.entries) / plan.steps,
        "rows": int((sizes > 0).sum()),
        "empty_rows": int((sizes == 0).sum()),
        "tokens": int(tokens[-1]),
        "tokens_per_step": int(tokens[-1]) / plan.steps,
        "vision_share": vision / int(tokens[-1]),
        "fill": float(tokens[-1] / (lengths.sum() * plan.rows)),
        "row_fill": float(tokens[-1] / real),
        "left_out": len(plan.left_out),
        "shapes": [
            {
                **shape._asdict(),
                "micro_batches": int((plan.batch_shape == k).sum()),
                "fill": float(
                    batch_tokens[plan.batch_shape == k].sum()
                    / max((plan.batch_shape == k).sum() * plan.rows * shape.length, 1)
                ),
            }
            for k, shape in enumerate(plan.shapes)
        ],
    }


def _check(
    lengths: Lengths, row_tokens: int, max_shapes: int, rows: int, micro_batches: int, epochs: int, steps: int
) -> None:
    if not len(lengths):
        first = f"; the first, {lengths.dropped[0].where}: {lengths.dropped[0].reason}" if lengths.dropped else ""
        raise UserError(f"none of the records can be used ({len(lengths.dropped)} were left out{first})")
    if row_tokens < ROW_MULTIPLE or row_tokens % ROW_MULTIPLE:
        raise UserError(f"config.data.row_tokens={row_tokens} is not a multiple of {ROW_MULTIPLE}")
    for name, value in {
        "max_shapes": max_shapes,
        "rows": rows,
        "micro_batches": micro_batches,
        "epochs": epochs,
    }.items():
        if value < 1:
            raise UserError(f"config.data.{name}={value} is not at least 1")
    if steps < 0:
        raise UserError(f"config.train.steps={steps} is negative")
