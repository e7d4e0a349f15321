"""Matching, calibration and behavioural KL: worked by hand."""

import numpy as np
import pytest

from trajclust_jax.metrics import behavioural_kl, calibration, match_clusters, matched_accuracy, matched_correct


def test_matching_leaves_labels_over_where_clusters_are_few():
    assert match_clusters(np.array([[1, 9], [8, 7]])).tolist() == [1, 0]
    assert match_clusters(np.array([[5, 0], [4, 0], [0, 1]])).tolist() == [0, -1, 1]
    assert match_clusters(np.array([[0, 0, 3]])).tolist() == [2]


def test_correct_trajectories_are_the_matched_accuracy():
    rng = np.random.default_rng(0)
    for num_clusters in (2, 4, 6):
        labels, assignments = rng.integers(4, size=60), rng.integers(num_clusters, size=60)
        assert matched_correct(labels, assignments).mean() == pytest.approx(matched_accuracy(labels, assignments))
    assert matched_correct([0, 0, 1], [1, 1, 1]).tolist() == [True, True, False]


def test_calibration_worked_example():
    confidence = [0.55, 0.65, 0.95, 1.0, 0.9]
    table, error = calibration(confidence, [True, False, True, True, False], num_bins=5)
    np.testing.assert_allclose(table["low"], [0, 0.2, 0.4, 0.6, 0.8])
    assert table["count"].tolist() == [0, 0, 1, 1, 3]
    np.testing.assert_allclose(table["confidence"], [np.nan, np.nan, 0.55, 0.65, 0.95])
    np.testing.assert_allclose(table["accuracy"], [np.nan, np.nan, 1, 0, 2 / 3])
    assert error == pytest.approx((0.45 + 0.65 + 3 * (0.95 - 2 / 3)) / 5)


def test_calibrated_confidence_has_no_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=100_000)
    right = rng.uniform(size=100_000) < confidence
    assert calibration(confidence, right)[1] < 0.01
    assert calibration(confidence, ~right)[1] > 0.4
    assert calibration([1.0], [True])[1] == 0
    for bad in (([0.5], [True, False]), ([], []), ([1.5], [True])):
        with pytest.raises(ValueError, match="confidence"):
            calibration(*bad)


def test_kl_worked_example():
    """Two policies, clusters numbered the other way round; steps 2, 1, 4."""
    labels, assignments, lengths = [0, 0, 1], [1, 1, 0], [2, 1, 4]
    true = [[-0.2, -np.inf], [-0.1, -7.0], [-np.inf, 0.0]]
    found = [[-9.0, -0.8], [-9.0, -0.4], [-2.0, -np.inf]]
    np.testing.assert_allclose(behavioural_kl(labels, assignments, found, true, lengths), [0.9 / 3, 2 / 4])


def test_kl_is_the_kl_of_bernoulli_policies():
    """One observation, one step; a large sample of p = .3 against q = .6."""
    rng = np.random.default_rng(0)
    actions = (rng.uniform(size=200_000) < 0.3).astype(int)
    p, q = np.log([0.7, 0.3]), np.log([0.4, 0.6])
    zeros = np.zeros(len(actions), int)
    kl = behavioural_kl(zeros, zeros, q[actions][:, None], p[actions][:, None], np.ones(len(actions)))
    expected = 0.7 * np.log(0.7 / 0.4) + 0.3 * np.log(0.3 / 0.6)
    np.testing.assert_allclose(kl, [expected], atol=0.005)


def test_kl_edges():
    labels, lengths = [0, 1, 1], [1, 1, 1]
    true = np.where(np.eye(2, dtype=bool)[labels], 0.0, -np.inf)
    # One cluster for two labels: label 0, left over, takes the only cluster there is.
    np.testing.assert_allclose(behavioural_kl(labels, [0, 0, 0], -np.ones((3, 1)), true, lengths), [1, 1])
    # A found policy that rules out what was done; a policy that made nothing.
    ruled_out = np.array([[0, 0], [0, -np.inf], [0, -1.0]])
    kl = behavioural_kl(labels, [0, 1, 1], ruled_out, np.pad(true, ((0, 0), (0, 1)), constant_values=-np.inf), lengths)
    np.testing.assert_array_equal(kl, [0, np.inf, np.nan])
    with pytest.raises(ValueError, match="trajectory 0 is impossible"):
        behavioural_kl([1, 1, 1], [0, 1, 1], ruled_out, true, lengths)
    with pytest.raises(ValueError, match="as many as labels"):
        behavioural_kl(labels, [0, 1, 1], ruled_out[:2], true, lengths)
    with pytest.raises(ValueError, match="a column for every"):
        behavioural_kl(labels, [0, 1, 1], ruled_out[:, :1], true, lengths)
