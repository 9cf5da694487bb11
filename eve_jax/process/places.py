"""What a path is: one of a file here, or the URL of something in a bucket, and where the latter lies here.

`s3://BUCKET/KEY` and `gs://BUCKET/KEY` are URLs. What is read from a bucket, or is to be written to one, lies in
folders below `root()`, whose paths tell the URL:

    ROOT/read/s3/BUCKET/KEY      copies of what is there (`eve_jax.process.fetched`)
    ROOT/work/s3/BUCKET/KEY      work folders, for the one process that holds their lock (`eve_jax.process.published`)
    ROOT/work-1/s3/BUCKET/KEY    the same of process 1 of a run, which may have the same ROOT as process 0
"""

import functools
import os
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

from eve_jax.errors import UserError
from eve_jax.process.caches import cache_folder

URL = re.compile(r"(s3|gs)://(?=[^/])")
SCHEMES = ("s3", "gs")
READ, WORK = "read", "work"
OTHER = re.compile(rf"{WORK}-\d+")  # the kind WORK of another process than 0
FOLDER = "buckets"  # below that of caches


def is_url(text: str | Path) -> bool:
    """Return whether `text` names something in a bucket."""
    return isinstance(text, str) and URL.match(text) is not None


@functools.cache
def _root(found: Path | None) -> Path:
    return (found or Path("/dev/null/eve_jax")).resolve() / FOLDER  # where nothing can be written, nothing is fetched


def root() -> Path:
    """Return the folder of all copies."""
    return _root(cache_folder())


def folder_of(url: str, kind: str) -> Path:
    """Return where what is at `url` lies here, of the `kind` READ, WORK or that of `work_of`. Raises UserError for no
    such URL."""
    scheme, _, rest = url.partition("://")
    parts = rest.rstrip("/").split("/")
    if scheme not in SCHEMES or not all(map(is_name, parts)):
        raise UserError(f"{url}: expected s3://BUCKET/KEY or gs://BUCKET/KEY, without empty parts, `.` and `..`")
    return root().joinpath(kind, scheme, *parts)


def work_of(process: int) -> str:
    """Return the kind of the places of work folders of the process of that number of a run."""
    return f"{WORK}-{process}" if process else WORK


def is_name(part: str) -> bool:
    """Return whether `part` of a key can be the name of a file."""
    return part not in ("", ".", "..") and "\0" not in part and "\\" not in part


def url_of(path: str | Path, kinds: Iterable[str] = (READ, WORK)) -> str | None:
    """Return the URL of which `path` is the place here; None for all other paths."""
    text = os.fspath(path)
    if f"/{FOLDER}/" not in text:  # most paths: nothing else is looked up
        return None
    base = str(root())
    if not text.startswith(f"{base}/"):
        return None
    kind, _, rest = text[len(base) + 1 :].partition("/")
    kind = OTHER.sub(WORK, kind)
    scheme, _, place = rest.partition("/")
    return f"{scheme}://{place}" if kind in kinds and scheme in SCHEMES and place else None


def shown(text: str) -> str:
    """Return `text` with URLs in place of the paths of their copies."""
    if f"/{FOLDER}/" not in text:
        return text
    base = f"{root()}/"
    return re.sub(f"{re.escape(base)}(?:{READ}|{OTHER.pattern}|{WORK})/(s3|gs)/", r"\1://", text)


def join(url: str, *names: str) -> str:
    """Return the URL of `names` below `url`, which may hold `..`. Raises UserError for one outside of the bucket."""
    scheme, _, place = url.partition("://")
    bucket = place.split("/")[0]
    found = posixpath.normpath(posixpath.join(place, *names))
    if found != bucket and not found.startswith(f"{bucket}/"):
        raise UserError(f"{'/'.join(names)} leads out of the bucket of {url}")
    return f"{scheme}://{found}"
