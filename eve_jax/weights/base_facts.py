"""What is known of the model that training began with, for the card of what came of it: STAGE/base.json.

{"name": "ORG/NAME" or the folder's name, "commit": of the hub or "", "license", "license_name", "license_link"}
"""

from pathlib import Path

from eve_jax.process.files import read_json, write_json
from eve_jax.process.hub import CARD, Snapshot, front_matter

BASE = "base.json"
LICENSE = ("license", "license_name", "license_link")  # fields of a card's front matter


def base_facts(folder: Path) -> dict[str, str]:
    """Return what base.json of a stage's folder says; of a Hugging Face folder, its name and its card's license.

    {} for a stage that has no such file. Raise UserError for a card that cannot be read.
    """
    if (folder / BASE).is_file():
        return {name: str(value) for name, value in read_json(folder / BASE).items()}
    if "model" in read_json(folder / "config.json"):
        return {}
    kept, meta = Snapshot.of(folder), front_matter(folder / CARD)
    facts = {"name": kept.id if kept else folder.resolve().name, "commit": kept.commit if kept else ""}
    return facts | {name: str(meta[name]) for name in LICENSE if isinstance(meta.get(name), str)}


def keep_base_facts(origin: Path, folder: Path) -> None:
    """Write base.json of `folder`, which begins with the model in `origin`, unless nothing is known of that."""
    if facts := base_facts(origin):
        write_json(folder / BASE, facts)
