"""Memory of the data side of a training process: python -m benchmarks.data_memory --records=N --folder=DIR

Opens a stage of N records (made if they are not there), builds some steps, and prints a line of JSON with figures in
bytes. `benchmarks.data` calls it with few and with many records.
"""

import json
import re
import sys
from itertools import islice
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict
from rich.progress import track

from benchmarks.data_images import word_tokenizer
from configs import base
from eve_jax.data.plan.lengths import Lengths
from eve_jax.data.rows.pipeline import PLAN_FOLDER, open_stage_data
from eve_jax.data.samples.measure import table_name
from eve_jax.data.samples.sample_rule import SampleRule
from eve_jax.data.sources.records import open_records

RECORDS = flags.DEFINE_integer("records", 100_000, "number of records", lower_bound=1000)
FOLDER = flags.DEFINE_string("folder", None, "where the records and the run lie", required=True)
STEPS = 100  # built before memory is looked at
CHUNK = 100_000


def stage(folder: Path) -> ConfigDict:
    """A stage of text records whose lengths table need not be measured."""
    c = base.get_config("tiny")
    c.data.records = str(folder / "records.jsonl")
    c.data.tokenizer = str(folder / "tokenizer")
    c.data.template = "plain"
    c.data.max_tokens = c.data.row_tokens = 1024
    c.data.rows = 8
    return c


def write_stage(config: ConfigDict, folder: Path, n: int) -> None:
    """`n` captions of 10 to 59 letters a line each, and the table of their lengths where the stage looks for it."""
    word_tokenizer(folder / "tokenizer")
    letters = 10 + np.arange(n) % 50
    with Path(config.data.records).open("w") as file:
        for start in track(range(0, n, CHUNK), "writing records", disable=n <= CHUNK):
            rows = range(start, min(start + CHUNK, n))
            file.write("".join(f'{{"id":"{i}","caption":"{"a" * letters[i]}"}}\n' for i in rows))
    records = open_records(config.data.records)
    text = (letters + 1).astype(np.int32)  # one more for the end
    none = np.zeros(n, np.int32)
    record = np.arange(n, dtype=np.int32)
    table = Lengths(record, text, none, none, np.zeros((0, 2), np.int32), np.zeros(n + 1, np.int64), dropped=[])
    table.save(folder / "run" / PLAN_FOLDER / table_name(records, SampleRule.of(config)))


def memory() -> dict[str, int]:
    """Bytes of this process: `anonymous` is its own, `mapped` are pages of files, which the system may take back."""
    status = Path("/proc/self/status").read_text()
    figures = {"anonymous": "RssAnon", "mapped": "RssFile", "peak": "VmHWM"}
    found = {name: re.search(rf"{field}:\s+(\d+) kB", status) for name, field in figures.items()}
    return {name: int(match[1]) * 1024 for name, match in found.items() if match}


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    folder = Path(FOLDER.value)
    config = stage(folder)
    if not Path(config.data.records).exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_stage(config, folder, RECORDS.value)
        open_stage_data(config, folder / "run")  # plans; what is measured is a process that trains by the plan
        print("{}")
        return
    data = open_stage_data(config, folder / "run")
    assert len(data.lengths) == RECORDS.value
    assert not data.lengths.dropped
    middle = data.plan.steps // 2
    for _, batches in islice(data.batches(middle), min(STEPS, data.plan.steps - middle)):
        assert all((batch["loss_weight"] > 0).any() for batch in batches)
    print(json.dumps({**memory(), "plan": data.plan.nbytes}), file=sys.stdout)


if __name__ == "__main__":
    app.run(main)
