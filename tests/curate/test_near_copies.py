"""Near-copies, groups, similar captions, selection: against comparing each with each."""

import numpy as np
import pyarrow as pa
import pytest

from eve_jax.curate.config import Selection
from eve_jax.curate.features import Features
from eve_jax.curate.groups import collapsed, spare_rows
from eve_jax.curate.minhash import equal_pairs, signatures, similar_pairs
from eve_jax.curate.rows import Rows, by_shard
from eve_jax.curate.stages.near_copies import close_pairs, near_copies
from eve_jax.curate.stages.select import select
from eve_jax.curate.stages.semantic import semantic_copies


def rows_of(phash, pixels=None, ids=None):
    n = len(phash)
    pixels = np.arange(n, 0, -1) if pixels is None else np.asarray(pixels)
    ids = [f"r{k:06d}" for k in range(n)] if ids is None else ids
    return Rows(np.arange(n), pa.chunked_array([ids]), pixels, np.full(n, 9), np.asarray(phash, np.uint64))


def near_hashes(count, random):
    """Hashes in small families that differ in 0 to 6 bits from their first."""
    first = random.integers(0, 1 << 64, count // 4, np.uint64)
    family = np.repeat(first, 4)
    for row in range(len(family)):
        for bit in random.choice(64, random.integers(0, 7), replace=False):
            family[row] ^= np.uint64(1) << np.uint64(bit)
    return np.unique(family)


@pytest.mark.parametrize("most", [1, 2, 4, 6])
@pytest.mark.parametrize("extra", [0, 1, 2, 3])
def test_all_close_pairs_are_found_and_no_others(most, extra):
    hashes = near_hashes(400, np.random.default_rng(most))
    different = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = {(a, b) for a, b in zip(*np.nonzero(different <= most), strict=True) if a < b}
    assert len(expected) > 20
    assert {tuple(sorted(pair)) for pairs in close_pairs(hashes, most, extra) for pair in pairs.tolist()} == expected


def test_the_largest_of_a_group_stays_and_ties_go_by_id():
    # 0 - 1 - 2 in a chain: 0 and 2 differ in 6 bits; 3 alone; 4, 5 and 6 equal
    phash = [0, 0b111, 0b111111, 0xFFFF << 44, *[0xF0F0F0F0 << 30] * 3]
    rows = rows_of(phash, pixels=[10, 30, 20, 1, 7, 8, 8], ids=["a", "b", "c", "d", "g", "f", "e"])
    found = near_copies(rows, 4)
    assert found.kept.tolist() == [False, True, False, True, False, False, True]
    assert found.values == ["b", "b", "e", "e"]
    assert near_copies(rows, 2).kept.tolist() == [True, True, True, True, False, False, True]


def test_spare_rows_keep_as_many_copies_as_asked_for():
    pairs = [np.array([[0, 1], [1, 2], [2, 3]])]
    order = np.array([2, 0, 1, 3, 4])
    assert spare_rows(5, pairs, order).tolist() == [2, 2, -1, 2, -1]
    assert spare_rows(5, pairs, order, copies=3).tolist() == [-1, -1, -1, 2, -1]


def test_equal_pairs_and_collapsed():
    keys = np.array([3, 1, 3, 2, 3, 1])
    found = sorted(map(tuple, (pair for pairs in equal_pairs(keys) for pair in pairs.tolist())))
    assert found == [(0, 2), (0, 4), (1, 5), (2, 4)]
    first, pairs = collapsed(keys)
    assert first.tolist() == [1, 3, 0]
    assert pairs.tolist() == [[0, 2], [0, 4], [1, 5]]


def test_signatures_estimate_the_jaccard_similarity():
    random = np.random.default_rng(0)
    words = [f"w{n}" for n in range(60)]
    errors = []
    for _ in range(200):
        one = [words[n] for n in random.integers(0, 60, 14)]
        other = one[: random.integers(2, 14)] + [words[n] for n in random.integers(0, 60, 4)]
        sets = [{tuple(text[k : k + 3]) for k in range(len(text) - 2)} for text in (one, other)]
        a, b = (np.frombuffer(s, "<u4") for s in signatures([" ".join(one), " ".join(other)]))
        errors.append((a == b).mean() - len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.07  # of 64 draws: at most 0.0625


def test_similar_captions_are_found():
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in random.integers(0, 200, 14)) for _ in range(300)]
    texts += [f"{text} !" for text in texts[:40]]
    found = np.frombuffer(b"".join(signatures(texts)), "<u4").reshape(len(texts), -1)
    pairs = {tuple(pair) for pairs in similar_pairs(found, 0.8) for pair in pairs.tolist()}
    assert {(n, 300 + n) for n in range(40)} <= pairs
    assert len(pairs) == 40


def test_nearest_takes_what_sorting_by_hand_takes():
    random = np.random.default_rng(0)
    n, clusters, most = 20_000, 37, 300
    cluster = random.integers(0, clusters, n).astype(np.int32)
    similarity = np.round(random.random(n), 2).astype(np.float32)  # many ties
    ids = [f"{k}" for k in random.permutation(n)]
    kept = select(rows_of(np.zeros(n), ids=ids), Selection("nearest", most), 0, cluster, similarity).kept
    for one in range(clusters):
        members = [k for k in range(n) if cluster[k] == one]
        best = sorted(members, key=lambda k: (-similarity[k], ids[k]))[:most]
        assert {k for k in members if kept[k]} == set(best)


@pytest.mark.parametrize(("count", "expected"), [(6, [2, 2, 2]), (9, [2, 3, 4]), (12, [2, 3, 7]), (99, [2, 3, 20])])
def test_balanced_takes_as_many_of_each_cluster_as_it_can(count, expected):
    cluster = np.array([0] * 2 + [1] * 3 + [2] * 20, np.int32)
    found = select(rows_of(np.zeros(25)), Selection("balanced", count), 3, cluster, np.ones(25, np.float32))
    assert np.bincount(cluster[found.kept]).tolist() == expected
    again = select(rows_of(np.zeros(25)), Selection("balanced", count), 3, cluster, np.ones(25, np.float32))
    assert np.array_equal(found.kept, again.kept)


def test_random_takes_so_many_and_others_for_another_seed():
    kept = [
        select(rows_of(np.zeros(100)), Selection("random", 40), seed, np.zeros(100, np.int32), np.ones(100)).kept
        for seed in (0, 1)
    ]
    assert [one.sum() for one in kept] == [40, 40]
    assert (kept[0] != kept[1]).any()


class Held(Features):
    """Features in memory."""

    points: np.ndarray

    def __init__(self, points):
        object.__setattr__(self, "points", points / np.linalg.norm(points, axis=1, keepdims=True))

    def rows(self, rows):
        return self.points[rows].astype(np.float32)


def test_semantic_copies_by_hand(monkeypatch):
    monkeypatch.setattr("eve_jax.curate.stages.semantic.BLOCK", 7)
    random = np.random.default_rng(0)
    points = random.normal(size=(120, 8))
    points[60:] = points[:60] + random.normal(size=(60, 8)) * random.choice([0.05, 1.0], (60, 1))
    held, cluster = Held(points), (np.arange(120) % 60 % 3).astype(np.int32)
    similarity = random.random(120).astype(np.float32)
    kept = semantic_copies(rows_of(np.zeros(120)), held, cluster, similarity, 0.05).kept
    for one in range(3):
        members = sorted(np.flatnonzero(cluster == one), key=lambda k: similarity[k])
        for place, row in enumerate(members):
            cosines = [held.points[row] @ held.points[other] for other in members[:place]]
            assert kept[row] == (max(cosines, default=-1) <= 0.95)
    assert 20 < (~kept).sum() < 60


def test_by_shard():
    index = np.array([1, 2, 9, 30, 31, 39, 40])
    assert [(n, index[s].tolist()) for n, s in by_shard(index, 10)] == [(0, [1, 2, 9]), (3, [30, 31, 39]), (4, [40])]
    assert list(by_shard(np.zeros(0, np.int64), 10)) == []
