"""What a stage's weights follow from: its settings, its data plan and the checkpoint it started from."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from eve_jax.errors import UserError
from eve_jax.hosts.start import leads
from eve_jax.train.checkpoint import CONFIG, read_config, read_meta, steps_in

# Fields that may differ between the parts of one run without changing a number of it. Paths are among them, since a
# work folder may be moved; the plan's hash tells whether the data behind them is the same.
FREE_FIELDS = (
    "init",
    "teacher",
    "model.llm",
    "mesh",
    "profile.steps",
    "data.records",
    "data.images",
    "data.tokenizer",
    "data.threads",
    "data.prefetch",
    "data.max_bad",
    "data.timeout",
    "train.log_every",
    "train.save_every",
    "train.keep",
    "train.keep_every",
    "train.keep_best",
    "train.whole",
    "train.nan",
)
OTHER_FOLDER = "use another --workdir, or remove the folder and those of the stages after it"


def identity(config: ConfigDict, plan_hash: str, saved: dict[str, Any]) -> dict[str, str]:
    """Hashes of the plan, of the origin's lineage and of all together, which go with every checkpoint.

    `saved` is what went with the last one; the origin is taken from there when the stage before is gone.
    """
    origin = _origin(config) or saved.get("origin", "")
    settings = {k: v for k, v in _flat(json.loads(config.to_json())).items() if k not in FREE_FIELDS and v is not None}
    text = json.dumps([settings, plan_hash, origin], sort_keys=True)
    return {"plan": plan_hash, "origin": origin, "lineage": hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}


def _origin(config: ConfigDict) -> str:
    """Lineage of the checkpoint that the stage starts from; "" when it has none or is not there (any more)."""
    steps = steps_in(Path(config.init)) if config.init else []
    return read_meta(Path(config.init), steps[-1]).get("lineage", "") if steps else ""


def check_identity(folder: Path, saved: dict[str, Any], now: dict[str, str]) -> None:
    """UserError when the last checkpoint comes from other data, or from another checkpoint than there is now."""
    if saved and saved.get("plan") != now["plan"]:
        raise UserError(
            f"{folder}: the data plan is not the last checkpoint's (records or tokenizer have changed); {OTHER_FOLDER}"
        )
    if saved and saved.get("origin") != now["origin"]:
        raise UserError(f"{folder} was trained from another checkpoint than config.init now holds; {OTHER_FOLDER}")


def adopt(folder: Path, config: ConfigDict) -> None:
    """Write config.json of the folder, or check that it agrees with the one of the checkpoints that are there."""
    mine = json.loads(config.to_json())
    path = folder / CONFIG
    if not steps_in(folder) or not path.exists():
        if leads():
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(mine, indent=1, sort_keys=True))
            temporary.replace(path)
        return
    old, new = _flat(read_config(folder)), _flat(mine)
    for key in sorted(old.keys() | new.keys()):
        if key not in FREE_FIELDS and old.get(key) != new.get(key):
            raise UserError(
                f"{folder} was trained with config.{key}={old.get(key)}, now it is {new.get(key)}; {OTHER_FOLDER}"
            )


def _flat(tree: dict[str, Any], at: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= _flat(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return out
