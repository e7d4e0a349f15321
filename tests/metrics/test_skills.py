"""Distances of skills by hand, and against samples."""

import numpy as np

from trajclust_jax.metrics import policy_divergences, state_distances


def test_state_distances_by_hand():
    one, other = np.zeros((4, 2)), np.tile([3.0, 1.0], (2, 1))
    np.testing.assert_allclose(state_distances([one, other, one]), [[0, 2, 0], [2, 0, 2], [0, 2, 0]])


def test_divergences_against_samples():
    rng = np.random.default_rng(0)
    means, stds = rng.normal(size=(2, 2, 3, 2)), np.array([[0.5, 1.0], [0.8, 0.6]])
    found = policy_divergences(means, stds)
    np.testing.assert_allclose(np.diag(found), 0, atol=1e-12)
    log_prob = lambda x, mean, std: (-0.5 * ((x - mean) / std) ** 2 - np.log(std)).sum(-1)
    for i, j in ((0, 1), (1, 0)):
        drawn = means[i, i] + stds[i] * rng.normal(size=(200_000, 3, 2))
        sampled = (log_prob(drawn, means[i, i], stds[i]) - log_prob(drawn, means[i, j], stds[j])).mean()
        np.testing.assert_allclose(found[i, j], sampled, rtol=0.02)
