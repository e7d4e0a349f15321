"""Clustering scores: equality with scikit-learn and with values worked by hand."""

import itertools
import time

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from trajclust_jax.metrics import (
    adjusted_rand,
    batch_scores,
    contingency,
    matched_accuracy,
    nmi,
    rand_index,
    scores,
    used_clusters,
)

EDGES = {
    "one trajectory": ([0], [0]),
    "one trajectory, late numbers": ([3], [2]),
    "one cluster on both sides": ([0] * 6, [0] * 6),
    "one cluster on both sides, late numbers": ([2] * 6, [5] * 6),
    "one label": ([0] * 6, [0, 1, 2, 0, 1, 2]),
    "one cluster": ([0, 1, 2, 0, 1, 2], [4] * 6),
    "all alone on both sides": (range(6), range(6)),
    "all alone on one side": ([0, 0, 0, 1, 1, 1], range(6)),
    "renamed": ([0, 0, 1, 1, 2, 2], [2, 2, 0, 0, 1, 1]),
    "independent": ([0, 0, 1, 1], [0, 1, 0, 1]),
    "independent, three by three": (np.repeat(range(3), 6), np.tile(range(3), 6)),
    "empty clusters": ([0, 0, 3, 3], [1, 1, 7, 1]),
    "two trajectories": ([0, 1], [0, 0]),
}


def assert_equals_sklearn(labels, assignments):
    ours = scores(labels, assignments)
    np.testing.assert_allclose(
        ours["nmi"], sklearn_metrics.normalized_mutual_info_score(labels, assignments), rtol=0, atol=1e-12
    )
    assert ours["ari"] == sklearn_metrics.adjusted_rand_score(labels, assignments)
    assert ours["ri"] == sklearn_metrics.rand_score(labels, assignments)
    assert ours["used_clusters"] == len(np.unique(assignments))
    assert all(type(value) is float for value in ours.values())


@pytest.mark.parametrize(("labels", "assignments"), EDGES.values(), ids=EDGES.keys())
def test_edges_equal_sklearn(labels, assignments):
    assert_equals_sklearn(np.array(labels), np.array(assignments))


def test_random_cases_equal_sklearn():
    rng = np.random.default_rng(0)
    for _ in range(300):
        num, num_labels, num_clusters = rng.integers([1, 1, 1], [200, 9, 9])
        labels = rng.integers(num_labels, size=num)
        agree = rng.random(num) < rng.random()  # from independent to identical
        assert_equals_sklearn(labels, np.where(agree, labels, rng.integers(num_clusters, size=num)))


def test_edge_values_are_exact():
    whole, split = [0, 0, 0], [0, 1, 2]
    assert scores(whole, whole) == {"nmi": 1, "ari": 1, "ri": 1, "accuracy": 1, "used_clusters": 1}
    assert nmi(whole, split) == nmi(split, whole) == 0.0
    assert scores([0], [3]) == {"nmi": 1, "ari": 1, "ri": 1, "accuracy": 1, "used_clusters": 1}
    assert nmi([0, 0, 1, 1], [0, 1, 0, 1]) == 0.0


def test_worked_example():
    labels, assignments = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(contingency(labels, assignments), [[2, 1, 0], [0, 1, 2]])
    # Of 15 pairs, both partitions join 2 and both separate 8. H(labels) = log 2, H(clusters) = log 3, MI = 2/3 log 2.
    np.testing.assert_allclose(nmi(labels, assignments), 2 / 3 * np.log(2) / (np.log(6) / 2), rtol=1e-14)
    np.testing.assert_allclose(rand_index(labels, assignments), 10 / 15, rtol=1e-14)
    np.testing.assert_allclose(adjusted_rand(labels, assignments), (2 - 6 * 3 / 15) / ((6 + 3) / 2 - 6 * 3 / 15))
    np.testing.assert_allclose(matched_accuracy(labels, assignments), 4 / 6, rtol=1e-14)
    assert used_clusters(assignments) == 3


def test_matched_accuracy_equals_all_matchings():
    rng = np.random.default_rng(1)
    for _ in range(30):
        labels, assignments = rng.integers(4, size=30), rng.integers(rng.integers(1, 6), size=30)
        table = np.zeros((5, 5), int)
        np.add.at(table, (labels, assignments), 1)
        best = max(table[range(5), list(p)].sum() for p in itertools.permutations(range(5))) / 30
        np.testing.assert_allclose(matched_accuracy(labels, assignments), best)


def test_scores_are_symmetric_and_ignore_names():
    rng = np.random.default_rng(2)
    labels, assignments = rng.integers(4, size=(2, 100))
    for score in (nmi, adjusted_rand, rand_index, matched_accuracy):
        np.testing.assert_allclose(score(labels, assignments), score(assignments, labels), rtol=1e-12)
        np.testing.assert_allclose(
            score(labels, rng.permutation(9)[assignments]), score(labels, assignments), rtol=1e-12
        )


def test_batch_scores_stack_lone_scores():
    rng = np.random.default_rng(3)
    labels, assignments = rng.integers(4, size=50), rng.integers(5, size=(2, 3, 50))
    batch = batch_scores(labels, assignments)
    for index in np.ndindex(2, 3):
        assert scores(labels, assignments[index]) == {key: value[index] for key, value in batch.items()}
    assert {value.shape for value in batch.values()} == {(2, 3)}
    assert batch_scores(labels, labels)["nmi"].shape == ()


def test_accepts_lists_small_integers_and_jax_arrays():
    labels, assignments = [0, 200, 200], [1, 1, 0]
    expected = scores(labels, assignments)
    assert scores(np.array(labels, np.uint8), np.array(assignments, np.int8)) == expected
    assert scores(jnp.array(labels), jnp.array(assignments)) == expected


@pytest.mark.parametrize(
    ("labels", "assignments", "message"),
    [
        ([0, 1], [0], "same N"),
        ([], [], "N >= 1"),
        ([[0, 1]], [[0, 1]], r"must be \[N\]"),
        ([0, -1], [0, 0], "labels must be integers from 0"),
        ([0, 1], [0.0, 1.0], "assignments must be integers"),
    ],
)
def test_rejects_bad_input(labels, assignments, message):
    with pytest.raises(ValueError, match=message):
        scores(labels, assignments)


def test_large_input_is_fast_and_does_not_overflow():
    rng = np.random.default_rng(4)
    labels = rng.integers(5, size=100_000).astype(np.int32)
    assignments = np.where(rng.random(100_000) < 0.8, labels, rng.integers(7, size=100_000)).astype(np.int32)
    assert_equals_sklearn(labels, assignments)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        scores(labels, assignments)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.02  # about 1 ms on a free core
