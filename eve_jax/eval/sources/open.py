"""Finds the rows of a task in a local folder, in the Hugging Face layout or the official one."""

from collections.abc import Iterator
from pathlib import Path

from eve_jax.errors import UserError
from eve_jax.eval.sources.base import NoData, Rows
from eve_jax.eval.sources.layouts import LAYOUTS
from eve_jax.eval.sources.official import OfficialRows
from eve_jax.eval.sources.parquet import ParquetRows, shards
from eve_jax.eval.task import Task

PARTS = ("pope_adv", "pope_pop", "pope_random")


def open_rows(task: Task, data: str | Path) -> Rows:
    """Return the rows of `task` in the folder `data`, which holds several benchmarks, or this one alone.

    Looked at are DATA/OWNER/NAME of the hub's repository, DATA/NAME, DATA/ with the benchmark's other names, then DATA;
    in each first Parquet files, then the official layout. Raises NoData that names what was looked for, and UserError
    for a damaged file.
    """
    root = Path(data)
    if not root.is_dir():
        raise NoData(f"{data}: no such folder; set --data to the folder with the benchmarks' data")
    benchmark = "pope" if task.benchmark in PARTS else task.benchmark
    layout = LAYOUTS.get(benchmark)
    for folder in _folders(task, root):
        if paths := _parquet(task, folder):
            return ParquetRows(task, paths, _images(task, folder))
        if layout and (found := layout.find(folder)):
            return OfficialRows(task, layout, folder, found)
    wanted = f"{task.data.repository}/{task.data.patterns[0]}"
    official = f", nor {', '.join(patterns[0] for patterns in layout.files.values())}" if layout else ""
    names = ", ".join(task.data.names)
    raise NoData(
        f"{data}: no data of {task.benchmark}: neither {wanted}{official} (also below {names}); see docs/eval.md"
    )


def _folders(task: Task, root: Path) -> Iterator[Path]:
    owner, _, name = task.data.repository.partition("/")
    names = dict.fromkeys((name, *task.data.names, task.benchmark))
    for folder in (root / owner / name, *(root / other for other in names), root):
        if folder.is_dir():
            yield folder


def _parquet(task: Task, folder: Path) -> list[Path]:
    return shards(folder / task.data.folder, task.data.split) or shards(folder, task.data.split)


def _images(task: Task, folder: Path) -> list[Path]:
    if not task.data.images:
        return []
    found = shards(folder / task.data.images, task.data.split)
    if not found:
        raise UserError(f"{folder}: has no {task.data.images}/{task.data.split}-*.parquet, which hold the images")
    return found
