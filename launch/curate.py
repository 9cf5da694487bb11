"""Select images as the papers do: measure, filter, embed, cluster, select, leave out near-copies, write.

    python -m launch.curate --config=curate:evev1 --from=RECORDS[,RECORDS] [--images=DIR] --to=OUT [--config...]
    python -m launch.curate plan --config=curate:evev1 --from=RECORDS [--images=DIR] [--config.plan.pilot=CAPTIONED]
    python -m launch.curate report --from=OUT [--records=RECORDS --images=DIR] [--to=DIR]

--from takes any of our sources (JSON, JSONL, Parquet, tar, TFDS, prepared shards, hf:ORG/NAME). OUT/records then holds
the records that are left, OUT/rejected.jsonl why each of the others is not there, OUT/funnel.json the counts,
OUT/report.html and report.png what happened, in images. Rerun the command to resume after an interruption, or with
other thresholds: nothing is decoded again.
`plan` looks at a sample and says what the full run and its captions will take; it writes nothing.
`report` draws the reports of a folder of launch.curate or launch.caption again. See docs/curation.md.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from eve_jax.process import fetched
from launch._configs import define_config
from launch._flags import define_path, leaving_threads, run, take_action

CONFIG = define_config()
flags.declare_key_flag("config")
FROM_IS = "the records, as config.data.records takes them; report: the folder that launch.curate or launch.caption made"
FROM = define_path("from", "", FROM_IS, several=True, remote=fetched.fetch)
IMAGES = define_path("images", "", "folder that image paths of the records start from", remote=fetched.images)
TO = define_path("to", "", "folder to make; a curation there is resumed. report: where the reports go, if elsewhere")
RECORDS = define_path(
    "records",
    "",
    "report: the records that were captioned, to show the images of those that were rejected",
    several=True,
    remote=fetched.fetch,
)
DRAW = flags.DEFINE_bool("draw", True, "draw report.html and report.png when the curation is done")
JSON = flags.DEFINE_bool("json", False, "plan: print one line of JSON")
NAMES = {"data.records": "--from", "data.images": "--images"}
CURATE, PLAN, REPORT = "curate", "plan", "report"


def main(action: str) -> None:
    from eve_jax.errors import name_fields
    from eve_jax.process import host_memory, interrupt

    interrupt.ready()
    host_memory.return_freed()
    with name_fields(lambda field: NAMES.get(field, f"config.{field}")):
        {CURATE: _curate, PLAN: _plan, REPORT: _report}[action]()


def _need(**values: Any) -> None:
    from eve_jax.errors import UserError

    missing = [f"--{name}" for name, value in values.items() if not value]
    if missing:
        raise UserError(f"{' and '.join(missing)} must be given (see --help)")


def _curate() -> None:
    from eve_jax.curate.config import CurateConfig
    from eve_jax.curate.funnel import lines
    from eve_jax.curate.run import curate

    _need(config=CONFIG.value, **{"from": FROM.value}, to=TO.value)
    config, out = CurateConfig.of(CONFIG.value), Path(TO.value or "")
    funnel = curate(config, FROM.value or "", IMAGES.value or "", out)
    print("\n".join(lines(funnel)))
    if DRAW.value:
        from eve_jax.curate.report.write import write_report

        page, _ = write_report(out)
        print(f"report: {page}")
    print(f"done: {out}")


def _plan() -> None:
    import json

    from eve_jax.curate.config import CurateConfig
    from eve_jax.curate.plan.plan import lines, make_plan

    _need(config=CONFIG.value, **{"from": FROM.value})
    config = CurateConfig.of(CONFIG.value)
    plan = make_plan(config, FROM.value or "", IMAGES.value or "")
    print(json.dumps(plan.to_dict()) if JSON.value else "\n".join(lines(plan, config.plan)))


def _report() -> None:
    from eve_jax.curate.report.write import write_report
    from eve_jax.data.sources.records import open_records

    _need(**{"from": FROM.value})
    source = open_records(RECORDS.value, IMAGES.value or "", texts=False) if RECORDS.value else None
    for path in write_report(Path(FROM.value or ""), source, Path(TO.value) if TO.value else None):
        print(path)


if __name__ == "__main__":
    chosen = CURATE
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        chosen = take_action(sys.argv, "launch.curate", (PLAN, REPORT))
    run(lambda: leaving_threads(lambda: main(chosen)))
