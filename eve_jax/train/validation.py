"""Validation loss: the mean loss of held-out records under the weights that train.

They become samples and packed rows by the rules of the training's own, in an order that never changes; each is counted
once. Sums are taken in float64 in that order, so that the same weights give the same value.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import PurePath

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from eve_jax import sharding
from eve_jax.config.evaluation import LOSS, PREFIX
from eve_jax.config.stage import Config
from eve_jax.data.plan.lengths import Dropped
from eve_jax.data.plan.plan import PlanSettings, build_plan
from eve_jax.data.rows.build import Batch, RowBuilder
from eve_jax.data.rows.loader import loader
from eve_jax.data.rows.pipeline import StageData
from eve_jax.data.samples.data_fingerprint import sources_fingerprint
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.overlap import overlap
from eve_jax.data.samples.sample_rule import SampleRule, hash_of
from eve_jax.data.sources.records import open_records
from eve_jax.errors import Field, UserError, name_fields, warn
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, bind
from eve_jax.model.loss import target_losses
from eve_jax.process.connect import print_once
from eve_jax.train.data_thread import watched

FIELD = Field("eval.records")


class Validation:
    """The loss of `config.eval.records`, of all and of each source; an `eve_jax.train.evaluation.Evaluator`."""

    def __init__(self, config: Config, rule: SampleRule, mesh: Mesh):
        """Open, measure and plan the records. Raise UserError for a source of which none can be used."""
        given, self.data, self.mesh = config.eval, config.data, mesh
        with name_fields(_as_held_out):
            self.records = open_records(given.records, given.images or config.data.images)
            self.lengths = measure(self.records, rule)
            self._check_usable()
            d = config.data
            self.plan = build_plan(self.lengths, PlanSettings(d.row_tokens, d.max_shapes, d.rows, 1, 1, seed=0))
        self.source = np.searchsorted(self.records.starts, self.lengths.record, side="right") - 1  # of each entry
        self.names = [f"{PREFIX}{LOSS}", *(f"{PREFIX}{LOSS}/{name}" for name in short_names(self.records.names))]
        self.fingerprints = {"records": self._fingerprint(rule)}
        self.broken = Broken()
        self.builder = RowBuilder(self.records, self.lengths, rule, self.broken)
        self.rows = sharding.local_rows(mesh, d.rows)
        self._losses = jax.jit(partial(losses, config.sizes, mesh), out_shardings=sharding.replicated(mesh))
        left_out = [*self.lengths.dropped, *self._unplaced()]
        if left_out:
            print_once(
                f"{config.name}: {len(left_out):,} of {len(self.records):,} held-out records are left out; the first, "
                f"{left_out[0].described}"
            )

    def _check_usable(self) -> None:
        sources = np.searchsorted(self.lengths.record, self.records.starts)
        for name, (start, stop), first in zip(
            self.records.names, pairwise(sources.tolist()), self.records.starts.tolist(), strict=False
        ):
            if start == stop:
                reason = next((f"; {d.described}" for d in self.lengths.dropped[first - start :]), "")
                raise UserError(f"{name}: no record can be used{reason}; fix it, or remove it from config.{FIELD}")

    def _unplaced(self) -> list[Dropped]:
        return [
            Dropped(self.records.where(index), "", "", reason) for index, reason in self.plan.unplaced(self.lengths)
        ]

    def _fingerprint(self, rule: SampleRule) -> str:
        """Return a hash of the records, without what they are called."""
        sources = sources_fingerprint(self.records, self.lengths)
        return hash_of([rule.fingerprint(), [{k: v for k, v in one.items() if k != "name"} for one in sources]])

    def warn_of_overlap(self, data: StageData) -> None:
        """Warn when the run trains on some of the held-out records."""
        found = overlap((self.records, self.lengths), (data.builder.records, data.lengths))
        if found:
            held, trained = found[0]
            warn(
                f"{len(found):,} of {len(self.lengths):,} held-out records are trained on, too (config.data.records), "
                f"so their loss says little; the first, {self.records.where(held)}, is "
                f"{data.builder.records.where(trained)}"
            )

    def measure(self, params: Params, stopped: Callable[[], bool]) -> dict[str, float | None] | None:
        """Return the mean loss a target (nats) of all held-out records and of each source; None when `stopped()`.

        None stands for the loss of no target, and for one that is not finite.
        """
        nll, targets = np.zeros(len(self.records.names)), np.zeros(len(self.records.names))
        d, before = self.data, len(self.broken.found)
        ahead = min(d.prefetch, 1)  # those that training has built ahead wait in the memory, too
        batches = loader(self.plan, self.builder, 0, d.threads, ahead, self.rows)
        for number, (batch,) in watched(batches, d.timeout, reading=self.builder.reading):
            if stopped():
                return None
            placed = sharding.place_batch(self.mesh, batch, d.rows, self.rows)
            loss, segment, weight = map(np.asarray, self._losses(params, placed))
            for row, entries in enumerate(self.plan.step(number)[0].rows):
                counted = weight[row] > 0
                source = self.source[np.array(entries, int)][segment[row, counted] - 1]
                nll += np.bincount(source, loss[row, counted], len(nll))
                targets += np.bincount(source, minlength=len(targets))
        if len(self.broken.found) > before:
            warn(self.broken.summary(len(self.lengths)))
        sums = zip(np.concatenate([[nll.sum()], nll]), np.concatenate([[targets.sum()], targets]), strict=True)
        means = [total / count if count else np.nan for total, count in sums]
        return {n: float(mean) if np.isfinite(mean) else None for n, mean in zip(self.names, means, strict=True)}


def losses(cfg: ModelConfig, mesh: Mesh, params: Params, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return of each target of a micro-batch its loss (nats), the number of its sample in the row and its weight.

    All [R, T]; float32, int32, float32.
    """
    with sharding.use(mesh):
        segment = jnp.take_along_axis(batch["segment"], batch["loss_idx"], axis=1)
        return target_losses(bind(cfg, params), batch), segment, jnp.asarray(batch["loss_weight"])


class Broken:
    """Takes the held-out records that broke since they were measured (`RowBuilder`); their loss is left out."""

    def __init__(self) -> None:
        self.found: dict[str, Dropped] = {}
        self._lock = threading.Lock()

    def report(self, where: str, id: str, image: str, reason: str) -> None:
        """Note one record."""
        with self._lock:
            self.found[where] = Dropped(where, id, image, reason)

    def summary(self, total: int) -> str:
        """Return one line about all of them."""
        first = next(iter(self.found.values())).described
        return f"{len(self.found):,} of {total:,} held-out records broke, so their loss is left out; the first, {first}"


def short_names(names: Sequence[str]) -> list[str]:
    """Return names of sources for metrics: of a path its file or folder without ending, with as many folders before it
    as tell it from the others."""
    parts = [PurePath(name).with_suffix("").parts if PurePath(name).name else (name,) for name in names]
    for depth in range(1, max(map(len, parts)) + 1):
        short = ["/".join(part[-depth:]).lstrip("/") for part in parts]
        if len(set(short)) == len(short):
            return short
    return list(names)


def _as_held_out(field: str) -> str:
    """Return what a field of the section `data` is called in messages about held-out records."""
    return f"config.{field.replace('data.', 'eval.') if field in ('data.records', 'data.images') else field}"
