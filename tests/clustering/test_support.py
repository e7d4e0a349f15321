"""Held-out actions tell whether a clustering is one of policies: right ones, clusters by luck, clusters by region."""

import numpy as np
import pytest

from trajclust_jax.clustering.policies import TransitionPolicy
from trajclust_jax.clustering.support import Comparison, Support, support
from trajclust_jax.data import Trajectories


def _linear(policies, n=40, t=20, seed=0, noise=0.3):
    """Trajectories of linear policies with noise, in turn; observations begin left or right, whoever acts."""
    rng = np.random.default_rng(seed)
    region = rng.permutation(np.arange(n) % 2)
    observations = rng.normal(size=(n, t, 3)).astype(np.float32)
    observations[..., 2] = 4.0 * region[:, None] + 0.1 * observations[..., 2]
    weights = rng.normal(size=(policies, 3, 2)) * [[1], [1], [0]]
    labels = np.arange(n) % policies
    actions = np.einsum("ntd,nda->nta", observations, weights[labels]) + noise * rng.normal(size=(n, t, 2))
    trajectories = Trajectories(
        observations=observations,
        actions=actions.astype(np.float32),
        rewards=np.zeros((n, t), np.float32),
        lengths=np.full(n, t, np.int32),
        terminated=np.zeros(n, bool),
        final_observations=observations[:, -1],
    )
    return trajectories, labels, region


@pytest.mark.parametrize("clusters", ["policies", pytest.param("luck", marks=pytest.mark.slow), "region"])
def test_what_speaks_for_policies_alone_is_supported(clusters):
    trajectories, labels, region = _linear(2)
    luck = np.random.default_rng(1).permutation(labels)
    found = support(trajectories, {"policies": labels, "luck": luck, "region": region}[clusters])
    assert found.supported == (clusters == "policies")
    assert (found.warning is None) == found.supported
    assert (found.agreement > 0.9) == found.supported


def test_policies_that_soon_overfit_are_looked_at_before():
    """After 60 gradient steps, with so much noise, none predicts better than the one policy."""
    trajectories, labels, _ = _linear(2, noise=1.0)
    assert support(trajectories, labels).supported


def test_clusters_of_a_single_policy_are_not_supported():
    """The clusters that its own noise suggests: trajectories whose noise goes one way on average."""
    trajectories, *_ = _linear(1)
    leaning = np.asarray(trajectories.actions)[..., 0].mean(1)
    assert not support(trajectories, leaning > np.median(leaning)).supported


def test_nothing_is_said_of_one_cluster_or_three_trajectories():
    trajectories, labels, _ = _linear(2)
    assert support(trajectories, np.zeros_like(labels)) is None
    few, few_labels, _ = _linear(2, n=3)
    assert support(few, few_labels) is None


def test_halves_are_quarters_in_turn_and_folds_have_half_of_each_cluster():
    trajectories, labels, _ = _linear(2)
    trajectories = trajectories.replace(lengths=np.where(np.arange(40) < 39, 20, 1).astype(np.int32))
    prepared = Comparison(labels.astype(np.int32), 2, TransitionPolicy()).prepare(trajectories)
    data = prepared.data
    chunks, slots = prepared.held_out.chunks, prepared.held_out.slots  # [F, 2, C, n, ...], [F, M]

    def by_trajectory(values):  # [F, C, n, ...] -> [N, ...]
        flat = np.asarray(values).reshape(slots.size, *values.shape[3:])
        return flat[np.argsort(slots.reshape(-1))[data.rank]]

    actions = np.asarray(trajectories.actions)
    first, second = (by_trajectory(data.scaling.undo(chunks.actions[:, half])) for half in range(2))
    np.testing.assert_allclose(first[0, :10], actions[0, [*range(5), *range(10, 15)]], atol=1e-5)
    np.testing.assert_allclose(second[0, :10], actions[0, [*range(5, 10), *range(15, 20)]], atol=1e-5)
    lengths = [by_trajectory(chunks.lengths[:, half]) for half in range(2)]
    np.testing.assert_array_equal(lengths[0] + lengths[1], trajectories.lengths)
    np.testing.assert_array_equal(chunks.max_length, chunks.lengths.max(-1))
    fold = np.asarray(prepared.fold)[data.rank]
    assert np.bincount(2 * labels + fold).tolist() == [10, 10, 10, 10]


def test_the_warning_says_beside_what():
    assert "one policy" in Support(-1.0, 0.1, 1.0, 0.1, 1.0).warning
    assert "random clusters" in Support(1.0, 0.1, 0.1, 0.1, 1.0).warning
    assert "NMI of 0.645" in Support(1.0, 0.1, 1.0, 0.1, 0.645).warning
    assert Support(1.0, 0.1, 1.0, 0.1, 0.94).warning is None
    for random in (0.0, -0.3):
        assert "no better at any time than the one policy" in Support(0.0, 0.0, random, abs(random), 0.5).warning


def test_right_clusters_of_trajectories_that_are_hard_to_tell_apart_are_supported_and_warned_of():
    """Noise so large that policies which did not see a trajectory often put it elsewhere."""
    trajectories, labels, _ = _linear(2, n=200, noise=4.0)
    found = support(trajectories, labels)
    assert found.supported
    assert 0.2 < found.agreement < 0.9
    assert "wrong cluster" in found.warning
