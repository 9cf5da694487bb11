"""Which source a name stands for."""

import glob
from collections.abc import Callable
from pathlib import Path

from eve_jax.data.record import ReadByFields, Source
from eve_jax.data.sources.formats import check_format
from eve_jax.data.sources.forms import NAMES, split_format
from eve_jax.data.sources.json_files import JsonFile
from eve_jax.errors import Field, FieldError, UserError, shorten, warn
from eve_jax.process.checks import hint, near_name
from eve_jax.process.hub import HUB
from eve_jax.process.named import is_named

TFDS = "tfds:"
KINDS = (
    ".json, .jsonl, .parquet or .tar files, a folder of them or of prepared records, hf:ORG/NAME, tfds:NAME or "
    "module:Class"
)


def open_sources(name: str, images_dir: str | Path = "", index: Path | None = None, texts: bool = True) -> list[Source]:
    """The sources that one entry of `config.data.records` stands for.

    A `.parquet` or `.tar` file, any other file as JSON or JSONL; a pattern with `*`; a folder with the shards that
    `launch.prepare_data` wrote, or with files of one kind; `hf:ORG/NAME[@REVISION][:CONFIG[:SPLIT]]`, a data set of the
    hub; `tfds:NAME[:SPLIT]` or `tfds:FOLDER[:SPLIT]`;
    `module:Class`, a class of the user's own (`eve_jax.data.sources.own`), unless a file has that name. Before a file,
    pattern or folder of files, `FORMAT:` says which form of texts alone is read (`eve_jax.data.sources.forms`).
    index: the folder where indexes are kept (`kept_index`). texts: False also reads records without texts, whose images
    are captioned. Raises `UserError` when there is nothing of that name.
    """
    form, rest = split_format(name)
    if form and not Path(name).exists() and (Path(rest).exists() or not is_named(name)):
        _check_rest(name, rest)
        return [_in_form(source, form, name) for source in open_sources(rest, images_dir, index, texts)]
    _check_prefix(name)
    if name.startswith(HUB):
        from eve_jax.data.sources.hub import open_data_set

        return open_data_set(name, images_dir, texts)
    if name.startswith(TFDS):
        from eve_jax.data.sources.tfds import TfdsSplit

        return [TfdsSplit(name.removeprefix(TFDS), texts)]
    if is_named(name) and not Path(name).exists():
        from eve_jax.data.sources.own import OwnSource

        return [OwnSource(name)]
    if glob.has_magic(name) and not Path(name).exists():
        paths = sorted(glob.glob(name))
        if not paths:
            raise FieldError(f"{name}: no file matches; ", Field("data.records"), f" takes {KINDS}")
        return [_open_file(Path(path), images_dir, index, texts) for path in paths]
    if Path(name).is_dir():
        return _open_folder(Path(name), images_dir, index, texts)
    return [_open_file(Path(name), images_dir, index, texts)]


def _check_rest(name: str, rest: str) -> None:
    """Raise UserError where a format is followed by nothing, or by another format."""
    prefix = name.removesuffix(rest)
    if not rest.strip():
        raise UserError(f"{prefix!r} is a format without records; name a file or folder after {prefix}")
    if split_format(rest)[0] and not Path(rest).exists():
        second, _, place = rest.partition(":")
        raise UserError(f"{name}: a source has one format; write {prefix}{place} or {second}:{place}")


def _check_prefix(name: str) -> None:
    """Raise UserError for what stands before a colon and a file, and is no format."""
    prefix, _, rest = name.partition(":")
    if not rest or name.startswith((HUB, TFDS)) or Path(name).exists() or not (Path(rest).exists() or glob.glob(rest)):
        return
    near = near_name(prefix, NAMES)
    if near or not is_named(name):
        raise UserError(f"{name}: {prefix!r} is no format; expected one of {', '.join(NAMES)}{hint(near)}")


def _in_form(source: Source, form: str, name: str) -> Source:
    if not isinstance(source, ReadByFields):
        kinds = ".json, .jsonl, .parquet and .tar files"
        raise FieldError(f"{name}: only {kinds} have a format to choose; set ", Field("data.records"), " without it")
    source.form = form
    return source


def _json(path: Path, images_dir: str | Path, index: Path | None, texts: bool) -> Source:
    source = JsonFile(path, images_dir, index)
    source.texts = texts
    return source


def _parquet(path: Path, images_dir: str | Path, _: Path | None, texts: bool) -> Source:
    from eve_jax.data.sources.parquet import ParquetRecords

    return ParquetRecords(path, images_dir, texts)


def _tar(path: Path, images_dir: str | Path, _: Path | None, texts: bool) -> Source:
    from eve_jax.data.sources.tar import TarFile

    source = TarFile(path)
    source.texts = texts
    return source


OPENERS: dict[str, Callable[[Path, str | Path, Path | None, bool], Source]] = {
    ".parquet": _parquet,
    ".tar": _tar,
    ".jsonl": _json,
    ".json": _json,
}


def _open_file(path: Path, images_dir: str | Path, index: Path | None, texts: bool) -> Source:
    check_format(path)
    return OPENERS.get(path.suffix, _json)(path, images_dir, index, texts)


def _open_folder(folder: Path, images_dir: str | Path, index: Path | None, texts: bool) -> list[Source]:
    from eve_jax.data.sources.shards import CONVERSION_FILE, DATASET_FILE, Shards

    if (folder / DATASET_FILE).is_file():
        return [Shards(folder)]
    if (folder / CONVERSION_FILE).is_file():
        raise UserError(f"{folder}: is not converted to its end; rerun launch.prepare_data convert")
    if (folder / "features.json").is_file():
        raise UserError(f"{folder}: is a TensorFlow data set; write {TFDS}{folder}")
    found = {suffix: sorted(folder.glob(f"*{suffix}")) for suffix in OPENERS}
    tars = {path.stem for path in found[".tar"]}
    if tars and all(path.stem in tars for path in found[".parquet"]):  # what img2dataset says of each tar file
        found[".parquet"] = []
        found[".json"] = [path for path in found[".json"] if path.stem.removesuffix("_stats") not in tars]
    paths, *others = [paths for paths in found.values() if paths] or [[]]
    if others:
        names = ", ".join(path.name for several in others for path in several)
        warn(f"{folder}: its {paths[0].suffix} files are read, not {shorten(names, 200)}; name files to read others")
    if paths:
        return [_open_file(path, images_dir, index, texts) for path in paths]
    raise FieldError(f"{folder}: no records in this folder; ", Field("data.records"), f" takes {KINDS}")
