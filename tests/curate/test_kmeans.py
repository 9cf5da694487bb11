"""Spherical k-means: against a plain NumPy one, on several devices, with empty clusters, in parts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from eve_jax.curate.kmeans import ArrayPoints, Settings, assign, fit
from eve_jax.sharding import make_mesh


def blobs(count, clusters, width=16, seed=0, spread=0.3):
    random = np.random.default_rng(seed)
    centers = random.normal(size=(clusters, width))
    points = centers[random.integers(0, clusters, count)] + spread * random.normal(size=(count, width))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def one_device():
    return make_mesh("", jax.devices()[:1])


def by_hand(points, centers, iterations):
    objective = []
    for _ in range(iterations):
        cosine = points @ centers.T
        own = cosine.argmax(axis=1)
        objective.append(float(cosine.max(axis=1).mean()))
        for k in range(len(centers)):
            if (own == k).any():
                mean = points[own == k].sum(axis=0)
                centers[k] = mean / np.linalg.norm(mean)
    return centers, objective


@pytest.mark.parametrize("block", [256, 1 << 15])
def test_iterations_are_those_of_lloyd(monkeypatch, block):
    monkeypatch.setattr("eve_jax.curate.kmeans.MOST", block)
    points = blobs(3000, 12)
    chosen = np.sort(np.random.default_rng(4).choice(3000, 12, replace=False))
    centers, objective = by_hand(points, points[chosen].copy(), 6)
    found = fit(ArrayPoints(points), Settings(12, 6, seed=4), one_device())
    np.testing.assert_allclose(found.objective, objective, atol=1e-5)
    np.testing.assert_allclose(found.centers, centers, atol=1e-4)
    own = assign(ArrayPoints(points), found.centers, one_device())
    assert np.array_equal(own.cluster, (points @ centers.T).argmax(axis=1))
    np.testing.assert_allclose(own.similarity, (points @ centers.T).max(axis=1), atol=1e-5)


def test_eight_devices_are_one():
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.curate.on_meshes"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("devices") == 8
    assert all(distance < 1e-5 for distance in found.values()), found


def test_empty_clusters_take_halves_of_the_largest():
    points = np.repeat(np.eye(4, dtype=np.float32), [400, 30, 20, 10], axis=0)
    points = points + 0.05 * np.random.default_rng(0).normal(size=points.shape).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    found = fit(ArrayPoints(points), Settings(40, 12, seed=1), one_device())
    own = assign(ArrayPoints(points), found.centers, one_device()).cluster
    assert len(np.unique(own)) == 40
    assert found.objective[-1] > found.objective[0]
    np.testing.assert_allclose(np.linalg.norm(found.centers, axis=1), 1, atol=1e-5)


def test_equal_points_fewer_than_clusters_do_not_break():
    points = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    for start in ("sample", "k-means++"):
        found = fit(ArrayPoints(points), Settings(7, 4, start=start), one_device())
        assert np.isfinite(found.centers).all()
        assert found.objective[-1] > 0.99


def test_plus_plus_begins_better_than_a_sample():
    points = blobs(4000, 40, spread=0.1)
    begun = {
        start: np.mean(
            [fit(ArrayPoints(points), Settings(40, 1, seed, start), one_device()).objective[0] for seed in range(5)]
        )
        for start in ("sample", "k-means++")
    }
    assert begun["k-means++"] > begun["sample"] + 0.02


def test_parts_of_the_points_come_near_all_of_them():
    points = blobs(6000, 20)
    plus = "k-means++"
    whole = fit(ArrayPoints(points), Settings(20, 30, start=plus), one_device())
    parts = fit(ArrayPoints(points), Settings(20, 30, start=plus, batch=600), one_device())
    reached = [assign(ArrayPoints(points), one.centers, one_device()).similarity.mean() for one in (whole, parts)]
    assert reached[1] > reached[0] - 0.005
