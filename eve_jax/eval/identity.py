"""What the answers in a folder are of: OUT/run.json, and the refusal to mix them with those of anything else.

What changes no answer is not part of it: the batch size, the devices, --limit, the path of the checkpoint, the version
of eve_jax (which is noted).
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eve_jax.checkpoint.weight_fingerprint import fingerprints
from eve_jax.data.samples.sample_rule import hash_of, tokenizer_hash
from eve_jax.errors import UserError, shorten
from eve_jax.eval.answers import FOLDER
from eve_jax.eval.sources.base import Rows
from eve_jax.infer.api import EVE
from eve_jax.model.quantized import plain
from eve_jax.process.files import read_json, write_json
from eve_jax.version import VERSION_FIELD, __version__

RUN = "run.json"
Facts = dict[str, Any]


def model_facts(eve: EVE) -> Facts:
    """Return what a model's answers depend on: its weights as a hash, and how prompts are made.

    With several processes, all must call it.
    """
    rule, cfg = eve.rule, eve.engine.cfg
    return {
        "weights": hash_of(fingerprints(plain(eve.engine.weights))),
        "dtype": str(cfg.dtype),
        "tokenizer": tokenizer_hash(rule.tokenizer),
        "template": rule.template,
        "image_first": rule.image_first,
        **({"special_text": True} if rule.special_text else {}),
        "positions": eve.positions,
        **{f"image {name}": _plain(value) for name, value in asdict(rule.images).items() if _counts(name, value)},
    }


def _counts(name: str, value: Any) -> bool:
    """Whether a field of the image rule decides answers; the vocabulary where there is one."""
    return name not in ("max_pixels", "coder") and (name != "vocabulary" or bool(value))


def task_facts(rows: Rows) -> Facts:
    """Return what the answers to a task depend on: its generation settings and its data."""
    return {"data": rows.digest, **{name: _plain(value) for name, value in asdict(rows.task.generation).items()}}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check_run(out: Path, model: Facts, tasks: Mapping[str, Facts], about: Facts) -> None:
    """Enter the model and `tasks` into `out`/run.json, with `about`, which is not compared.

    Raises UserError that names what differs where the folder's answers are of another model, of a task's other
    settings, or of other data.
    """
    path = out / RUN
    remedy = f"choose another --out, or remove {out} to ask everything again"
    if not path.exists():
        if any((out / FOLDER).glob("*.jsonl")):
            raise UserError(f"{out}: has answers, but no {RUN} that says of which model; {remedy}")
        saved: Facts = {"model": model, "tasks": {}}
    else:
        saved = read_json(path)
    if not isinstance(saved.get("model"), dict) or not isinstance(saved.get("tasks"), dict):
        raise UserError(f"{path}: not written by launch.eval; {remedy}")
    _compare(path, "the model's ", saved["model"], model, remedy)
    for name, facts in tasks.items():
        if name in saved["tasks"]:
            _compare(path, f"{name}: ", saved["tasks"][name], facts, remedy)
    version = saved.get(VERSION_FIELD, __version__)
    if version != __version__:
        print(f"note: {out} has answers by eve_jax {version}, which are kept; this is {__version__}", file=sys.stderr)
    write_json(path, {**about, "model": model, "tasks": saved["tasks"] | dict(tasks), VERSION_FIELD: version})


def _compare(path: Path, whose: str, saved: Facts, now: Facts, remedy: str) -> None:
    changed = [name for name in dict.fromkeys([*saved, *now]) if saved.get(name) != now.get(name)]
    if not changed:
        return
    said = [f"{name} ({_shown(saved.get(name))} in {path.name}, now {_shown(now.get(name))})" for name in changed]
    raise UserError(f"{path.parent}: its answers were given otherwise; changed: {whose}{', '.join(said)}; {remedy}")


def _shown(value: Any) -> str:
    return shorten(str(value), 40)
