"""Clustering: centers by k-means on a sample of the features, then every record to its center."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from eve_jax.curate.config import SelectConfig
from eve_jax.curate.features import Features
from eve_jax.curate.stage import Stage, key_of, write_parquet
from eve_jax.errors import Field, FieldError
from eve_jax.process.files import write_json

NAME, VERSION = "cluster", 1
CENTERS, HISTORY = "centers.npy", "objective.json"
SETTINGS = ("clusters", "iterations", "start", "sample", "batch")  # of the section `select`
SCHEMA = pa.schema({"index": pa.int64(), "cluster": pa.int32(), "similarity": pa.float32()})


@dataclass(frozen=True, eq=False)
class Clusters:
    """cluster: int32 [n]. similarity: float32 [n], the cosine to the center."""

    cluster: np.ndarray
    similarity: np.ndarray

    def take(self, kept: np.ndarray) -> "Clusters":
        """Return those of some records, bool [n]."""
        return Clusters(self.cluster[kept], self.similarity[kept])


def no_clusters(rows: int) -> Clusters:
    """Return one cluster of all records."""
    return Clusters(np.zeros(rows, np.int32), np.ones(rows, np.float32))


def cluster_stage(out: Stage, config: SelectConfig, seed: int, *inputs: str) -> Stage:
    """Return the stage that clusters the features of `out`, of the records that the keys `inputs` stand for."""
    settings: Mapping[str, object] = {name: asdict(config)[name] for name in SETTINGS} | {"seed": seed}
    return Stage(out.out, NAME, key_of(NAME, VERSION, settings, out.key, *inputs))


def clustered(stage: Stage, features: Features, config: SelectConfig, seed: int) -> Clusters:
    """Return the clusters of the `features`, computed unless they are there. Raises FieldError for too few records."""
    if not stage.shard(0).is_file():
        _compute(stage, features, config, seed)
    table = stage.read(0)
    return Clusters(table["cluster"].to_numpy(), table["similarity"].to_numpy())


def _compute(stage: Stage, features: Features, config: SelectConfig, seed: int) -> None:
    from eve_jax.curate.kmeans import ArrayPoints, Points, Settings, assign, fit
    from eve_jax.sharding import make_mesh

    if len(features) < config.clusters:
        raise FieldError(
            Field("select.clusters"), f"={config.clusters} is more than the {len(features):,} records that are left"
        )
    mesh = make_mesh(config.mesh)
    stage.folder.mkdir(parents=True, exist_ok=True)
    points: Points = features
    if len(features) > config.sample * config.clusters:
        chosen = np.random.default_rng(seed).choice(len(features), config.sample * config.clusters, replace=False)
        points = ArrayPoints(features.rows(np.sort(chosen)))
    settings = Settings(config.clusters, config.iterations, seed, config.start, config.batch)
    found = fit(points, settings, mesh)
    own = assign(features, found.centers, mesh)
    write_json(stage.folder / HISTORY, {"objective": found.objective})
    np.save(stage.folder / CENTERS, found.centers)
    columns = {"index": features.index, "cluster": own.cluster, "similarity": own.similarity}
    write_parquet(stage.shard(0), pa.table(columns, SCHEMA))
