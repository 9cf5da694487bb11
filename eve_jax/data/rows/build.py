"""Packed rows: samples laid out in the slots of a row shape, and the batches of a plan's micro-batches.

Memory (slot) order of a row is [patches | specials | text]; causal order has each sample's tokens in sequence,
sample after sample, the pads last. docs/design.md#row-contract has the table of arrays.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from eve_jax.batch import EVE_LAYOUT, ArraySpec, Layout, RowShape, TeacherShape, batch_arrays, token_arrays, zeros
from eve_jax.data.image.patches import cut, load_patches, open_pixels
from eve_jax.data.image_file import BadImage, ImageFile
from eve_jax.data.plan.lengths import Entry, Lengths
from eve_jax.data.plan.measured_on import Seen
from eve_jax.data.plan.plan import MicroBatch
from eve_jax.data.record import BadRecord
from eve_jax.data.rows.align_arrays import place_images, teacher_image, teacher_shape
from eve_jax.data.rows.spell import PATCH, SPECIAL, TEXT, Sample, Tokens, joined, spell_out
from eve_jax.data.samples.image_stamps import is_changed, text_hash
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import Records
from eve_jax.data.text.encode import IGNORE, IMAGE_ID, Encoded

Batch = dict[str, np.ndarray]


def lay_out(samples: Sequence[Sample], shape: RowShape, layout: Layout = EVE_LAYOUT) -> Batch:
    """The arrays of one row that follow from its tokens, `eve_jax.batch.token_arrays`: all but its patches.

    perm[c] is the slot that comes c-th in causal order, inv its inverse. loss_idx is the slot whose hidden state
    predicts, the causal predecessor of the label's token; unused entries are 0 with weight 0.
    Patches take the slots 0, 1, ... in causal order. Raises `ValueError` when the samples do not fit the shape.
    """
    tokens = [spell_out(sample, layout) for sample in samples]
    return lay_out_tokens(tokens, [sample.weight for sample in samples], shape, layout)


def lay_out_tokens(
    tokens: Sequence[Tokens], weights: Sequence[float], shape: RowShape, layout: Layout = EVE_LAYOUT
) -> Batch:
    """`lay_out` of samples as their tokens, each with the weight of its loss."""
    sizes = [len(t.kind) for t in tokens]
    kind, value, label, numbers, ends, places, _ = joined(tokens)
    weight = np.repeat(np.array(weights, np.float32), sizes)
    number = np.repeat(np.arange(1, len(tokens) + 1, dtype=np.int32), sizes)
    index = np.concatenate([np.arange(n, dtype=np.int32) for n in sizes]) if sizes else np.zeros(0, np.int32)

    slot = np.zeros(len(kind), np.int32)
    first = 0
    used = np.zeros(shape.length, bool)
    for which, budget in enumerate(shape):
        mine = kind == which
        count = int(mine.sum())
        if count > budget:
            raise ValueError(f"{count} {shape._fields[which]} do not fit into {shape}")
        slot[mine] = first + np.arange(count, dtype=np.int32)
        used[first : first + count] = True
        first += budget

    targets = np.flatnonzero((label != IGNORE) & (index > 0))
    row = zeros(token_arrays(shape, layout))
    row["segment"][slot] = number
    row["position"][slot] = index
    row["perm"][:] = np.concatenate([slot, np.flatnonzero(~used)])
    row["inv"][row["perm"]] = np.arange(shape.length)
    first_ones = {
        "special_ids": value[kind == SPECIAL],
        "text_ids": value[kind == TEXT],
        "loss_idx": slot[targets - 1],
        "labels": label[targets],
        "loss_weight": weight[targets],
    }
    if "place" in row:
        first_ones["place"] = places[kind == PATCH]
    for name, values in first_ones.items():
        row[name][: len(values)] = values
    for name, values in (("index", numbers), ("end", ends)):
        if name in row:
            row[name][slot] = values
    return row


class Reporter(Protocol):
    """What takes the records that break while rows are built (`BadRecords`)."""

    def report(self, where: str, id: str, image: str, reason: str) -> None:
        """Lists one record; called by several threads."""


class RowBuilder:
    """Builds the batches of a plan over `lengths`; safe for threads, and the same whoever builds."""

    def __init__(
        self,
        records: Records,
        lengths: Lengths,
        rule: SampleRule,
        bad: Reporter,
        most_images: Mapping[RowShape, int] | None = None,
    ) -> None:
        """`lengths` must have been measured by the same `rule`.

        most_images: in a row of each shape, when batches are to hold the arrays of the aligning loss, too
        (`eve_jax.data.rows.align_arrays`).
        """
        self.records, self.lengths = records, lengths
        self.rule, self.bad, self.most_images = rule, bad, most_images
        self.reading: dict[int, object] = {}  # what each thread is at, by its identifier: for a message when one hangs

    def build(self, micro_batch: MicroBatch) -> Batch:
        """The arrays of docs/design.md#row-contract with a leading axis of rows; patches uint8 [R, P, patch_bytes].

        A record that broke since it was measured keeps its slots (patches 0), its loss weighs 0, and it is reported;
        raises what `bad` raises when there are too many of those.
        """
        batch = self.empty(micro_batch.shape, len(micro_batch.rows))
        for number in range(len(micro_batch.rows)):
            self.build_row(batch, number, micro_batch)
        return batch

    def empty(self, shape: RowShape, rows: int) -> Batch:
        """Return the batch of `rows` rows that `build_row` is to fill."""
        return zeros(self.arrays(shape, rows))

    def arrays(self, shape: RowShape, rows: int) -> dict[str, ArraySpec]:
        """Return shape and dtype of the arrays of a batch."""
        return batch_arrays(rows, shape, self.rule.images.patch_bytes, self._teacher(shape), self.rule.layout)

    def _teacher(self, shape: RowShape) -> TeacherShape | None:
        return teacher_shape(self.rule.images, self.most_images[shape]) if self.most_images else None

    def build_row(self, batch: Batch, number: int, micro_batch: MicroBatch) -> None:
        """Write row `number` of a micro-batch into its place in `batch`, which `empty` gave."""
        shape, entries = micro_batch.shape, micro_batch.rows[number]
        patches = batch["patches"][number]
        teacher_images = batch["teacher_images"][number] if "teacher_images" in batch else np.zeros(0)
        samples: list[Sample] = []
        used = n_images = 0
        for entry in entries:
            line = self.lengths.entry(entry)
            end, last = used + line.patches, n_images + len(line.grids)
            room = patches[used:end], teacher_images[n_images:last]
            self.reading[threading.get_ident()] = self.records.where(line.record)
            samples.append(self._sample(line, self.lengths.entry_seen(entry), *room))
            del self.reading[threading.get_ident()]
            used, n_images = end, last
        row = lay_out(samples, shape, self.rule.layout)
        if self._teacher(shape):
            images = ((h, w, sample.weight) for sample in samples for h, w in sample.grids)
            row |= place_images(images, shape, self.rule.images)
        for name, values in row.items():
            batch[name][number] = values

    def _sample(self, entry: Entry, seen: Seen | None, patches: np.ndarray, teacher_images: np.ndarray) -> Sample:
        """The sample of an entry; its patches are written into `patches` [p, patch_bytes].

        What the teacher sees of its images goes into `teacher_images`, unless there is no room for any.
        """
        index, n_text, _, grids = entry
        encoded = None
        id = ""
        try:
            record = self.records[index]
            id = record.id
            read = self.rule.encode(record)
            if len(record.images) == len(grids):
                read = self.rule.cut(read, grids)
            changed = seen is not None and text_hash(record) != seen.text
            if changed or len(record.images) != len(grids) or len(read.ids) - len(grids) != n_text:
                raise BadRecord("the record changed since it was measured")
            encoded = read
            self._load(record.images, grids, n_text, patches, teacher_images)
            for file, stamp in zip(record.images, seen.stamps if seen else (), strict=False):
                if is_changed(file, stamp):
                    raise BadImage("the image changed since it was measured", file)
            return Sample(*encoded, grids)
        except BadImage as e:
            self.bad.report(self.records.where(index), id, e.path, e.reason)
        except BadRecord as e:
            self.bad.report(self.records.where(index), id or e.id, e.image, e.reason)
        patches[:] = 0
        if encoded is None:
            ids = np.array([IMAGE_ID] * len(grids) + [0] * n_text, np.int32)
            encoded = Encoded(ids, np.full(len(ids), IGNORE, np.int32))
        return Sample(*encoded, grids, 0.0)

    def _load(
        self,
        files: Sequence[ImageFile],
        grids: Sequence[tuple[int, int]],
        n_text: int,
        patches: np.ndarray,
        teacher_images: np.ndarray,
    ) -> None:
        """Writes the patches of a sample's images, at the grids of the table, into `patches`, and `teacher_images`."""
        used = 0
        natural: list[tuple[int, int]] = []
        rule = self.rule.images.among(len(files))
        for number, (file, grid) in enumerate(zip(files, grids, strict=True)):
            if len(teacher_images):
                image = open_pixels(file, rule, grid)
                own, real = cut(image, rule, grid)
                teacher_images[number] = teacher_image(image, self.rule.images)
            else:
                own, real = load_patches(file, rule, grid)
            patches[used : used + len(own)] = own
            used += len(own)
            natural.append(real)
        for file, grid, real in zip(files, grids, self.rule.shrunk(natural, n_text), strict=True):
            if grid != real:
                raise BadImage("the image changed its size since it was measured", file)
