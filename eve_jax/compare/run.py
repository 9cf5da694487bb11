"""What tells checkpoints apart, measured: `launch.compare`."""

import gc
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from eve_jax.checkpoint.named_step import find_checkpoint
from eve_jax.compare.cards import Card, answer_cards, paper_answers, read_cards
from eve_jax.compare.draw import draw
from eve_jax.compare.filters import filters_of
from eve_jax.compare.kept import FILE, Kept, stamp_of, stamp_of_cards, stamp_of_questions
from eve_jax.compare.page import page_of
from eve_jax.compare.questions import question_losses
from eve_jax.compare.weights import check_sizes, compared_weights
from eve_jax.data.samples.sample_rule import hash_of
from eve_jax.data.sources.records import Records, open_records
from eve_jax.data.view.document import write_text
from eve_jax.errors import UserError, amount, name_fields
from eve_jax.eval.passages import text_loss
from eve_jax.eval.text_loss import TextLoss
from eve_jax.infer.api import EVE
from eve_jax.process.files import write_json
from eve_jax.process.places import shown
from eve_jax.process.progress import spinner
from eve_jax.version import __version__, versioned
from eve_jax.weights.open import Checkpoint, open_checkpoint, stored_source

PARTS = ("weights", "texts", "questions", "filters", "cards")
JSON, PNG, HTML = "compare.json", "compare.png", "compare.html"
Unit = tuple[str, str, str]  # part, checkpoint, text: what is measured at a time


@dataclass(frozen=True)
class Asked:
    """What is compared. parts: of PARTS. limit: questions, 0 = all. max_new_tokens, fit: of an answer to a card."""

    checkpoints: tuple[str, ...]
    parts: tuple[str, ...]
    texts: tuple[Path, ...] = ()
    questions: str = ""
    images: str = ""
    limit: int = 64
    cards: Path | None = None
    max_new_tokens: int = 512
    fit: str = "fill"

    def __post_init__(self) -> None:
        """Raise UserError for parts and files that do not go together."""
        if unknown := [part for part in self.parts if part not in PARTS]:
            raise UserError(f"--parts: {unknown[0]!r} is none of {', '.join(PARTS)}")
        given = {"texts": bool(self.texts), "questions": bool(self.questions), "cards": self.cards is not None}
        for part, there in given.items():
            if part in self.parts and not there:
                raise UserError(f"--parts has {part}: name its file by --{part}")
            if there and part not in self.parts:
                raise UserError(f"--{part} is given, but --parts leaves {part} out")
        if "weights" in self.parts and len(self.checkpoints) < 2:
            raise UserError(
                "weights are compared with those of another checkpoint; name two, or leave weights out of --parts"
            )


@dataclass(frozen=True)
class Opened:
    """The inputs, all there before any model is read."""

    names: list[str]
    models: list[Checkpoint]
    texts: list[TextLoss]
    records: Records | None
    cards: list[Card]


class _Model:
    """A checkpoint that is read when it is first asked."""

    def __init__(self, name: str, checkpoint: Checkpoint, fit: str, quiet: bool):
        self.name, self.checkpoint, self.fit, self.quiet = name, checkpoint, fit, quiet

    @cached_property
    def eve(self) -> EVE:
        """The model."""
        with spinner(f"reading {self.name}", off=self.quiet):
            return EVE.from_pretrained(self.checkpoint.name, self.fit)

    def text(self, text: TextLoss) -> dict[str, Any]:
        """Return the loss on a text."""
        return dict(text_loss(self.eve, text, self.quiet))

    def questions(self, records: Records, limit: int) -> dict[str, Any] | None:
        """Return the losses of answers, None for a model that takes no images."""
        return question_losses(self.eve, records, limit, self.name, self.quiet) if self.eve.sees else None

    def cards(self, cards: list[Card], max_new_tokens: int) -> list[dict[str, Any]] | None:
        """Return the answers to cards, None for a model that takes no images."""
        return answer_cards(self.eve, cards, max_new_tokens, self.name, self.quiet) if self.eve.sees else None


def compare(asked: Asked, out: Path, quiet: bool = False) -> dict[str, Any]:
    """Compare checkpoints, the first with each of the others, and write JSON, PNG and HTML into the folder `out`.

    Returns the report, which the JSON file holds (docs/compare.md). Models are read one after the other. What is
    measured of one is kept at once (`eve_jax.compare.kept`), and not measured again by a rerun. Raises UserError before
    any work where files are missing or the weights of two models cannot be compared.
    """
    opened = _open(asked)
    out.mkdir(parents=True, exist_ok=True)
    kept, keys = Kept(out), _keys(asked, opened)
    if (before := kept.count(keys.values())) and not quiet:
        of_all = f"{before} of {amount(len(keys), 'measure')} kept from before ({FILE})"
        print(f"{shown(str(out))}: {of_all}", file=sys.stderr)
    report: dict[str, Any] = {
        "checkpoints": [_about(name, model) for name, model in zip(opened.names, opened.models, strict=True)]
    }
    filters = [filters_of(_source(model)) if "filters" in asked.parts else None for model in opened.models]
    if "weights" in asked.parts:
        first = opened.models[0]
        others = zip(opened.names[1:], opened.models[1:], strict=True)
        report["weights"] = {
            name: kept.measured(keys["weights", name, ""], _compared, first, model, name, quiet)
            for name, model in others
        }
    if {"texts", "questions", "cards"} & set(asked.parts):
        report |= _answered(asked, opened, kept, keys, quiet)
    if opened.cards:
        report["paper"] = paper_answers(opened.cards)
    write_json(out / JSON, versioned(report), indent=1, sort_keys=False)
    draw(report, filters, out / PNG)
    write_text(out / HTML, page_of(report, opened.cards, out / PNG))
    kept.drop_others(keys.values())
    return report


def _keys(asked: Asked, opened: Opened) -> dict[Unit, str]:
    """Return a hash of all that each measure follows from."""
    stamps = dict(zip(opened.names, map(stamp_of, opened.models), strict=True))
    units: dict[Unit, list[Any]] = {}
    if "weights" in asked.parts:
        units |= {("weights", name, ""): [stamps[opened.names[0]], stamps[name]] for name in opened.names[1:]}
    texts = {name: text.digest for name, text in zip(_text_names(asked), opened.texts, strict=True)}
    questions = "" if opened.records is None else stamp_of_questions(opened.records, asked.limit)
    cards = stamp_of_cards(opened.cards)
    for name, stamp in stamps.items():
        units |= {("texts", name, text): [stamp, digest] for text, digest in texts.items()}
        if questions:
            units["questions", name, ""] = [stamp, questions]
        if opened.cards:
            units["cards", name, ""] = [stamp, cards, asked.max_new_tokens, asked.fit]
    return {unit: hash_of([unit[0], __version__, *what]) for unit, what in units.items()}


def _open(asked: Asked) -> Opened:
    found = [find_checkpoint(name) for name in asked.checkpoints]
    names = _short(asked.checkpoints)
    models = [open_checkpoint(one) for one in found]
    if "weights" in asked.parts:
        for name, model in zip(names[1:], models[1:], strict=True):
            check_sizes((names[0], name), models[0].cfg, model.cfg)
    texts = [TextLoss(path) for path in asked.texts]
    for text in texts:
        next(text.passages())
    flags = {"data.records": "--questions", "data.images": "--images"}
    with name_fields(lambda field: flags.get(field, f"config.{field}")):
        records = open_records(asked.questions, asked.images) if asked.questions else None
    cards = read_cards(asked.cards, asked.images) if asked.cards is not None else []
    return Opened(names, models, texts, records, cards)


def _short(paths: Sequence[str]) -> list[str]:
    """The shortest ends of paths by which they differ, with a number where they are the same."""
    parts = [[part for part in path.rstrip("/").split("/") if part] or [path] for path in paths]
    most = max(map(len, parts))
    names = ["/".join(one[-1:]) for one in parts]
    for count in range(1, most + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


def _source(model: Checkpoint) -> Any:
    """What the folder itself holds: a plain LLM without the patch embedding that `open_checkpoint` makes for it."""
    if model.source is None:
        return stored_source(model.folder, model.step)
    return getattr(model.source, "source", model.source)


def _about(name: str, model: Checkpoint) -> dict[str, Any]:
    cfg, shapes = model.cfg, _source(model).shapes
    return {
        "name": name,
        "folder": str(model.name),
        "parameters": sum(math.prod(shape.shape) for shape in shapes.values()),
        "parts": list(cfg.parts),
        "patch_embed": cfg.patch_embed if any(n.startswith("patch_embed.") for n in shapes) else "",
        "layers": cfg.num_layers,
        "hidden_size": cfg.hidden_size,
    }


def _compared(before: Checkpoint, after: Checkpoint, name: str, quiet: bool) -> dict[str, Any]:
    return compared_weights(_source(before), _source(after), name, quiet)


def _text_names(asked: Asked) -> list[str]:
    return _short([str(path) for path in asked.texts]) if asked.texts else []


def _answered(asked: Asked, opened: Opened, kept: Kept, keys: dict[Unit, str], quiet: bool) -> dict[str, Any]:
    """What takes a model that runs: losses on texts, questions and cards, by the checkpoint's name."""
    found: dict[str, Any] = {part: {} for part in ("texts", "questions", "cards") if part in asked.parts}
    for name, checkpoint in zip(opened.names, opened.models, strict=True):
        one = _Model(name, checkpoint, asked.fit, quiet)
        for text_name, text in zip(_text_names(asked), opened.texts, strict=True):
            losses = kept.measured(keys["texts", name, text_name], one.text, text)
            found["texts"].setdefault(name, {})[text_name] = losses
        if opened.records is not None:
            key = keys["questions", name, ""]
            found["questions"][name] = kept.measured(key, one.questions, opened.records, asked.limit)
        if opened.cards:
            key = keys["cards", name, ""]
            found["cards"][name] = kept.measured(key, one.cards, opened.cards, asked.max_new_tokens)
        del one
        gc.collect()
    return found
