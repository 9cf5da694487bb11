"""Fields of a config that name something of the Hugging Face hub: they lead to one commit, which a run keeps."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from eve_jax.data.sources.hub_files import pinned_records
from eve_jax.process.hub import local_model, pinned

MODELS = ("init", "teacher", "encoder", "model.llm", "data.tokenizer")
RECORDS = ("data.records", "eval.records")


def fetched_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config, of a stage or a recipe, with names of the hub led to commits.

    A model is the folder of the hub's cache, of which the weights are fetched when they are read; a data set is named
    by its commit. Raise UserError when the hub does not give them.
    """
    found = dict(values)
    for field in MODELS:
        found = _changed(found, field, local_model)
    for field in RECORDS:
        found = _changed(found, field, pinned_records)
    if isinstance(stages := found.get("stages"), Mapping):
        found["stages"] = {k: fetched_fields(v) if isinstance(v, Mapping) else v for k, v in stages.items()}
    return found


def kept_fields(began: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values `now` of a run that began with the values `began`: what it began with of the hub, it keeps.

    Raise UserError where another commit is named now.
    """
    found = dict(now)
    for field in (*MODELS, *RECORDS):
        section, _, name = field.rpartition(".")
        first = (began.get(section) if section else began) or {}
        before = first.get(name) if isinstance(first, Mapping) else None
        if isinstance(before, str) and before:
            found = _changed(found, field, partial(_kept, before, field))
    return found


def _kept(before: str, field: str, now: str) -> str:
    return pinned_records(now, before) if field in RECORDS else pinned(before, now, field)


def _changed(values: dict[str, Any], field: str, change: Callable[[str], str]) -> dict[str, Any]:
    section, _, name = field.rpartition(".")
    inner = values.get(section) if section else values
    if not isinstance(inner, Mapping) or not isinstance(inner.get(name), str) or not inner[name]:
        return values
    changed = {**inner, name: change(inner[name])}
    return {**values, section: changed} if section else changed
