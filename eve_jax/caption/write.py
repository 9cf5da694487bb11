"""Captioned records as shards, with what was rejected and why; and the steps of a run in order."""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from eve_jax.caption.answers import AnswerLog
from eve_jax.caption.ask import WRITE
from eve_jax.caption.config import CaptionConfig
from eve_jax.caption.folder import FUNNEL_FILE, REJECTED_FILE, SAME, USAGE_FILE, Allowed, CaptionFolder, Line
from eve_jax.caption.run import Asking, Captioner, ask_shards, settle_same, web_caption
from eve_jax.data.image_file import BadImage
from eve_jax.data.markers import escape_markers
from eve_jax.data.prepare.shard_writer import ShardWriter, write_dataset
from eve_jax.data.record import Record, Turn
from eve_jax.data.sources.records import Records, open_records
from eve_jax.data.sources.shards import Shard
from eve_jax.errors import UserError
from eve_jax.process.files import read_json, write_atomically, write_json
from eve_jax.process.lock import locked
from eve_jax.process.pieces import Tick, run_processes


def caption_records(
    config: CaptionConfig, source: str, images: str, out: Path, key: str = "", new: Allowed | None = None
) -> dict[str, Any]:
    """Write the records of `source` with captions into the folder `out`, and return its funnel.

    source, images: as config.data.records and config.data.images. key: of the endpoints. new: what may be begun anew in
    a folder that was made otherwise. Resumes where an earlier call stopped; a folder that is complete is left as it is.
    Raises UserError, OSError, and Interrupted when it is told to stop.
    """
    new = new or Allowed()
    config.endpoint.check_given()
    records = open_records(source, images, out, texts=False)
    with locked(out, "captioning"):
        folder = CaptionFolder(out, len(records), config.write.records_per_shard)
        folder.claim(config, records, new)
        if not folder.is_complete:
            records.keep_index()
            if config.engine.runner != "native":
                from eve_jax.caption.cluster import ask_on_cluster  # requires packages that one process does not

                ask_on_cluster(config, records, folder, bool(key), new.retry)
            log = AnswerLog(folder.answers, new.retry)
            try:
                captioner = Captioner(Asking(config, records), log, key)
                ask_shards(captioner, folder, range(folder.shards))
                settle_same(captioner, folder, config.checks.same)
            finally:
                log.close()
            _write_shards(config, folder, records)
            _finish(folder, log)
        folder.clean()
    return read_json(out / FUNNEL_FILE)


def _write_shards(config: CaptionConfig, folder: CaptionFolder, records: Records) -> None:
    final = {line.index: line for line in folder.read_asked(SAME)} if config.checks.same else {}
    todo = [number for number in range(folder.shards) if not folder.line_file(number).is_file()]
    missing = sum(len(folder.span(number)) for number in todo)
    work = partial(_write_shard, folder=folder, config=config, final=final)
    run_processes(work, todo, lambda: records, 1, "writing records", folder.n_records, folder.n_records - missing)


def _write_shard(
    number: int, records: Records, tick: Tick, folder: CaptionFolder, config: CaptionConfig, final: dict[int, Line]
) -> None:
    """Write shard `number`, then what is in it and what was rejected."""
    writer = ShardWriter(folder.path, number, config.image.max_pixels)
    rejected: list[dict[str, Any]] = []
    again = 0
    for asked in folder.read_asked(number):
        tick()
        line = final.get(asked.index, asked)
        outcome = line.outcome
        stage, rule, value = outcome.stage, outcome.rule, outcome.value
        again += outcome.attempt
        if outcome.is_kept:
            try:
                writer.add(captioned(records[line.index], outcome.caption, config.write.question))
                continue
            except BadImage as error:  # it was whole when it was sent
                stage, rule, value = WRITE, "image", f"{error.path}: {error.reason}"
        caption = {"caption": outcome.caption} if outcome.caption else {}
        place = {"index": line.index, "id": line.id, "where": records.where(line.index)}
        rejected.append({**place, "stage": stage, "rule": rule, "value": value, **caption})
    summary = {"shard": writer.close(), "again": again, "rejected": rejected}
    write_json(folder.line_file(number), summary, indent=1, sort_keys=False)


def captioned(record: Record, caption: str, question: str = "") -> Record:
    """Return `record` with `caption` as its only answer, and with what the web called the image as `alt`.

    question: of the person, before the answer; "" for a caption alone.
    """
    asked = (Turn("human", escape_markers(question)),) if question else ()
    alt = web_caption(record)
    kept = {name: value for name, value in record.kept.items() if name != "alt"}
    return record._replace(turns=(*asked, Turn("gpt", caption)), kept=({"alt": alt} if alt else {}) | kept)


def _finish(folder: CaptionFolder, log: AnswerLog) -> None:
    """Write what holds for all shards; the list of shards comes last."""
    counts: dict[str, Counter[str]] = {}
    kept = again = 0
    shards: list[Shard] = []

    def write_rejected(path: Path) -> None:
        nonlocal kept, again
        with path.open("w", encoding="utf-8") as file:
            for number in range(folder.shards):
                line = read_json(folder.line_file(number))
                shards.append(Shard(*line["shard"]))
                kept, again = kept + shards[-1].records, again + line["again"]
                for one in line["rejected"]:
                    counts.setdefault(one["stage"], Counter())[one["rule"]] += 1
                    file.write(json.dumps(one, ensure_ascii=False) + "\n")

    write_atomically(folder.path / REJECTED_FILE, write_rejected)
    by_rule = {stage: dict(rules.most_common()) for stage, rules in counts.items()}
    funnel = {"in": folder.n_records, "kept": kept, "rejected": by_rule, "again": again}
    write_json(folder.path / FUNNEL_FILE, funnel, sort_keys=False)
    write_json(folder.path / USAGE_FILE, log.usage().to_dict(), sort_keys=False)
    write_dataset(folder.path, shards)


def check_kept(funnel: dict[str, Any], out: Path) -> None:
    """Raise UserError where no record is left."""
    if not funnel["kept"]:
        raise UserError(f"{out}: no caption was kept, of {funnel['in']:,} records; see {REJECTED_FILE} there")


def funnel_lines(funnel: dict[str, Any]) -> list[str]:
    """Return the funnel for people, a line for each rule."""
    width = len(f"{funnel['in']:,}")
    lines = [
        f"{funnel['in']:>{width},} records",
        f"{funnel['kept']:>{width},} captioned ({funnel['again']:,} asked twice)",
    ]
    for stage, rules in funnel["rejected"].items():
        lines += [f"{count:>{width},} rejected, {stage}: {rule}" for rule, count in rules.items()]
    return lines
