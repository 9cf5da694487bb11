"""Select images as the papers do: measure, filter, embed, cluster, select, leave out near-copies, write.

    python -m launch.curate --config=curate:evev1 --from=RECORDS[,RECORDS] [--images=DIR] --to=OUT [--config...]

--from takes any of our sources (JSON, JSONL, Parquet, tar, TFDS, prepared shards, hf:ORG/NAME). OUT/records then holds
the records that are left, OUT/rejected.jsonl why each of the others is not there, OUT/funnel.json the counts. Rerun the
command to resume after an interruption, or with other thresholds: nothing is decoded again. See docs/curation.md.
"""

from pathlib import Path
from typing import Any

from absl import flags

from eve_jax.process import fetched
from launch._configs import define_config
from launch._flags import define_path, run

CONFIG = define_config()
flags.declare_key_flag("config")
FROM = define_path("from", None, "the records, as config.data.records takes them", several=True, remote=fetched.fetch)
IMAGES = define_path("images", "", "folder that image paths of the records start from", remote=fetched.images)
TO = define_path("to", None, "folder to make; a curation there is resumed")
flags.mark_flags_as_required(["config", "from", "to"])
NAMES = {"data.records": "--from", "data.images": "--images"}


def main() -> None:
    from eve_jax.curate.config import CurateConfig
    from eve_jax.curate.funnel import lines
    from eve_jax.curate.run import curate
    from eve_jax.errors import name_fields
    from eve_jax.process import interrupt

    config = CurateConfig.of(CONFIG.value)
    interrupt.ready()
    with name_fields(_name):
        funnel: dict[str, Any] = curate(config, FROM.value or "", IMAGES.value or "", Path(TO.value or ""))
    print("\n".join(lines(funnel)))
    print(f"done: {TO.value}")


def _name(field: str) -> str:
    return NAMES.get(field, f"config.{field}")


if __name__ == "__main__":
    run(main)
