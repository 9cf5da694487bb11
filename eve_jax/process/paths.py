"""Paths as people write them: `~`, `~user`, `$VAR` and `${VAR}`, which shells leave alone in `--to=~/x`."""

import glob
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from ml_collections import ConfigDict

from eve_jax.errors import UserError
from eve_jax.process import places
from eve_jax.process.fetched import fetch, images, without_weights

Remote = Callable[[str, str], str]  # the path here for what is at a URL of a bucket, and a field for messages

VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)
WORKDIR = "WORKDIR"  # in paths of a recipe: its work folder
TFDS = "tfds:"  # before the name or folder of a TensorFlow data set
PREFIX = re.compile(
    r"tfds:|[a-z0-9]+:(?=[~$]|(?:s3|gs)://|/(?!/))"
)  # before a path: what kind of data set, or which format, it has
FIELDS = ("init", "teacher", "encoder")  # of a stage's config, and of its sections `data`, `eval` and `train`:
DATA_FIELDS = ("records", "images", "tokenizer", "vision_tokenizer")
EVAL_FIELDS = ("records", "images", "tasks", "data")
TRAIN_FIELDS = ("local_dir",)
LISTS = ("records", "tasks")  # several paths, comma separated
HUB_ID = re.compile(r"[\w-][\w.-]*/\w[\w.-]*", re.ASCII)  # of a model of the Hugging Face hub: ORG/NAME
LOCAL = TRAIN_FIELDS  # never in a bucket
REMOTE: dict[str, Remote] = {"images": images, "tokenizer": without_weights}
# The same with what pages and other tools write around it; paths have lost a slash of `https://`.
HUB_PLACE = re.compile(
    rf"(?:https?:/+huggingface\.co/|hf:/+)({HUB_ID.pattern})(?:[@/].*)?|({HUB_ID.pattern})(?:@\S+)?", re.ASCII
)
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
ONE_SLASH = re.compile(r"(s3|gs):(?=/[^/])")
MOST_COMMAS = 15  # in a name of a list that is found by trying


def expand(path: str | Path, field: str = "", remote: Remote | None = None) -> str:
    """Return `path` with `~` and variables of the environment replaced, unless a file or folder has that very name.

    `field` is what the path was given as, for messages: "--to". remote: what gives the path of something in a bucket
    (`fetch`, `images`, `published.work_folder`); None where that cannot be. Raises UserError for a
    variable that is not set, an unknown user, and `~` where there is no home folder.
    """
    text = os.fspath(path)
    if remote is not None and places.is_url(text):
        return remote(_filled(text, f"{field}={text}" if field else text), field)
    refuse_remote(text, field)
    if ("$" not in text and not text.startswith("~")) or os.path.lexists(text):
        return text
    about = f"{field}={text}" if field else text
    done = ""
    for number, part in enumerate(text.split("/")):
        at = f"{done}/" if number else ""
        if not number and part.startswith("~"):
            done = _home(part, about)
        elif "$" not in part or os.path.lexists(at + part):
            done = at + part
        else:
            done = at + _filled(part, about)
    return done


def _filled(text: str, about: str) -> str:
    return VARIABLE.sub(lambda found: _value(found, about), text)


def refuse_remote(text: str, field: str = "") -> None:
    """Raise UserError for a path of the form scheme://, such as gs://bucket/runs, where only local files can be."""
    about = f"{field}={text}" if field else text
    if (one := ONE_SLASH.match(text)) and not os.path.lexists(one[0]):
        raise UserError(f"{about}: a bucket is {one[1]}://BUCKET/KEY, with two slashes (a Path of Python loses one)")
    found = SCHEME.match(text)
    if found is None:
        return
    if place := HUB_PLACE.fullmatch(text):
        raise UserError(f"{about}: {_looks_like_hub(place)}")
    if found[1].lower() in places.SCHEMES and not places.is_url(text):
        raise UserError(f"{about}: expected s3://BUCKET/KEY or gs://BUCKET/KEY")
    remedy = (
        "write the path without file://" if found[1].lower() == "file" else "mount it, or copy it to a local folder"
    )
    here = " here" if places.is_url(text) else ""
    raise UserError(f"{about}: paths of {found[1]}:// are not read or written{here}; {remedy}")


def _looks_like_hub(place: re.Match[str]) -> str:
    id = place[1] or place[2]
    return f"no such folder; hf:{id} or hf:{id}@REVISION is the hub's model of that name"


def expand_list(paths: str, field: str = "", remote: Remote | None = None) -> str:
    """Return the names in `paths` (`split_names`), each as `expand` has it; `tfds:` or a format before one stays."""
    names = split_names(paths)
    expanded = []
    for name in names:
        found = PREFIX.match(name)
        prefix = found[0] if found else ""
        expanded.append(prefix + expand(name.removeprefix(prefix), field, None if prefix == TFDS else remote))
    return paths if expanded == names else ",".join(name.replace(",", "\\,") for name in expanded)


def split_names(text: str) -> list[str]:
    """Return the names in `text`, which are separated by commas.

    A comma belongs to a name where it is written `\\,`, or where a file or folder of that name exists, or a pattern
    matches; of several such names the longest is taken.
    """
    pieces = re.split(r"(?<!\\),", text)
    names = []
    while pieces:
        longest = min(len(pieces), MOST_COMMAS + 1)
        end = next((end for end in range(longest, 1, -1) if _exists(_name(",".join(pieces[:end])))), 1)
        names.append(_name(",".join(pieces[:end])))
        pieces = pieces[end:]
    return [name for name in names if name]


def _name(written: str) -> str:
    return written.strip().replace("\\,", ",")


def _exists(name: str) -> bool:
    for written in (name, os.path.expanduser(os.path.expandvars(name))):
        if os.path.exists(written) or (glob.has_magic(written) and next(glob.iglob(written), None) is not None):
            return True
    return False


def expand_config(config: ConfigDict, name: str = "config") -> None:
    """Expand the paths that `config`, of a stage or a recipe, holds, in place. Raises UserError naming the field."""
    _expand_fields(config, FIELDS, name)
    for section, fields in (("data", DATA_FIELDS), ("eval", EVAL_FIELDS), ("train", TRAIN_FIELDS)):
        if isinstance(config.get(section), ConfigDict):
            _expand_fields(config[section], fields, f"{name}.{section}")
    if isinstance(stages := config.get("stages"), ConfigDict):
        for stage, inner in stages.items():
            if isinstance(inner, ConfigDict):
                expand_config(inner, f"{name}.stages.{stage}")


def _expand_fields(node: ConfigDict, fields: Iterable[str], name: str) -> None:
    for field in fields:
        if isinstance(value := node.get(field), str):
            remote = None if field in LOCAL else REMOTE.get(field, fetch)
            written = (expand_list if field in LISTS else expand)(value, f"{name}.{field}", remote)
            if written != value:  # a reference to another field stays one
                node[field] = written


def _home(part: str, about: str) -> str:
    found = os.path.expanduser(part)
    if found == part:
        why = "there is no home folder (HOME is not set)" if part == "~" else f"there is no user {part[1:]}"
        raise UserError(f"{about}: {why}; write the whole path")
    return found


def _value(found: re.Match[str], about: str) -> str:
    name = found[1] or found[2]
    if name[0].isdigit():
        return found[0]
    if name not in os.environ:
        raise UserError(f"{about}: the environment variable {name} is not set; set it, or write the whole path")
    return os.environ[name]


def no_folder(given: str | Path) -> UserError:
    """Return the error for a path `given` that was to be a folder and is none: what it is, and what to do."""
    text = os.fspath(given)
    if os.path.exists(text):
        return UserError(f"{text} is a file; name the folder")
    place = HUB_PLACE.fullmatch(text)
    if place:
        return UserError(f"{text}: {_looks_like_hub(place)}")
    return UserError(f"{text}: no such folder")
