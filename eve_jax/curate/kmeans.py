"""Spherical k-means in JAX, on any mesh: points stream to the devices in blocks, only centers stay there.

start          K points at random, or k-means++ on a sample of them
an iteration   every point to the center of the largest cosine; a center is the mean of its points, of length 1
empty          a cluster without points takes half of one of the largest: both centers move apart a little
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32, Int32

from eve_jax.process.progress import ProgressBar
from eve_jax.sharding import AXES

PRODUCTS = 1 << 25  # cosines of a block, on each device: 128 MB
LEAST, MOST = 256, 1 << 15  # points of a block, on each device
CACHED = 1 << 19  # cosines that a CPU looks at before they leave its cache: 2 MB
APART = 1 / 1024  # how far the halves of a cluster that is split move along each coordinate
SAMPLE = 16  # points a cluster that k-means++ chooses from


class Points(Protocol):
    """Points on the unit sphere, float32 [n, D] in pieces."""

    @property
    def width(self) -> int:
        """Return the number of coordinates."""

    def __len__(self) -> int: ...

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return float32 [m, D] of the points `rows`, int64 [m]."""


class ArrayPoints:
    """Points in memory: float [n, D] of length 1."""

    def __init__(self, points: np.ndarray) -> None:
        self.points, self.width = points, points.shape[1]

    def __len__(self) -> int:
        return len(self.points)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return float32 [m, D] of the points `rows`, a view where they follow each other."""
        follow = len(rows) and rows[-1] - rows[0] + 1 == len(rows) and np.all(np.diff(rows) == 1)
        return np.asarray(self.points[rows[0] : rows[-1] + 1] if follow else self.points[rows], np.float32)


@dataclass(frozen=True)
class Settings:
    """clusters: K. start: sample | k-means++. batch: points of an iteration, at random; 0 = all of them."""

    clusters: int
    iterations: int
    seed: int = 0
    start: str = "sample"
    batch: int = 0


class Fit(NamedTuple):
    """centers: float32 [K, D] of length 1. objective: mean cosine of points and their centers, of every iteration."""

    centers: np.ndarray
    objective: list[float]


class Assigned(NamedTuple):
    """cluster: int32 [n]. similarity: float32 [n], the cosine to its center."""

    cluster: np.ndarray
    similarity: np.ndarray


class _Sums(NamedTuple):
    """Float arrays of NumPy or JAX. Of some points, by cluster: their sum, their number; and the sum of all cosines."""

    points: Any  # [K, D]
    number: Any  # [K]
    cosine: Any


def fit(points: Points, settings: Settings, mesh: Mesh) -> Fit:
    """Return the centers of `points`, at least as many as clusters.

    With `batch`, an iteration sees so many points, and a center is the mean of all its points so far (Sculley,
    "Web-scale k-means clustering", 2010). The result depends on the mesh only by rounding.
    """
    random = np.random.default_rng(settings.seed)
    centers = _start(points, settings, random)
    sums = _no_sums(settings.clusters, points.width)
    objective = []
    with ProgressBar("computing clusters", settings.iterations, unit="iterations") as bar:
        for _ in range(settings.iterations):
            rows = np.arange(len(points))
            if 0 < settings.batch < len(points):
                rows = np.sort(random.choice(len(points), settings.batch, replace=False))
            found = _sweep(points, rows, centers, mesh)
            objective.append(float(found.cosine) / len(rows))
            sums = jax.tree.map(np.add, sums, found) if settings.batch else found
            centers, sums = _moved(sums, centers, random)
            bar.advance()
    return Fit(centers, objective)


def assign(points: Points, centers: Float32[np.ndarray, "K D"], mesh: Mesh) -> Assigned:
    """Return the cluster of every point, and how similar it is to its center."""
    cluster, similarity = np.empty(len(points), np.int32), np.empty(len(points), np.float32)
    program, replicated = _assigner(mesh), jax.device_put(centers, NamedSharding(mesh, PartitionSpec()))
    with ProgressBar("assigning records to clusters", len(points), unit="records") as bar:
        for rows, block, _ in _blocks(points, np.arange(len(points)), len(centers), mesh):
            own, cosine = program(block, replicated)
            cluster[rows], similarity[rows] = np.asarray(own)[: len(rows)], np.asarray(cosine)[: len(rows)]
            bar.advance(len(rows))
    return Assigned(cluster, similarity)


def _no_sums(clusters: int, width: int) -> _Sums:
    return _Sums(np.zeros((clusters, width), np.float32), np.zeros(clusters, np.float32), np.zeros((), np.float32))


def _sweep(points: Points, rows: np.ndarray, centers: np.ndarray, mesh: Mesh) -> _Sums:
    """Return the sums over the points `rows`."""
    replicated = NamedSharding(mesh, PartitionSpec())
    there = jax.device_put(centers, replicated)
    sums = jax.device_put(_no_sums(*centers.shape), replicated)
    program = _adder(mesh)
    for _, block, real in _blocks(points, rows, len(centers), mesh):
        sums = program(sums, block, real, there)
    return jax.tree.map(np.asarray, sums)


def _blocks(points: Points, rows: np.ndarray, clusters: int, mesh: Mesh) -> Iterator[tuple[np.ndarray, Array, Array]]:
    """Yield rows, their points over the devices, padded to one shape, and which are real (float32)."""
    part_size = _part(clusters, mesh)
    whole = min(max(PRODUCTS // clusters, LEAST), MOST, -(-len(rows) // mesh.size))
    size = mesh.size * part_size * -(-whole // part_size)
    sharding = NamedSharding(mesh, PartitionSpec(AXES))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        block = points.rows(part)
        if len(part) < size:
            block = np.concatenate([block, np.zeros((size - len(part), points.width), np.float32)])
        real = (np.arange(size) < len(part)).astype(np.float32)
        yield part, jax.device_put(block, sharding), jax.device_put(real, sharding)


def _part(clusters: int, mesh: Mesh) -> int:
    """Return how many points of a block a device compares with the centers at a time."""
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    most = CACHED // clusters if on_cpu else PRODUCTS // clusters
    return 1 << max(min(most, MOST).bit_length() - 1, 6)


def _nearest(block: Float[Array, "B D"], centers: Float[Array, "K D"]) -> tuple[Int32[Array, " B"], Float[Array, " B"]]:
    """Return the center of the largest cosine, the first of several, and the cosine."""
    cosine = jnp.dot(block, centers.T, preferred_element_type=jnp.float32)
    best = cosine.max(axis=1)
    # The first of the largest, as argmax, which XLA computes on CPUs one value at a time.
    own = jnp.where(cosine == best[:, None], jnp.arange(len(centers), dtype=jnp.int32), len(centers)).min(axis=1)
    return own, best


@cache
def _adder(mesh: Mesh) -> Callable[[_Sums, Array, Array, Array], _Sums]:
    """Return the program that adds the points of a block to the sums."""

    @jax.jit(donate_argnums=0)
    @partial(jax.shard_map, mesh=mesh, in_specs=_specs(None, AXES, AXES, None), out_specs=PartitionSpec())
    def add(sums: _Sums, block: Array, real: Array, centers: Array) -> _Sums:
        clusters = len(centers)

        def body(found: _Sums, part: tuple[Array, ...]) -> tuple[_Sums, None]:
            points, real = part
            own, cosine = _nearest(points, centers)
            more = _Sums(
                jax.ops.segment_sum(points, own, clusters),  # padding is 0
                jax.ops.segment_sum(real, own, clusters),
                jnp.sum(cosine * real),
            )
            return jax.tree.map(jnp.add, found, more), None

        none = jax.tree.map(lambda one: jax.lax.pcast(jnp.zeros_like(one), AXES, to="varying"), sums)
        parts = tuple(one.reshape(-1, _part(clusters, mesh), *one.shape[1:]) for one in (block, real))
        found, _ = jax.lax.scan(body, none, parts)
        return jax.tree.map(jnp.add, sums, jax.lax.psum(found, AXES))

    return add


@cache
def _assigner(mesh: Mesh) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Return the program that finds the center of every point of a block."""

    def nearest(block: Array, centers: Array) -> tuple[Array, Array]:
        parts = block.reshape(-1, _part(len(centers), mesh), block.shape[1])
        own, cosine = jax.lax.map(lambda part: _nearest(part, centers), parts)
        return own.ravel(), cosine.ravel()

    return jax.jit(jax.shard_map(nearest, mesh=mesh, in_specs=_specs(AXES, None), out_specs=PartitionSpec(AXES)))


def _specs(*axes: tuple[str, ...] | None) -> tuple[PartitionSpec, ...]:
    return tuple(PartitionSpec(*([one] if one else [])) for one in axes)


def _moved(sums: _Sums, centers: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, _Sums]:
    """Return the centers of the `sums`, of length 1, empty clusters as halves of the largest; and the sums so split."""
    points, count = np.array(sums.points), np.array(sums.number)
    empty = np.flatnonzero(count == 0)
    length = np.linalg.norm(points, axis=1, keepdims=True)
    centers = np.where(length > 0, points / np.where(length > 0, length, 1), centers)
    largest = np.argsort(-count, kind="stable")[: len(count) - len(empty)]
    for number, cluster in enumerate(empty):
        whole = largest[number % len(largest)]
        apart = APART * random.choice((-1, 1), centers.shape[1])
        centers[cluster], centers[whole] = (_unit(centers[whole] + side * apart) for side in (1, -1))
        points[cluster] = points[whole] = points[whole] / 2
        count[cluster] = count[whole] = count[whole] / 2
    return centers.astype(np.float32), sums._replace(points=points, number=count)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-30)


def _start(points: Points, settings: Settings, random: np.random.Generator) -> np.ndarray:
    """Return the first centers, float32 [K, D]."""
    if settings.start == "sample":
        return points.rows(np.sort(random.choice(len(points), settings.clusters, replace=False)))
    count = min(len(points), SAMPLE * settings.clusters)
    sample = points.rows(np.sort(random.choice(len(points), count, replace=False)))
    return np.asarray(_plus_plus(jnp.asarray(sample), jax.random.key(settings.seed), settings.clusters))


@partial(jax.jit, static_argnums=2)
def _plus_plus(points: Float[Array, "n D"], key: Array, clusters: int) -> Float[Array, "K D"]:
    """Return K of the points, each drawn by its squared distance to those before (Arthur and Vassilvitskii, 2007)."""

    def step(number: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        chosen, distance = state
        weights = jnp.where(distance > 1e-9, jnp.log(distance), -jnp.inf)
        weights = jnp.where(jnp.isfinite(weights).any(), weights, 0.0)  # all points are chosen already
        one = points[jax.random.categorical(jax.random.fold_in(key, number), weights)]
        return chosen.at[number].set(one), jnp.minimum(distance, jnp.maximum(2 - 2 * points @ one, 0))

    begin = jnp.zeros((clusters, points.shape[1]), points.dtype), jnp.ones(len(points), points.dtype)
    return jax.lax.fori_loop(0, clusters, step, begin)[0]
