"""Scoring: the loss of every record under a model, the same whatever rows its tokens share.

    records -> lengths -> plan of packed rows -> -log p of every target -> sums by sample -> a line a record, in order

Records that cannot be scored are listed apart with the reason, never left out in silence.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from eve_jax import sharding
from eve_jax.batch import ROW_MULTIPLE, RowShape
from eve_jax.data.image.rule import ImageRule
from eve_jax.data.plan.lengths import Dropped, Lengths
from eve_jax.data.plan.plan import Plan, PlanSettings, build_plan
from eve_jax.data.record import BadRecord
from eve_jax.data.rows.build import Batch, RowBuilder
from eve_jax.data.rows.loader import loader
from eve_jax.data.samples.measure import measure
from eve_jax.data.samples.sample_rule import NO_LIMIT, SampleRule
from eve_jax.data.sources.records import Records
from eve_jax.data.text.own_template import named_template
from eve_jax.data.text.templates import check_template
from eve_jax.data.text.tokenizer import Tokenizer
from eve_jax.errors import amount, name_arguments
from eve_jax.hf.vision_tokenizer import with_coder
from eve_jax.infer.cache import round_up
from eve_jax.infer.finite import cause
from eve_jax.infer.parameters import on_mesh
from eve_jax.model.config import ModelConfig
from eve_jax.model.eve import Params, bind
from eve_jax.model.loss import target_losses
from eve_jax.process.checks import known_names, of_type, whole
from eve_jax.process.progress import ProgressBar

MAX_SHAPES = 4  # row shapes, each compiled once
PREFETCH = 4  # batches built ahead
OF_IMAGES = ("fit", "max_size", "max_aspect")  # settings of the image rule
CHANGES = ("template", "image_first", "special_text", "max_tokens", "row_tokens", "rows", "threads", *OF_IMAGES)


class Score(NamedTuple):
    """One record: its mean loss over the targets and the sum (nats), and its numbers of targets, tokens (image tokens
    included) and vision tokens."""

    id: str
    loss: float
    nll_sum: float
    n_target: int
    n_tokens: int
    n_vision: int


@dataclass(frozen=True, eq=False)
class Scores:
    """The records that were scored, in their order, and those that could not be (`bad`), in theirs."""

    lines: list[Score]
    bad: list[Dropped]

    @property
    def loss(self) -> float:
        """Mean over the targets of all records, nats; NaN when nothing was scored."""
        targets = sum(line.n_target for line in self.lines)
        return sum(line.nll_sum for line in self.lines) / targets if targets else float("nan")

    def none_scored(self) -> str:
        """Return the message of an error for scores without a line, or with few."""
        if not self.bad:
            return "there is no record to score"
        first, total = self.bad[0], len(self.bad) + len(self.lines)
        few = f"{len(self.bad):,} of {amount(total, 'record')} cannot be scored" if self.lines else ""
        what = few or f"none of the {amount(total, 'record')} can be scored"
        return f"{what}; the first, {first.described}"

    def summary(self) -> str:
        """One line for people."""
        tokens, vision = (sum(getattr(line, name) for line in self.lines) for name in ("n_tokens", "n_vision"))
        return (
            f"{amount(len(self.lines), 'record')}, {amount(tokens, 'token')} ({vision / max(tokens, 1):.0%} vision), "
            f"{amount(sum(line.n_target for line in self.lines), 'target')}: mean loss {self.loss:.4f} nats a target"
        )


@dataclass(frozen=True)
class ScoreSettings:
    """How records become samples, and samples rows.

    rule: longer samples than its `max_tokens` are not scored. row_tokens: slots of a row; rows are longer where a
    sample needs it. rows: of a batch. threads: build batches.
    """

    rule: SampleRule
    row_tokens: int = 4096
    rows: int = 2
    threads: int = 2

    @classmethod
    @name_arguments(*CHANGES)
    def of(cls, data: Mapping[str, Any], tokenizer: Tokenizer, **changes: Any) -> Self:
        """The settings for a checkpoint with this `config.data`; `changes` are named in CHANGES, None changes nothing.

        max_tokens: 0 = no limit, by default the limit that an imported checkpoint states (`token_limit`). Raises
        UserError naming a wrong one.
        """
        known_names(changes, CHANGES, "setting")
        given = {name: value for name, value in changes.items() if value is not None}
        images = ImageRule.of(data, **{name: given.pop(name) for name in OF_IMAGES if name in given})
        flags = {name: given.pop(name, data.get(name, False)) for name in ("image_first", "special_text")}
        for name, value in flags.items():
            of_type(name, value, "True or False", bool)
        most = given.pop("max_tokens", data.get("token_limit", 0))
        most = whole("max_tokens", most, "a whole number of at least 0", 0) or NO_LIMIT
        template = named_template(given.pop("template", data["template"]), tokenizer.folder or "")
        images = with_coder(images, tokenizer.folder)
        rule = SampleRule(tokenizer, images, template, max_tokens=most, **flags)
        check_template(tokenizer, rule.template)
        return cls(rule, **given)

    def __post_init__(self) -> None:
        for name, low in (("row_tokens", 1), ("rows", 1), ("threads", 0)):
            whole(name, getattr(self, name), f"a whole number of at least {low}", low)


class _Unscored:
    """Takes the reports of the threads that build rows: the reason of each bad record by where it stands."""

    def __init__(self, dropped: Iterable[Dropped]):
        self.found = {one.where: one for one in dropped}

    def report(self, where: str, id: str, image: str, reason: str) -> None:
        """Lists one record."""
        self.found[where] = Dropped(where, id, image, reason)


def score_records(
    cfg: ModelConfig,
    params: Params,
    records: Records,
    settings: ScoreSettings,
    quiet: bool = False,
    mesh: Mesh | None = None,
) -> Scores:
    """Scores every record by the next-token loss of docs/model.md#loss, in packed rows.

    On the `mesh` of `params`, if they lie on one, batches have rows for all its parts, and each of its processes gets
    all scores. No record is left out for its length unless `settings.rule.max_tokens` is set. Raises UserError when the
    tokenizer does not fit the model, or for a template that is unknown.
    """
    rule = replace(settings.rule, layout=cfg.layout)
    settings = replace(settings, rule=rule, rows=round_up(settings.rows, sharding.batch_parts(mesh)))
    rule.tokenizer.check_vocabulary(cfg.vocab_size, "the model's vocabulary")
    check_template(rule.tokenizer, rule.template)
    lengths = measure(records, rule)
    bad = _Unscored(lengths.dropped)
    nll, targets = np.zeros(len(lengths)), np.zeros(len(lengths), np.int64)
    if len(lengths):
        plan = _plan(lengths, settings)
        builder = RowBuilder(records, lengths, rule, bad)

        def add_up(plan: Plan, what: str) -> None:
            with ProgressBar(
                what, len(plan.entries), unit="records", status="compiling ...", keep=True, off=quiet
            ) as bar:
                for step, (batch,) in loader(plan, builder, threads=settings.threads, prefetch=PREFETCH):
                    rows = plan.step(step)[0].rows
                    _add_up(
                        batch, np.asarray(_target_losses(cfg, mesh, params, on_mesh(mesh, batch))), rows, nll, targets
                    )
                    bar.advance(sum(map(len, rows)))

        add_up(plan, "scoring")
        again = _alone(plan, lengths, ~np.isfinite(nll))
        if again.steps:
            add_up(again, "scoring alone what shared a row with a loss that is not finite")
    why = "" if np.isfinite(nll).all() else cause(cfg, params)
    return _in_order(records, lengths, nll, targets, bad, why)


def _plan(lengths: Lengths, settings: ScoreSettings) -> Plan:
    """Rows that hold every sample."""
    counts = np.stack([lengths.patches, lengths.specials, lengths.text])
    longest = int(counts.sum(axis=0).max())
    roomiest = int(counts.max(axis=1).sum())  # in rows of this length a single shape holds every sample
    for need in (longest, roomiest):
        row_tokens = -(-max(settings.row_tokens, need) // ROW_MULTIPLE) * ROW_MULTIPLE
        of_plan = PlanSettings(row_tokens, MAX_SHAPES, settings.rows, micro_batches=1, epochs=1, seed=0)
        plan = build_plan(lengths, of_plan)
        if not len(plan.left_out):
            return plan
    raise ValueError(f"rows of {row_tokens} slots do not hold every sample")


def _alone(plan: Plan, lengths: Lengths, broken: np.ndarray) -> Plan:
    """Each of the entries `broken` (bool, by entry) that shares its row in `plan`, in a row of its own.

    A single record whose activations are not finite makes all losses of its row so: attention weighs its values by 0.
    Empty slots are computed, too, so a record without an image gets a row without slots for one.
    """
    apart: dict[RowShape, list[int]] = {}
    texts = np.flatnonzero(broken & (lengths.patches == 0))
    text_only = RowShape(0, 0, -(-int(lengths.text[texts].max(initial=1)) // ROW_MULTIPLE) * ROW_MULTIPLE)
    for index, shape in enumerate(plan.batch_shape):
        for row in plan.micro_batch(index).rows:
            for entry in row:
                own = plan.shapes[shape] if lengths.patches[entry] else text_only
                if broken[entry] and (len(row) > 1 or own != plan.shapes[shape]):
                    apart.setdefault(own, []).append(entry)
    batches = [-(-len(entries) // plan.rows) for entries in apart.values()]
    counts = [np.arange(n * plan.rows) < len(part) for part, n in zip(apart.values(), batches, strict=True)]
    return replace(
        plan,
        shapes=tuple(apart),
        batch_shape=np.repeat(np.arange(len(apart), dtype=np.uint8), batches),
        entries=np.array([entry for part in apart.values() for entry in part], np.int32),
        first=np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(counts))]) if counts else plan.first[:1],
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _target_losses(cfg: ModelConfig, mesh: Mesh | None, params: Params, batch: Batch) -> Float[Array, "R T"]:
    with sharding.use(mesh):
        return sharding.constrain(target_losses(bind(cfg, params), batch), None, None)


def _add_up(
    batch: Batch, losses: np.ndarray, rows: Sequence[Sequence[int]], nll: np.ndarray, targets: np.ndarray
) -> None:
    """Write each entry's sum (float64) of `losses` [R, T] into `nll` and its number of targets into `targets`."""
    segment = np.take_along_axis(batch["segment"], batch["loss_idx"], axis=1)
    for number, entries in enumerate(rows):
        learnt = batch["loss_weight"][number] > 0
        sample = segment[number, learnt] - 1
        nll[list(entries)] = np.bincount(sample, losses[number, learnt], len(entries))
        targets[list(entries)] = np.bincount(sample, minlength=len(entries))


def _in_order(
    records: Records, lengths: Lengths, nll: np.ndarray, targets: np.ndarray, bad: _Unscored, why: str
) -> Scores:
    """The scores in the records' order; `why` is the cause of losses that are not finite."""
    lines: list[Score] = []
    unscored: list[Dropped] = []
    entries = np.full(len(records), -1)
    entries[lengths.record] = np.arange(len(lengths))
    for index, entry in enumerate(entries.tolist()):
        where = records.where(index)
        if where in bad.found:
            unscored.append(bad.found[where])
            continue
        total, n = float(nll[entry]), int(targets[entry])
        vision = int(lengths.patches[entry] + lengths.specials[entry])
        try:
            id = records[index].id
        except BadRecord as e:
            unscored.append(Dropped(where, e.id, "", f"the record changed since it was measured: {e.reason}"))
            continue
        if not n:
            unscored.append(Dropped(where, id, "", "it has no target, so it has no loss"))
        elif np.isfinite(total):
            lines.append(Score(id, total / n, total, n, vision + int(lengths.text[entry]), vision))
        else:
            reason = f"its loss is {total}: its activations are not finite; {why}"
            unscored.append(Dropped(where, id, "", reason))
    return Scores(lines, unscored)
