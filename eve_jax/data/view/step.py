"""Rows of a step as an HTML page: the batch of the plan, each row taken apart, and written."""

import tempfile
from pathlib import Path

import numpy as np

from eve_jax.data.config import StageFields
from eve_jax.data.image.rule import CANVASES
from eve_jax.data.plan.plan import MicroBatch
from eve_jax.data.rows.pipeline import PLAN_FOLDER, StageData, open_stage_data
from eve_jax.data.sources.kept_index import INDEX
from eve_jax.data.view.document import write_text
from eve_jax.data.view.page import page_of
from eve_jax.data.view.take_apart import ShownRow, take_apart
from eve_jax.errors import UserError, amount


def rows_of_step(data: StageData, step: int, max_rows: int) -> list[ShownRow]:
    """At most `max_rows` rows of step `step` (from 0), of its micro-batches as evenly as can be."""
    steps = data.plan.steps
    if not 0 <= step < steps:
        raise UserError(f"--step={step}: the plan has {amount(steps, 'step')}, 0 to {steps - 1}")
    micro_batches, images = data.plan.step(step), data.builder.rule.images
    cells = images.size // images.patch if images.mode in CANVASES else 0
    shares = [len(part) for part in np.array_split(np.arange(max_rows), len(micro_batches))]
    rows = []
    for number, (micro_batch, share) in enumerate(zip(micro_batches, shares, strict=True), 1):
        drawn = MicroBatch(micro_batch.shape, micro_batch.rows[:share])
        if not drawn.rows:
            continue
        batch = data.builder.build(drawn)
        for row, entries in enumerate(drawn.rows):
            ids = [data.builder.records[int(data.lengths.record[entry])].id for entry in entries]
            title = f"row {row + 1} of {len(micro_batch.rows)}"
            if len(micro_batches) > 1:
                title += f", micro-batch {number} of {len(micro_batches)}"
            rows.append(take_apart(batch, row, ids, data.tokenizer, title, cells))
    return rows


def show_step(config: StageFields, folder: Path | None, step: int, out: str, max_rows: int) -> None:
    """Write at most `max_rows` rows of step `step` of the stage `config` to the file `out`, as HTML.

    folder: the stage's own, whose plan is used if it is the config's; nothing in it is changed.
    """
    path = Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out={out}: the rows become a page; name a file that ends with .html")
    if path.is_dir():
        raise UserError(f"--out={out} is a folder; name a file")
    with tempfile.TemporaryDirectory() as temporary:
        cache = Path(temporary, PLAN_FOLDER)
        cache.mkdir()
        kept = folder / PLAN_FOLDER if folder is not None else cache
        for made in (*kept.glob("*.npz"), *kept.glob(f"*{INDEX}")):
            (cache / made.name).symlink_to(made.resolve())
        data = open_stage_data(config, temporary, saved=None if folder is None else {})  # the training's own plan
        rows = rows_of_step(data, step, max_rows)
        total = sum(len(micro_batch.rows) for micro_batch in data.plan.step(step))
        about = f"{len(rows)} of {amount(total, 'row')}" if len(rows) < total else amount(total, "row")
        summary = data.summary().removesuffix(f", see {data.bad.path}")
        page = page_of(rows, f"{config.name}: step {step} of {data.plan.steps}", f"{about}; {summary}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
