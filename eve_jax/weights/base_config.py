"""What a stage folder keeps of the model that it was trained from, and where the paths of its config lead.

    STAGE/hf_config.json    config.json of the base's Hugging Face folder; {} for a model that began with random weights
    STAGE/paths.json        {field of config.json: {"relative": to STAGE, "absolute": ...}, or a list of such}

Both are written when a stage starts, so that an export does not depend on the current folder or on what has been moved
or removed since. Older stage folders have neither: there the chain of `init` is followed to the base.
"""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eve_jax.checkpoint.stage_folder import CONFIG, read_config, steps_in
from eve_jax.config.stage import Config
from eve_jax.errors import UserError
from eve_jax.hf.family import llm_part, member
from eve_jax.hf.llava import text_section
from eve_jax.process.at_step import folder_of
from eve_jax.process.checks import whole
from eve_jax.process.connect import is_leader, print_once
from eve_jax.process.files import read_json, write_json
from eve_jax.process.stored_path import StoredPath
from eve_jax.weights.base_facts import BASE, keep_base_facts
from eve_jax.weights.stage_config import stage_config

HF_CONFIG = "hf_config.json"
PATHS = "paths.json"
# Fields of a stage's config that hold a path; those of LISTS hold several, separated by commas.
FIELDS = ("init", "teacher", "encoder", "model.llm", "data.images", "data.tokenizer", "data.vision_tokenizer")
LISTS = ("data.records",)
# Sizes by which a base's config is recognized as that of the model: name there, field of `ModelConfig`.
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
}


def carried_config(folder: Path) -> dict[str, Any]:
    """Return the Hugging Face config of the model in `folder`, or of the one that it was trained from; {} if none is.

    Raise UserError when there was one and it cannot be found, or when what is found is of another model.
    """
    found, file = _follow(folder, ())
    config = read_config(folder)
    if "model" in config:
        cfg, _ = stage_config(folder)
        stated, bare = text_section(llm_part(found)), not member(found)
        for theirs, ours in SIZES.items():
            here = getattr(cfg, ours) - (cfg.extra_layers if bare and ours == "num_layers" else 0)
            if stated.get(theirs, here) != here:
                raise UserError(
                    f"{file} is of another model than {folder}: {theirs} is {stated[theirs]} there, {here} here; "
                    f"{_remedy(folder)}"
                )
    return found


def _follow(folder: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], Path]:
    """Return the base's config of `folder`, to which the stages `seen` lead, and the file that holds it."""
    if (folder / HF_CONFIG).is_file():
        return read_json(folder / HF_CONFIG), folder / HF_CONFIG
    config = read_config(folder)
    if "model" not in config or not config.get("init"):
        return ({} if "model" in config else config), folder / CONFIG
    if folder.resolve() in seen:
        raise UserError(f"{folder / CONFIG}: config.init leads back to this folder; {_remedy(folder)}")
    places = _origins(folder, str(config["init"]))
    first, *others = [_follow(place, (*seen, folder.resolve())) for place in places]
    for place, other in zip(places[1:], others, strict=True):
        if other[0] != first[0]:
            raise UserError(
                f"{folder} was trained from {config['init']}, which may be {places[0]} or {place}; {_remedy(folder)}"
            )
    return first


def keep_base(folder: Path, config: Config) -> None:
    """Write hf_config.json and paths.json of the stage `folder` that is about to train, or to resume, with `config`.

    A folder with checkpoints keeps the hf_config.json that it has. Warns when the base's config cannot be found.
    """
    if not is_leader():
        return
    resumes = bool(steps_in(folder))
    kept = read_json(folder / PATHS) if resumes and (folder / PATHS).is_file() else {}
    write_json(folder / PATHS, kept | stored_paths(config, folder))
    if resumes and (folder / HF_CONFIG).is_file():
        return
    (folder / HF_CONFIG).unlink(missing_ok=True)  # of a run that ended before its first checkpoint
    (folder / BASE).unlink(missing_ok=True)
    try:
        if config.init:
            keep_base_facts(Path(folder_of(config.init)), folder)
        write_json(folder / HF_CONFIG, base_config(folder, config))
    except UserError as error:
        print_once(f"warning: {error}")


def base_config(folder: Path, config: Config) -> dict[str, Any]:
    """Return the Hugging Face config that the stage `folder` carries, or will when `config` has begun it; {} for none.

    Raise UserError as `carried_config` does.
    """
    resumes = bool(steps_in(folder))
    if resumes and ((folder / HF_CONFIG).is_file() or not config.init):
        return carried_config(folder)
    return carried_config(Path(folder_of(config.init))) if config.init else {}


def max_positions(config: Mapping[str, Any], folder: Path) -> int:
    """Return how many positions the LLM was made for, by its Hugging Face config; 0 for any number.

    folder: of the model, for the message. Raise UserError for a number that is none.
    """
    llm = text_section(llm_part(dict(config)))
    given, name = llm.get("max_position_embeddings"), f"{folder}: max_position_embeddings"
    return 0 if given is None else whole(name, given, "a number of positions", 0)


def stored_paths(config: Config, folder: Path) -> dict[str, Any]:
    """Return the contents of paths.json for `config` of the stage `folder`: fields that name no path are left out."""
    out: dict[str, Any] = {}
    for field in (*FIELDS, *LISTS):
        section, _, name = field.rpartition(".")
        value = getattr(getattr(config, section) if section else config, name)
        value = folder_of(value) if field == "init" else value
        paths = [part.strip() for part in value.split(",")] if field in LISTS else [value]
        named = [path for path in paths if path and (Path(path).exists() or glob.has_magic(path))]
        stored = [StoredPath.of(path, folder)._asdict() for path in named]
        if stored:
            out[field] = stored if field in LISTS else stored[0]
    return out


def moved_paths(folder: Path, target: Path) -> dict[str, Any]:
    """Return the contents of paths.json for a copy of the stage `folder` in `target`; {} when it has no such file."""

    def moved(entry: Any) -> dict[str, str]:
        stored = StoredPath.read(entry, folder / PATHS)
        return StoredPath.of(stored.find(folder) or stored.absolute, target)._asdict()

    found = read_json(folder / PATHS) if (folder / PATHS).is_file() else {}
    return {name: list(map(moved, e)) if isinstance(e, list) else moved(e) for name, e in found.items()}


def _origins(folder: Path, init: str) -> list[Path]:
    """Return the folders that `config.init` of the stage `folder` may name, wherever the current folder is.

    Without paths.json, a relative `init` is looked for in the current folder, which it was relative to when the stage
    was trained, and in the folders above the stage's. Raise UserError when there is none.
    """
    entry = read_json(folder / PATHS).get("init") if (folder / PATHS).is_file() else None
    at = init
    if entry is not None:
        stored = StoredPath.read(entry, folder / PATHS)
        at, place = stored.absolute, stored.find(folder, _is_model)
        places = [place] if place else []
    else:
        init = folder_of(init)
        every = [Path(init), *(up / init for up in folder.resolve().parents)]
        places = list({place.resolve(): place for place in reversed(every) if _is_model(place)}.values())[::-1]
    if not places:
        raise UserError(f"{folder} was trained from {at}, which is not there; {_remedy(folder)}")
    return places


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def _remedy(folder: Path) -> str:
    return f"put it back, or copy config.json of the model that training began with to {folder / HF_CONFIG}"
