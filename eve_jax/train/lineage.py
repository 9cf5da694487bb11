"""What a stage's weights follow from: its settings, its data plan and the checkpoint it started from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from eve_jax.checkpoint.stage_folder import CONFIG, read_config, read_meta, steps_in
from eve_jax.config.from_hub import kept_fields
from eve_jax.config.optim import LATER_OPTIM
from eve_jax.config.stage import Config
from eve_jax.data.config import LATER_DATA
from eve_jax.data.rows.pipeline import StageData
from eve_jax.data.samples.data_fingerprint import OTHER_FOLDER
from eve_jax.data.samples.sample_rule import VISION_TOKENIZER, hash_of
from eve_jax.errors import UserError
from eve_jax.model.v1_config import V1_SWITCHES
from eve_jax.process.at_step import at_step
from eve_jax.process.connect import print_once
from eve_jax.version import VERSION_FIELD
from eve_jax.weights.stage_config import LATER_FAMILY, LATER_SWITCHES

# Fields that may differ between the parts of one run without changing a number of it. Paths are among them, since a
# work folder may be moved; the plan's hash tells whether the data behind them is the same.
FREE_FIELDS = (
    VERSION_FIELD,
    "init",
    "teacher",
    "encoder",
    "model.llm",
    "model.attention_blocks",
    "mesh",
    "track",
    "compile.options",
    "profile.steps",
    "data.records",
    "data.images",
    "data.tokenizer",
    "data.vision_tokenizer",
    "data.workers",
    "data.threads",
    "data.prefetch",
    "data.max_bad",
    "data.max_pixels",
    "data.timeout",
    "train.log_every",
    "train.save_every",
    "train.keep",
    "train.keep_every",
    "train.keep_best",
    "train.best_by",
    "train.whole",
    "train.nan",
    "train.timeout",
    "train.local_dir",
    "train.local_every",
    "train.metrics",
    "train.writers",
)

BEFORE = {"data.special_text": True}  # what was done before it was a field
# The values of later fields that stand for what was before them.
SAME: dict[str, Any] = {"model.codes": 0, "lora.rank": 0} | {
    f"{section}.{name}": list(value) if isinstance(value, tuple) else value
    for section, later in (
        ("model", LATER_SWITCHES),
        ("model", LATER_FAMILY),
        ("model", V1_SWITCHES),
        ("optim", LATER_OPTIM),
        ("data", LATER_DATA),
    )
    for name, value in later.items()
}


def identity(config: Config, data: StageData, saved: dict[str, Any]) -> dict[str, Any]:
    """Return what goes with every checkpoint: fingerprint of the data, hash of the plan, the origin's lineage, its own.

    `saved` is what went with the last one; the origin is taken from there when the stage before is gone.
    """
    origin = _origin(config) or saved.get("origin", "")
    settings = {k: v for k, v in _settings(json.loads(config.to_json())).items() if not _is_free(k) and v is not None}
    sources = [{k: v for k, v in one.items() if k not in ("name", "groups")} for one in data.fingerprint["sources"]]
    parts = {part: own for part, own in data.fingerprint.items() if part != VISION_TOKENIZER}  # "image_rule" covers it
    lineage = hash_of([settings, parts | {"sources": sources}, data.plan.hash, origin])
    return {"plan": data.plan.hash, "origin": origin, "lineage": lineage, "data": data.fingerprint}


def _origin(config: Config) -> str:
    """Lineage of the checkpoint that the stage starts from; "" when it has none or is not there (any more).

    All steps of a run have one lineage, so that of a step which `init` names ends with it.
    """
    place, step = at_step(config.init)
    steps = steps_in(Path(place)) if place else []
    if step is not None:
        lineage = read_meta(Path(place), step).get("lineage", "") if step in steps else ""
        return f"{lineage}@{step}" if lineage else ""
    return read_meta(Path(place), steps[-1]).get("lineage", "") if steps else ""


def check_identity(folder: Path, saved: dict[str, Any], now: dict[str, Any]) -> None:
    """UserError when the last checkpoint comes from other data, or from another checkpoint than there is now."""
    if saved and saved.get("plan") != now["plan"]:
        raise UserError(
            f"{folder}: the data plan is not the last checkpoint's (records or tokenizer have changed); {OTHER_FOLDER}"
        )
    if saved and saved.get("origin") != now["origin"]:
        raise UserError(f"{folder} was trained from another checkpoint than config.init now holds; {OTHER_FOLDER}")


def as_begun(folder: Path, config: Config) -> Config:
    """Return `config` with what the checkpoints of the folder were trained with: commits of the hub, older settings.

    Raise UserError where another commit is named now.
    """
    if not steps_in(folder) or not (folder / CONFIG).exists():
        return config
    began = read_config(folder)
    kept = kept_fields(began, values := config.to_dict())
    if kept != values:
        config = Config.from_values(kept)
    data = began.get("data")
    if config.data.special_text or not isinstance(data, dict) or "special_text" in data:
        return config
    print_once(
        f"{folder}: was begun when special tokens in texts of records were always read as such; it stays so "
        "(config.data.special_text=True)"
    )
    return replace(config, data=replace(config.data, special_text=True))


def check_settings(folder: Path, config: Config) -> None:
    """UserError, which names the field, when the checkpoints of the folder were trained with other settings."""
    if not steps_in(folder) or not (folder / CONFIG).exists():
        return
    old, new = _settings(read_config(folder)), _settings(json.loads(config.to_json()))
    old = {key: value for key, value in BEFORE.items() if key in new} | old
    for key in dict.fromkeys((*_flat(config.to_dict()), *old)):  # a choice before what goes with it
        if not _is_free(key) and old.get(key) != new.get(key):
            before, now = (values.get(key, SAME.get(key)) for values in (old, new))
            raise UserError(f"{folder} was trained with config.{key}={before}, now it is {now}; {OTHER_FOLDER}")


def _is_free(key: str) -> bool:
    """Whether the field `key` may change; those of evaluation change no number of the training."""
    return key in FREE_FIELDS or key.startswith("eval.")


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config.json, but for later ones with the value that stands for what was before them."""
    flat = _flat(config)
    if not flat.get("lora.rank"):
        flat = {key: value for key, value in flat.items() if not key.startswith("lora.")}
    return {key: value for key, value in flat.items() if key not in SAME or value != SAME[key]}


def _flat(tree: dict[str, Any], at: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= _flat(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return out
