"""Run by test_kmeans.py on 8 virtual devices: prints how far 8 devices are from one, as JSON."""

import json

import jax
import numpy as np

from eve_jax.curate.kmeans import ArrayPoints, Settings, assign, fit
from eve_jax.sharding import make_mesh
from tests.curate.test_kmeans import blobs


def main() -> None:
    """Cluster 2,500 points, which no 8 devices share evenly, on meshes of 1 and of 8 devices."""
    points = ArrayPoints(blobs(2500, 9))
    meshes = [make_mesh("", jax.devices()[:1]), make_mesh("", jax.devices()), make_mesh("data:2,fsdp:2,tensor:2")]
    fits = [fit(points, Settings(9, 8), mesh) for mesh in meshes]
    own = [assign(points, fits[0].centers, mesh) for mesh in meshes]
    far = {
        "objective": [np.abs(np.subtract(fits[0].objective, one.objective)).max() for one in fits[1:]],
        "centers": [np.abs(fits[0].centers - one.centers).max() for one in fits[1:]],
        "similarity": [np.abs(own[0].similarity - one.similarity).max() for one in own[1:]],
        "cluster": [np.mean(own[0].cluster != one.cluster) for one in own[1:]],
    }
    print(json.dumps({name: float(max(values)) for name, values in far.items()} | {"devices": len(jax.devices())}))


if __name__ == "__main__":
    main()
