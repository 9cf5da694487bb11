"""Questions with given answers: the answers' losses with the images and with blank ones, and their attention."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from eve_jax.batch import batch_arrays, zeros
from eve_jax.compare.attention import watch
from eve_jax.data.image.patches import Pixels, cut, open_pixels
from eve_jax.data.image_file import BadImage
from eve_jax.data.record import BadRecord
from eve_jax.data.rows.build import lay_out
from eve_jax.data.rows.spell import Sample
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import Records
from eve_jax.errors import UserError
from eve_jax.infer.api import EVE
from eve_jax.infer.cache import bucket
from eve_jax.infer.prompt import Prompt
from eve_jax.infer.score import ScoreSettings
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Batch, Params
from eve_jax.process.progress import tracked

GRAY = 128


class Question(NamedTuple):
    """A record with its images."""

    id: str
    ids: np.ndarray
    labels: np.ndarray
    images: list[Pixels]


class Seen(NamedTuple):
    """Sum of the losses of an answer's tokens (nats), their number, and the mean share of attention by layer."""

    nll: float
    targets: int
    shares: np.ndarray


def question_losses(eve: EVE, records: Records, limit: int, label: str, quiet: bool = False) -> dict[str, Any]:
    """Return the losses of the first `limit` records' answers (0: of all), with their images and with gray ones.

    {"n", "loss", "blank_loss", "gap", "gap_se", "attention": [share a layer], "visible": share of image tokens among
    those that an answer's tokens see, "each": [{"id", "loss", "blank_loss"}]}. Losses are means over answers of their
    means over tokens; `gap_se` is the standard error of the paired gap. Records as the checkpoint was trained with
    them, computed in float32. Raises UserError for a record that cannot be read or has no image, and for a model that
    takes none.
    """
    if not eve.sees:
        raise UserError("this checkpoint has no trained image input")
    rule = replace(ScoreSettings.of(eve.data, eve.tokenizer).rule, layout=eve.engine.cfg.layout)
    count = min(limit or len(records), len(records))
    config, params = replace(eve.engine.cfg, dtype="float32"), eve.engine.params
    each: list[dict[str, Any]] = []
    shares, visible = [], []
    for index in tracked(range(count), f"questions to {label}", "questions", off=quiet):
        question = read_question(records, index, rule)
        row = _row(config, *_sample(rule, question))
        seen = _asked(config, params, row, question.id)
        gray = question._replace(images=[_gray(image) for image in question.images])
        blank = _asked(config, params, _row(config, *_sample(rule, gray)), question.id)
        each.append({"id": question.id, "loss": seen.nll / seen.targets, "blank_loss": blank.nll / blank.targets})
        shares.append(seen.shares)
        visible.append(_visible(row))
    gaps = np.array([one["blank_loss"] - one["loss"] for one in each])
    return {
        "n": count,
        "loss": _mean(each, "loss"),
        "blank_loss": _mean(each, "blank_loss"),
        "gap": float(gaps.mean()),
        "gap_se": float(gaps.std(ddof=1) / math.sqrt(count)) if count > 1 else None,
        "attention": np.mean(shares, axis=0).tolist(),
        "visible": float(np.mean(visible)),
        "each": each,
    }


def _mean(each: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([one[name] for one in each]))


def _gray(image: Pixels) -> Pixels:
    return Pixels(np.full_like(image.rgb, GRAY), image.size)


def named(where: str, error: Exception) -> str:
    """Return what is wrong with a record, with its place where the message does not begin with it."""
    return str(error) if str(error).startswith(where) else f"{where}: {error}"


def read_question(records: Records, index: int, rule: SampleRule) -> Question:
    """Return record `index` as `rule` writes it. Raises UserError naming the record that cannot be asked."""
    where = records.where(index)
    try:
        record = records[index]
        ids, labels = rule.encode(record)
        images = [open_pixels(file, rule.images) for file in record.images]
    except (BadRecord, BadImage) as error:
        raise UserError(named(where, error)) from error
    if not images:
        raise UserError(f"{where}: the question has no image; give questions with images by --questions")
    return Question(record.id, ids, labels, images)


def _asked(cfg: ModelConfig, params: Params, batch: Batch, id: str) -> Seen:
    nll, shares = jax.device_get(watch(cfg, params, batch))
    counts = batch["loss_weight"][0] > 0
    total = float(nll[0, counts].sum(dtype=np.float64))
    if not counts.any():
        raise UserError(f"question {id!r} has no answer to learn: its last turn must be an answer")
    if not math.isfinite(total):
        raise UserError(f"question {id!r}: its loss is {total}: weights or activations are not finite")
    return Seen(total, int(counts.sum()), shares[:, 0, counts].mean(axis=1))


def _sample(rule: SampleRule, question: Question) -> tuple[Sample, list[np.ndarray]]:
    cuts = [cut(image, rule.images) for image in question.images]
    grids = [grid for _, grid in cuts]
    return Sample(question.ids, question.labels, grids), [patches for patches, _ in cuts]


def _row(cfg: ModelConfig, sample: Sample, patches: Sequence[np.ndarray]) -> Batch:
    shape = bucket(Prompt(sample.ids, (), sample.grids, cfg.layout).need)
    batch = zeros(batch_arrays(1, shape, cfg.patch_bytes, layout=cfg.layout))
    for name, values in lay_out([sample], shape, cfg.layout).items():
        batch[name][0] = values
    every = np.concatenate(patches)
    batch["patches"][0, : len(every)] = every
    return batch


def _visible(row: Batch) -> float:
    """The mean share of image tokens among all that the predictors of the answer see: attention that does not look."""
    at = row["inv"][0, row["loss_idx"][0, row["loss_weight"][0] > 0]]
    image = row["perm"][0] < row["patches"].shape[1] + row["special_ids"].shape[1]
    return float(np.mean([image[: place + 1].mean() for place in at]))
