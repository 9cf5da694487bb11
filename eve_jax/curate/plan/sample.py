"""The funnel of a random sample of the records, and what it says of all of them."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from eve_jax.curate.config import ALL, NEAREST, NONE, CurateConfig
from eve_jax.curate.groups import collapsed, spare_rows
from eve_jax.curate.minhash import PERMUTATIONS, signatures, similar_pairs
from eve_jax.curate.plan.groups import copies_in_all
from eve_jax.curate.rows import Rows
from eve_jax.curate.stages.captions import RULE as SAME_CAPTION
from eve_jax.curate.stages.filter import UNUSABLE, check_languages, first_failing
from eve_jax.curate.stages.measure import SCHEMA, measure_record
from eve_jax.curate.stages.near_copies import RULE as NEAR_COPY
from eve_jax.curate.stages.near_copies import close_pairs
from eve_jax.data.image.patches import open_reduced
from eve_jax.data.sources.records import Records
from eve_jax.process.cores import own_cores
from eve_jax.process.progress import ProgressBar

PER_CLUSTER = 10  # records of the sample in each cluster, on average, from which on clusters are computed of it


@dataclass
class Prediction:
    """What becomes of all records.

    Attributes:
        records, sampled: how many there are, and how many of them were looked at.
        losses: by stage and rule, how many of all will be left out; not rounded.
        kept: how many will be left.
        image_bytes: of the file of a record that is left, on average.
        embedded: how many records features are computed of.
        notes: what the numbers do not take into account.
    """

    records: int
    sampled: int
    losses: dict[tuple[str, str], float] = field(default_factory=dict)
    kept: float = 0.0
    image_bytes: float = 0.0
    embedded: float = 0.0
    notes: list[str] = field(default_factory=list)

    def lose(self, stage: str, rule: str, count: float) -> None:
        """Count what a rule leaves out, at most what is left."""
        count = min(max(count, 0.0), self.kept)
        if count:
            self.losses[stage, rule] = count
            self.kept -= count


def predict(config: CurateConfig, records: Records, size: int) -> Prediction:
    """Return what becomes of `records`, by a random sample of at most `size` of them."""
    if config.filter.languages:
        check_languages(config.filter.languages)
    chosen = np.arange(len(records))
    if size < len(records):
        chosen = np.sort(np.random.default_rng(config.seed).choice(len(records), size, replace=False))
    table = _measured(config, records, chosen)
    share = len(chosen) / len(records)
    found = Prediction(len(records), len(chosen), kept=float(len(records)))
    rules, _ = first_failing(table, config.filter)
    for rule, count in Counter(rule for rule in rules if rule).items():
        found.lose(UNUSABLE.get(rule, "filter"), rule, count / share)
    table = table.filter(pa.array([not rule for rule in rules], pa.bool_()))
    if not len(table):
        found.notes.append("nothing of the sample is left; take a larger one (config.plan.sample)")
        return found
    found.image_bytes = float(table["bytes"].to_numpy().mean())
    rows = _rows(table)
    found.lose("captions", SAME_CAPTION, copies_in_all(_same_captions(config, table, rows), share))
    found.embedded = 0.0 if config.embed.kind == NONE else found.kept
    before = found.kept
    _select(config, records, rows, share, found)
    if config.dedup.phash >= 0:
        copies = copies_in_all(spare_rows(len(rows), close_or_equal(rows, config.dedup.phash), rows.by_size()), share)
        found.lose("dedup", NEAR_COPY, copies * found.kept / before if before else 0.0)
    if config.dedup.semantic:
        found.notes.append("what config.dedup.semantic leaves out is not predicted")
    return found


def _measured(config: CurateConfig, records: Records, chosen: np.ndarray) -> pa.Table:
    """Return the table of SCHEMA of some records, whose images are decoded by several threads."""
    with (
        ProgressBar("measuring a sample", len(chosen), unit="images") as bar,
        ThreadPoolExecutor(config.engine.workers or own_cores()) as pool,
    ):
        rows = []
        for row in pool.map(lambda index: measure_record(records, int(index), config.max_pixels), chosen):
            rows.append(row)
            bar.advance()
    return pa.Table.from_pylist(rows, SCHEMA)


def _rows(table: pa.Table) -> Rows:
    pixels = table["width"].to_numpy().astype(np.int64) * table["height"].to_numpy()
    return Rows(table["index"].to_numpy(), table["id"], pixels, table["bytes"].to_numpy(), table["phash"].to_numpy())


def _same_captions(config: CurateConfig, table: pa.Table, rows: Rows) -> np.ndarray:
    """Return `spare_rows` of the rows whose caption others have, too."""
    nothing = np.full(len(rows), -1, np.int64)
    if not config.filter.caption_similarity:
        return nothing
    found = signatures(table["caption"].to_pylist())
    with_words = np.flatnonzero([bool(one) for one in found])
    if not len(with_words):
        return nothing
    values = np.frombuffer(b"".join(found), "<u4").reshape(-1, PERMUTATIONS)
    heads, equal = collapsed(values)
    similar = [with_words[heads[pairs]] for pairs in similar_pairs(values[heads], config.filter.caption_similarity)]
    return spare_rows(len(rows), [with_words[equal], *similar], rows.by_size(), config.filter.caption_copies)


def close_or_equal(rows: Rows, most: int) -> list[np.ndarray]:
    """Return pairs of rows whose pHashes differ in at most `most` bits."""
    heads, equal = collapsed(rows.phash)
    return [equal, *(heads[pairs] for pairs in close_pairs(rows.phash[heads], most))]


def _select(config: CurateConfig, records: Records, rows: Rows, share: float, found: Prediction) -> None:
    """Predict what the selection leaves out."""
    rule, count = config.select.selection
    if rule == ALL:
        return
    most = float(count)
    if rule == NEAREST:
        clusters = config.select.clusters
        most = float(count * clusters)
        if len(rows) >= PER_CLUSTER * clusters:
            sizes = _cluster_sizes(config, records, rows) / len(rows) * found.kept
            most = float(np.minimum(sizes, count).sum())
        else:
            found.notes.append(
                f"{clusters:,} clusters need a larger sample: select.rule={config.select.rule} is taken to leave "
                f"{count:,} of every one, which is the most that it can"
            )
    found.lose("select", rule, found.kept - most)


def _cluster_sizes(config: CurateConfig, records: Records, rows: Rows) -> np.ndarray:
    """Return how many of the sample's records lie in each cluster of it, float64 [clusters]."""
    from eve_jax.curate.embedders.open import open_embedder
    from eve_jax.curate.features import unit
    from eve_jax.curate.kmeans import ArrayPoints, Settings, assign, fit
    from eve_jax.sharding import make_mesh

    embedder, size = open_embedder(config.embed), config.embed.batch
    parts = []
    with ProgressBar("computing features of the sample", len(rows), unit="images") as bar:
        for start in range(0, len(rows), size):
            files = [records[int(index)].images[0] for index in rows.index[start : start + size]]
            images = [np.asarray(open_reduced(file, embedder.side, config.max_pixels).image) for file in files]
            parts.append(embedder.embed(images))
            bar.advance(len(files))
    points, select, mesh = ArrayPoints(unit(np.concatenate(parts))), config.select, make_mesh(config.select.mesh)
    settings = Settings(select.clusters, select.iterations, config.seed, select.start, 0)
    own = assign(points, fit(points, settings, mesh).centers, mesh).cluster
    return np.bincount(own, minlength=select.clusters).astype(np.float64)
