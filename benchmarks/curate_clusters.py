"""Clusters, near-copies and selection: k-means next to faiss, planted copies found, selection next to sorting by hand.

    python -m benchmarks.curate_clusters kmeans ROWS WIDTH CLUSTERS ITERATIONS   k-means of ours alone, a line of JSON
    python -m benchmarks.curate_clusters faiss ROWS WIDTH CLUSTERS ITERATIONS    the same by faiss

EVE_FAISS_PYTHON names the Python of an environment with faiss-cpu; without, this one's is tried.
"""

import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.child import child

ROOT = Path(__file__).parents[1]
NEAR = 4  # bits


def points(rows: int, width: int) -> np.ndarray:
    """Return float32 [rows, width] of length 1 in 3 x 512 groups of groups, which overlap."""
    random = np.random.default_rng(0)
    coarse = random.normal(size=(3, width)).astype(np.float32)
    fine = coarse[random.integers(0, 3, 512)] + 1.2 * random.normal(size=(512, width)).astype(np.float32)
    found = np.empty((rows, width), np.float32)
    for start in range(0, rows, 50_000):
        part = found[start : start + 50_000]
        part[:] = fine[random.integers(0, 512, len(part))]
        part += 1.5 * random.standard_normal(part.shape, np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


def kmeans(rows: int, width: int, clusters: int, iterations: int) -> dict[str, Any]:
    """Return seconds of CPU, the objective (mean cosine) and the memory of k-means of ours."""
    import jax

    from eve_jax.curate.kmeans import ArrayPoints, Settings, assign, fit
    from eve_jax.process.setup import setup
    from eve_jax.sharding import make_mesh

    setup()
    made = points(rows, width)
    mesh = make_mesh("", jax.devices())
    before = _seconds()
    found = fit(ArrayPoints(made), Settings(clusters, iterations), mesh)
    cpu = _seconds() - before
    reached = assign(ArrayPoints(made), found.centers, mesh).similarity.mean(dtype=np.float64)
    return {"cpu_s": round(cpu, 1), "objective": float(reached), "memory_gb": _peak(), "history": found.objective}


def by_faiss(rows: int, width: int, clusters: int, iterations: int) -> dict[str, Any]:
    """Return the same of faiss."""
    import faiss

    made = points(rows, width)
    index = faiss.Kmeans(width, clusters, niter=iterations, spherical=True, max_points_per_centroid=rows, seed=1)
    before = _seconds()
    index.train(made)
    cpu = _seconds() - before
    cosine, _ = index.index.search(made, 1)
    return {"cpu_s": round(cpu, 1), "objective": float(cosine.mean(dtype=np.float64)), "memory_gb": _peak()}


def against_faiss(rows: int = 200_000, width: int = 512, clusters: int = 1000, iterations: int = 10) -> dict[str, Any]:
    """Return the figures of both, and whether ours hold next to faiss's."""
    sizes = [str(one) for one in (rows, width, clusters, iterations)]
    ours = child("benchmarks.curate_clusters", "kmeans", *sizes)
    command = [os.environ.get("EVE_FAISS_PYTHON", sys.executable), "-m", "benchmarks.curate_clusters", "faiss", *sizes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        return {"ours": ours, "error": "faiss: " + (done.stderr.splitlines() or ["no output"])[-1], "holds": False}
    theirs = json.loads(done.stdout.splitlines()[-1])
    ours.pop("history", None)
    worse = 1 - ours["objective"] / theirs["objective"]
    ratio = ours["cpu_s"] / theirs["cpu_s"]
    holds = worse <= 0.005 and ratio <= 1.5
    return {"ours": ours, "faiss": theirs, "worse": round(worse, 5), "cpu_ratio": round(ratio, 2), "holds": holds}


def devices(rows: int = 20_000, width: int = 64, clusters: int = 100, iterations: int = 10) -> dict[str, Any]:
    """Return how far 8 virtual devices are from one, in the objective of any iteration."""
    sizes = [str(one) for one in (rows, width, clusters, iterations)]
    found = []
    for number in (1, 8):
        env = os.environ | {"JAX_NUM_CPU_DEVICES": str(number), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "benchmarks.curate_clusters", "kmeans", *sizes]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1])["history"])
    far = float(np.abs(np.subtract(*found)).max())
    return {"far": far, "holds": far <= 1e-5}


def a_million(rows: int = 1_000_000, width: int = 512, clusters: int = 1000) -> dict[str, Any]:
    """Return the memory of two iterations over a million points."""
    found = child("benchmarks.curate_clusters", "kmeans", *(str(one) for one in (rows, width, clusters, 2)))
    found.pop("history", None)
    return found | {"holds": found.get("memory_gb", 99) <= 6}


def near_copies(count: int = 2000, copies: int = 200) -> dict[str, Any]:
    """Return recall and precision of near-copies that are planted among crops of the same photos.

    A copy is resized to 60% to 110% and compressed anew at quality 40 to 90; crops of 5% are counted apart.
    """
    from benchmarks.curate_images import photo
    from eve_jax.curate.stages.measure import measure
    from eve_jax.curate.stages.near_copies import close_pairs

    random = np.random.default_rng(0)
    originals = [_crop(photo(1000 + number // 4, 700), number % 4) for number in range(count)]
    shown = list(originals)
    planted, cropped = set(), set()
    for number in random.choice(count, copies, replace=False).tolist():
        image = originals[number]
        scale = random.uniform(0.6, 1.1)
        small = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
        planted.add((number, len(shown)))
        shown.append(_again(small, int(random.integers(40, 91))))
        edge_x, edge_y = (int(side * 0.025) for side in image.size)
        cropped.add((number, len(shown)))
        shown.append(_again(image.crop((edge_x, edge_y, image.width - edge_x, image.height - edge_y)), 85))
    hashes = np.array([measure(_bytes(image, 90), "x", 10**8).phash for image in shown], np.uint64)
    first, group = np.unique(hashes, return_inverse=True)
    joined = {(int(a), int(b)) for pairs in close_pairs(first, NEAR) for a, b in np.sort(pairs, axis=1)}
    same = {(one, one) for one in range(len(first))} | joined
    members = [np.flatnonzero(group == one) for one in range(len(first))]
    found = {(int(min(a, b)), int(max(a, b))) for x, y in same for a in members[x] for b in members[y] if a != b}
    related = planted | cropped | {(min(a, b), max(a, b)) for _, a in planted for _, b in cropped if b == a + 1}
    recall = len(found & planted) / len(planted)
    precision = len(found & related) / max(len(found), 1)
    equal = sum(hashes[a] == hashes[b] for a, b in planted) / len(planted)
    return {
        "images": len(shown),
        "recall": round(recall, 4),
        "precision": round(precision, 4),
        "crops_found": round(len(found & cropped) / len(cropped), 3),
        "equality_alone": round(float(equal), 3),
        "holds": recall >= 0.99 and precision >= 0.99,
    }


def selection(rows: int = 20_000, clusters: int = 50, most: int = 300) -> dict[str, Any]:
    """Return whether nearest:N through the stages takes what comparing each with each and sorting takes, ties by id."""
    import pyarrow as pa

    from eve_jax.curate.config import Selection
    from eve_jax.curate.rows import Rows
    from eve_jax.curate.stages.select import select

    random = np.random.default_rng(0)
    made = points(rows, 32).astype(np.float16).astype(np.float32)
    made[rows // 2 :] = made[: rows // 2]  # every record twice: ties
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    from eve_jax.curate.kmeans import ArrayPoints, Settings, assign, fit
    from eve_jax.sharding import make_mesh

    mesh = make_mesh("")
    centers = fit(ArrayPoints(made), Settings(clusters, 5), mesh).centers
    own = assign(ArrayPoints(made), centers, mesh)
    ids = [f"{one:x}" for one in random.permutation(rows)]
    zeros = np.zeros(rows, np.int64)
    table = Rows(np.arange(rows), pa.chunked_array([ids]), zeros, zeros, zeros.astype(np.uint64))
    kept = select(table, Selection("nearest", most), 0, own.cluster, own.similarity).kept
    by_hand = set()
    cosine = made @ centers.T
    differ = int((cosine.argmax(axis=1) != own.cluster).sum())
    for one in range(clusters):
        members = [row for row in range(rows) if own.cluster[row] == one]
        by_hand |= set(sorted(members, key=lambda row: (-own.similarity[row], ids[row]))[:most])
    same = by_hand == set(np.flatnonzero(kept).tolist())
    return {"kept": int(kept.sum()), "otherwise_assigned": differ, "holds": same and differ <= rows // 10_000}


def _crop(image: Image.Image, corner: int) -> Image.Image:
    """Return a corner of an image, 55% of each side: corners overlap a little."""
    width, height = int(image.width * 0.55), int(image.height * 0.55)
    left, top = (corner % 2) * (image.width - width), (corner // 2) * (image.height - height)
    return image.crop((left, top, left + width, top + height))


def _bytes(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _again(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(_bytes(image, quality))).convert("RGB")


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    print(json.dumps({"kmeans": kmeans, "faiss": by_faiss}[what](*map(int, given))), flush=True)
