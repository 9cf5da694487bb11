"""A curation from its source to the records that are left, stage after stage.

OUT/stages/NAME-KEY/    what each stage made, by the hash of all that it depends on (docs/curation.md)
OUT/records/            the records that are left
OUT/rejected.jsonl, funnel.json, curated.json
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eve_jax.curate.config import NONE, CurateConfig
from eve_jax.curate.engine import run, start
from eve_jax.curate.features import Features
from eve_jax.curate.funnel import FUNNEL, REJECTED, Funnel
from eve_jax.curate.rows import Rows, kept_rows
from eve_jax.curate.stage import STAGES, Stage, remove_parts
from eve_jax.curate.stages.captions import caption_stage, same_captions
from eve_jax.curate.stages.cluster import Clusters, cluster_stage, clustered, no_clusters
from eve_jax.curate.stages.filter import check_languages, filter_stage
from eve_jax.curate.stages.measure import Measure, Source, measure_stage
from eve_jax.curate.stages.near_copies import near_copies
from eve_jax.curate.stages.select import select
from eve_jax.curate.stages.write import RECORDS, write_stage
from eve_jax.curate.verdicts import Verdicts
from eve_jax.errors import UserError
from eve_jax.process.files import in_place_of, read_json, write_json
from eve_jax.process.lock import locked

CURATED = "curated.json"  # what is in the output folder; written before `records` gets its name
INDEX = "index"


@dataclass
class Work:
    """A curation at work: its config, where it is kept, the stages so far by name, and the counts."""

    config: CurateConfig
    out: Path
    measure: Measure
    shards: int
    stages: dict[str, Stage]

    def make(self, stage: Stage, make: Any, missing: list[int], title: str) -> None:
        """Have the engine make the missing shards of a stage."""
        self.stages[stage.name] = stage
        run(make, missing, self.config.engine, title)


def curate(config: CurateConfig, records: str, images: str, out: Path) -> dict[str, Any]:
    """Curate the sources `records`, with image paths relative to `images`, into `out`; return the funnel.

    Resumes where an earlier call stopped, and uses what it made as far as it still applies. Raises UserError for a
    source, a setting or a folder that cannot be used, and when nothing is left.
    """
    start(config.engine)
    _check_models(config)
    source = Source(records, images, out / INDEX)
    with locked(out, "the curation"):
        for folder in (out, *(out / STAGES).glob("*/")):
            remove_parts(folder)
        (out / STAGES).mkdir(exist_ok=True)
        opened = source.open()
        (out / INDEX).mkdir(exist_ok=True)
        opened.keep_index()
        measure = measure_stage(out, source, opened.fingerprint(), config.shard_records, config.max_pixels)
        work = Work(config, out, measure, -(-len(opened) // config.shard_records), {})
        with in_place_of(out / REJECTED) as rejected, rejected.open("w", encoding="utf-8") as file:
            funnel = Funnel(len(opened), file)
            rows = _stages(work, funnel)
        if not len(rows):
            write_json(out / FUNNEL, funnel.summary(), sort_keys=False)
            raise UserError(f"{out}: no record is left; {REJECTED} says of each why, {FUNNEL} counts the rules")
        _write(work, funnel, rows)
        return funnel.summary()


def _check_models(config: CurateConfig) -> None:
    """Raise UserError for models and packages that are missing, before hours of work that precede them."""
    if config.filter.languages:
        check_languages(config.filter.languages)
    if config.embed.kind != NONE:
        from eve_jax.curate.embedders.open import check_embedder  # takes longer to import than 100 images to measure

        check_embedder(config.embed)
    if config.experts.run:
        from eve_jax.curate.experts.open import opened_experts

        opened_experts(config.experts)


def _stages(work: Work, funnel: Funnel) -> Rows:
    """Do everything but writing; return the records that are left."""
    config, measure = work.config, work.measure
    work.make(measure.stage, measure, measure.stage.missing(work.shards), "measuring images")
    filtered = filter_stage(measure, config.filter)
    work.make(filtered.stage, filtered, filtered.stage.missing(work.shards), "filtering")
    funnel.add_shards(measure.stage, filtered.stage, work.shards)
    rows = kept_rows(measure.stage, filtered.stage, work.shards)

    captions = caption_stage(filtered, config.filter)
    if not captions.shard(0).is_file():
        same_captions(rows, filtered, work.shards, config.filter).save(captions, rows)
    work.stages[captions.name] = captions
    rows = funnel.add("captions", rows, Verdicts.load(captions))

    features, clusters = _clusters(work, rows, captions)
    chosen = select(rows, config.select.selection, config.seed, clusters.cluster, clusters.similarity)
    rows, clusters = funnel.add("select", rows, chosen), clusters.take(chosen.kept)
    if config.dedup.phash >= 0:
        copies = near_copies(rows, config.dedup.phash)
        rows, clusters = funnel.add("dedup", rows, copies), clusters.take(copies.kept)
    if config.dedup.semantic and features is not None and len(rows):
        from eve_jax.curate.stages.semantic import semantic_copies

        left = Features(features.stage, rows.index, features.size)
        same = semantic_copies(rows, left, clusters.cluster, clusters.similarity, config.dedup.semantic)
        rows = funnel.add("semdedup", rows, same)
    return _looked_at(work, funnel, rows)


def _clusters(work: Work, rows: Rows, captions: Stage) -> tuple[Features | None, Clusters]:
    """Return the features of `rows`, None without, and their clusters."""
    config = work.config
    if config.embed.kind == NONE or not len(rows):
        return None, no_clusters(len(rows))
    from eve_jax.curate.stages.embed import embed_stage

    embed = embed_stage(work.measure, config.embed, rows.index)
    work.make(embed.stage, embed, embed.missing(), "computing features")
    features = Features(embed.stage, rows.index, embed.size)
    if not config.select.clusters:
        return features, no_clusters(len(rows))
    stage = cluster_stage(embed.stage, config.select, config.seed, captions.key)
    work.stages[stage.name] = stage
    return features, clustered(stage, features, config.select, config.seed)


def _looked_at(work: Work, funnel: Funnel, rows: Rows) -> Rows:
    """Have the experts look at `rows`; return those that are left."""
    if not work.config.experts.run or not len(rows):
        return rows
    from eve_jax.curate.stages.look import look_stage, refused

    look = look_stage(work.measure, work.config.experts, rows.index)
    work.make(look.stage, look, look.missing(), "experts at work")
    return funnel.add(look.stage.name, rows, refused(look, rows))


def _write(work: Work, funnel: Funnel, rows: Rows) -> None:
    """Write the records, then what the folder holds, and give `records` its name last."""
    out = work.out
    write = write_stage(work.measure, work.config.write, np.ascontiguousarray(rows.index), work.stages.get("experts"))
    curated = {
        "config": work.config.to_dict(),
        "source": {"records": work.measure.source.records, "images": work.measure.source.images},
        "shards": work.shards,
        "stages": {name: f"{STAGES}/{stage.folder.name}" for name, stage in work.stages.items()},
        "records": {"key": write.stage.key, "count": len(rows)},
    }
    known = read_json(out / CURATED) if (out / CURATED).is_file() else {}
    if known.get("records") != curated["records"] or not write.is_published(out / RECORDS):
        run(write, write.missing(), work.config.engine, "writing records")
    write_json(out / FUNNEL, funnel.summary(), sort_keys=False)
    write_json(out / CURATED, curated, sort_keys=False)
    write.publish(out / RECORDS)
