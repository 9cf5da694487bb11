"""Embedding: features of the images that the filter kept, in a file a shard; what is there already stays."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from threading import Lock

import numpy as np

from eve_jax.curate.config import EmbedConfig
from eve_jax.curate.embedders.open import Embedder, identity, open_embedder
from eve_jax.curate.features import feature_file, read_features, write_features
from eve_jax.curate.rows import Wanted
from eve_jax.curate.stage import Stage, key_of
from eve_jax.curate.stages.adding import Adding
from eve_jax.curate.stages.measure import Measure
from eve_jax.data.image.patches import open_reduced
from eve_jax.errors import UserError

NAME, VERSION = "embed", 1
_one_at_a_time = Lock()  # a model uses all cores, or the accelerator, by itself


@dataclass(frozen=True, eq=False)
class Embed(Adding):
    """Makes the features of the records of a shard that are in `wanted` and not there yet."""

    config: EmbedConfig

    def made(self, number: int) -> np.ndarray:
        """Return the records of shard `number` that have features, int64 [n]."""
        path = feature_file(self.stage, number)
        return read_features(path)[0] if path.is_file() else np.zeros(0, np.int64)

    def __call__(self, number: int) -> None:
        """Write the features of shard `number`."""
        left = self.left(number)
        path = feature_file(self.stage, number)
        with _one_at_a_time:
            found = np.concatenate([*self._embedded(left)]).astype(np.float16)
        if not np.isfinite(found).all():
            raise UserError(f"config.embed.kind={self.config.kind}: features that are not finite; use another model")
        if path.is_file():
            index, features = read_features(path)
            left, found = np.concatenate([index, left]), np.concatenate([features, found])
        order = np.argsort(left, kind="stable")
        write_features(path, left[order], found[order])

    def _embedded(self, index: np.ndarray) -> Iterator[np.ndarray]:
        embedder, records = _opened(self.config), self.source.open()
        for start in range(0, len(index), self.config.batch):
            files = [records[int(one)].images[0] for one in index[start : start + self.config.batch]]
            images = [np.asarray(open_reduced(file, embedder.side, self.max_pixels).image) for file in files]
            yield embedder.embed(images)


@cache
def _opened(config: EmbedConfig) -> Embedder:
    return open_embedder(config)


def embed_stage(measure: Measure, config: EmbedConfig, index: np.ndarray) -> Embed:
    """Return what embeds the records `index`, int64 [n] ascending, of those that `measure` measured."""
    key = key_of(NAME, VERSION, {"model": identity(config)}, measure.stage.key)
    return Embed(
        Stage(measure.stage.out, NAME, key),
        measure.source,
        measure.size,
        measure.max_pixels,
        Wanted.of(measure.stage.out, index),
        config,
    )
