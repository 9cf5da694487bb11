"""Scores of files of records, written to a file: what `launch.score` does."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from eve_jax.checkpoint.named_step import find_checkpoint
from eve_jax.checkpoint.own_tokenizer import own_tokenizer
from eve_jax.data.plan.lengths import Dropped
from eve_jax.data.rows.bad_records import most_broke
from eve_jax.data.sources.records import open_records
from eve_jax.errors import UserError
from eve_jax.infer.heads import regrouped
from eve_jax.infer.score import Score, Scores, ScoreSettings, score_records
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params
from eve_jax.process.files import in_place_of
from eve_jax.process.paths import split_names
from eve_jax.sharding import make_mesh
from eve_jax.weights.open import Checkpoint, open_checkpoint
from eve_jax.weights.quantize import for_inference, kept_weights


def bad_file(out: str | Path) -> Path:
    """Where the records that could not be scored are listed: `OUT.bad.jsonl`."""
    return Path(f"{out}.bad.jsonl")


def check_most(scores: Scores, out: str | Path) -> None:
    """Raise UserError when more than half of the records could not be scored, with `out` in which the others are."""
    if most_broke(len(scores.bad), len(scores.bad) + len(scores.lines)):
        raise UserError(
            f"{scores.none_scored()}; all are listed in {bad_file(out)}, the scores of the others are in {out}. Fix "
            "the records and score again"
        )


def score_files(
    checkpoint: str | Path,
    records: str,
    images: str | Path,
    out: str | Path,
    dtype: str = "float32",
    quiet: bool = False,
    **changes: Any,
) -> Scores:
    """Scores `records` (named as `open_records` takes them) by the model in `checkpoint` and writes the lines to `out`.

    A line is {"id", "loss", "nll_sum", "n_target", "n_tokens", "n_vision"}; lines of `bad_file(out)`, which is there
    only when it is needed, are {"where", "id", "image", "reason"}. Both files appear at the end or not at all.
    `dtype` is the computation's, whatever the weights are stored in; `changes` are `mesh` and `weights` as in
    `EVE.from_pretrained`, and those of `ScoreSettings.of`. Raises UserError, before any work, when a file cannot
    be read or written; and when no record could be scored, which are then listed.
    """
    out = Path(out)
    mesh, weights = (changes.pop(name, "") for name in ("mesh", "weights"))
    if any(Path(name).resolve() == out.resolve() for name in split_names(records)):
        raise UserError(f"--out={out} is the file of records itself; name another")
    opened = open_records(records, images)
    with _in_place_of(out) as part:
        source = open_checkpoint(find_checkpoint(checkpoint))
        settings = ScoreSettings.of(source.data, own_tokenizer(source.folder), **changes)
        devices = make_mesh(mesh) if mesh else None
        cfg, params = regrouped(*_read(source, devices, weights), devices)
        scores = score_records(replace(cfg, dtype=dtype), params, opened, settings, quiet, devices)
        bad_file(out).unlink(missing_ok=True)
        if scores.bad:
            with _in_place_of(bad_file(out)) as listed:
                _write(listed, scores.bad)
        if not scores.lines:
            raise UserError(f"{scores.none_scored()}; all are listed in {bad_file(out)}")
        _write(part, scores.lines)
    return scores


def _read(source: Checkpoint, mesh: Mesh | None, weights: str) -> tuple[ModelConfig, Params]:
    weights = kept_weights(source, weights)
    if weights or mesh is not None:
        return for_inference(source, weights, mesh)
    return source.here, source.params()


def _write(path: Path, lines: Iterable[Score | Dropped]) -> None:
    try:
        with path.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(json.dumps(line._asdict()) + "\n")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


@contextmanager
def _in_place_of(path: Path) -> Iterator[Path]:
    """A new file that takes the name `path` when the block ends well; else nothing is left of it.

    Raises UserError at once when there cannot be one.
    """
    if path.is_dir():
        raise UserError(f"--out={path} is a folder; name a file")
    if not path.parent.is_dir():
        raise UserError(f"--out={path}: there is no folder {path.parent}; make it first")
    with ExitStack() as opened:
        try:
            part = opened.enter_context(in_place_of(Path(os.path.realpath(path))))
        except OSError as error:
            raise UserError(f"--out={path} cannot be written: {error.strerror}") from error
        yield part
