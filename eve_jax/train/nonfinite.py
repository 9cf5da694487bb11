"""Steps whose loss or gradient is not finite: a stop with a dump of the offending rows, or a count of those skipped.

The step itself (`eve_jax.train.step`) leaves the weights alone then, so they are still those that met the rows, but for
the few steps that ran before the host saw it.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from eve_jax import sharding
from eve_jax.data.rows.build import Batch
from eve_jax.data.rows.pipeline import StageData
from eve_jax.errors import UserError, amount
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, bind
from eve_jax.model.loss import target_losses
from eve_jax.process.connect import is_leader, print_once


class NonFinite:
    """What a run does about such steps: `policy` is `config.train.nan`."""

    def __init__(self, policy: str, folder: Path, data: StageData, cfg: ModelConfig, mesh: jax.sharding.Mesh):
        self.policy, self.folder, self.data, self.cfg, self.mesh = policy, folder, data, cfg, mesh
        self.skipped = 0

    def handle(self, steps: list[int], params: Params) -> None:
        """Take over steps (counted from 1) that were not finite, in all processes; `params` are the weights now.

        Raises UserError when the policy is to stop, after a dump.
        """
        if self.policy == "skip":
            self.skipped += len(steps)
            names = ", ".join(map(str, steps))
            print_once(f"\nskipped step {names}: loss or gradient not finite ({self.skipped} skipped so far)")
            return
        target = self._dump(steps[0], params)
        raise UserError(
            f"step {steps[0]}: loss or gradient is not finite; its rows and their records are in {target} and "
            f"{target.with_suffix('.json').name}. Nothing of it was saved: fix the records, lower the learning rate, "
            "or skip such steps by --config.train.nan=skip"
        )

    def close(self) -> None:
        """Say at the end how many steps of this session did nothing."""
        if self.skipped:
            print_once(f"{amount(self.skipped, 'step')} skipped: loss or gradient not finite; see metrics.jsonl")

    def _dump(self, step: int, params: Params) -> Path:
        """Write the rows of a step that have no finite loss, or all when no row is to blame; returns the .npz file."""
        _, batches = next(self.data.batches(step - 1))
        losses = [self._row_losses(params, batch) for batch in batches]
        bad = [np.flatnonzero(~np.isfinite(x)) for x in losses]
        blamed = any(len(b) for b in bad)
        rows = bad if blamed else [np.arange(len(x)) for x in losses]
        arrays: dict[str, np.ndarray] = {}
        listed: list[dict[str, Any]] = []
        for m, (batch, which, loss) in enumerate(zip(batches, rows, losses, strict=True)):
            arrays |= {f"{m}.{name}": value[which] for name, value in batch.items() if len(which)}
            plan = self.data.plan.step(step - 1)[m]
            for r in which.tolist():
                entry = {"micro_batch": m, "row": r, "loss": float(loss[r]) if np.isfinite(loss[r]) else None}
                listed.append(entry | {"records": [self._record(e) for e in plan.rows[r]]})
        target = self.folder / f"not_finite_step_{step}.npz"
        summary = {"step": step, "rows_with_a_loss_that_is_not_finite": blamed, "rows": listed}
        if is_leader():
            np.savez_compressed(target, allow_pickle=False, **arrays)
            target.with_suffix(".json").write_text(json.dumps(summary, indent=1))
        return target

    def _row_losses(self, params: Params, batch: Batch) -> np.ndarray:
        """Summed loss of each row, float32 [R]."""

        @partial(jax.jit, out_shardings=sharding.replicated(self.mesh))
        def losses(params: Params, batch: Batch) -> jax.Array:
            with sharding.use(self.mesh):
                return (target_losses(bind(self.cfg, params), batch) * batch["loss_weight"]).sum(axis=1)

        rows = range(len(batch["segment"]))
        return np.asarray(losses(params, sharding.place_batch(self.mesh, batch, len(rows), rows)))

    def _record(self, entry: int) -> dict[str, str]:
        """Place and id of the record of an entry of the lengths table."""
        records, index = self.data.builder.records, int(self.data.lengths.record[entry])
        try:
            id = records[index].id
        except Exception:  # one that cannot be read any more may well be the reason
            id = ""
        return {"where": records.where(index), "id": id}
