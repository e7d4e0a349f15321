"""D(W) against the sum over all pairs, and hand-worked cases."""

import dataclasses

import numpy as np
import pytest

from trajclust_jax.clustering.conflict import conflict_distance, conflict_rate, total_conflict
from trajclust_jax.data import Codebook, Trajectories, make


def trajectories_of(*steps):
    """From lists of (observation, action), padded with conflicts that must not count."""
    horizon = max(map(len, steps)) + 1
    ids, actions = np.zeros((len(steps), horizon), np.int32), np.zeros((len(steps), horizon), np.int32)
    for n, path in enumerate(steps):
        for t in range(horizon):
            ids[n, t], actions[n, t] = path[t] if t < len(path) else (path[0][0], (path[0][1] + 1) % 4)
    table = np.eye(ids.max() + 1, dtype=np.uint8)
    return Trajectories(
        observations=Codebook(table, ids),
        actions=actions,
        rewards=np.zeros(ids.shape, np.float32),
        lengths=np.array([len(path) for path in steps], np.int32),
        terminated=np.ones(len(steps), bool),
        final_observations=Codebook(table, np.zeros(len(steps), np.int32)),
        num_actions=4,
    )


def brute_force(trajectories, assignments):
    """Eq. 12 to the letter, each pair by conflict_distance's own definition, written out once more."""
    paths = [
        set(zip(ids[:length].tolist(), actions[:length].tolist(), strict=True))
        for ids, actions, length in zip(
            trajectories.observations.ids, trajectories.actions, trajectories.lengths, strict=True
        )
    ]
    total = 0
    for i, one in enumerate(paths):
        for j, other in enumerate(paths):
            d = any(s == t and a != b for s, a in one for t, b in other)
            assert d == conflict_distance(trajectories, i, j)
            total += d * (assignments[i] == assignments[j])
    return total


@pytest.mark.parametrize("budget", [1, 200, 64 * 2**20])
@pytest.mark.parametrize("rows", [2, 6, 40])
def test_total_equals_the_sum_over_all_pairs(random_data, rows, budget):
    for seed in range(3):
        trajectories = random_data(n=25, t=7, rows=rows, num_actions=3, seed=seed)
        assignments = np.random.default_rng(seed).integers(0, 3, 25)
        expected = brute_force(trajectories, assignments)
        assert total_conflict(trajectories, assignments, budget) == expected
        pairs = sum((assignments == k).sum() ** 2 for k in range(3))
        assert conflict_rate(trajectories, assignments) == pytest.approx(expected / pairs)


def test_worked_example():
    """x and y disagree, z meets neither (the paper's Eq. 11: no triangle inequality); u disagrees with itself."""
    x, y, z, u = [(1, 0)], [(1, 1)], [(2, 0)], [(3, 0), (3, 1), (2, 0)]
    trajectories = trajectories_of(x, y, z, u)
    expected = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    found = [[conflict_distance(trajectories, i, j) for j in range(4)] for i in range(4)]
    assert found == expected
    assert total_conflict(trajectories, [0, 0, 0, 0]) == 3  # (x, y), (y, x), (u, u)
    assert total_conflict(trajectories, [0, 1, 0, 0]) == 1  # u conflicts with itself wherever it is
    assert conflict_rate(trajectories, [0, 1, 0, 5]) == 1 / 6


def test_edges():
    one = trajectories_of([(0, 1)])
    assert total_conflict(one, [7]) == 0
    assert conflict_rate(one, [0]) == 0
    alone = trajectories_of([(0, 1), (0, 2)])
    assert total_conflict(alone, [0]) == 1
    assert conflict_rate(alone, [0]) == 1


def test_padding_and_dense_observations_change_nothing(random_data, dense):
    trajectories = random_data(n=20)
    assignments = np.arange(20) % 3
    expected = total_conflict(trajectories, assignments)
    pad = ~np.asarray(trajectories.mask)
    ids = np.where(pad, 5, trajectories.observations.ids)
    other = dataclasses.replace(trajectories, actions=np.where(pad, 3, trajectories.actions))
    other = other.replace(observations=trajectories.observations.replace(ids=ids))
    assert total_conflict(other, assignments) == expected
    assert total_conflict(dense(trajectories), assignments) == expected


def test_true_labels_of_deterministic_experts_have_no_conflict():
    dataset = make("diagonal", 30, 0)
    assert total_conflict(dataset.trajectories, dataset.labels) == 0
    shuffled = np.random.default_rng(0).permutation(dataset.labels)
    assert total_conflict(dataset.trajectories, shuffled) > 0


def test_bad_input_is_refused(random_data):
    trajectories = random_data(n=4)
    with pytest.raises(ValueError, match=r"\[4\] integers"):
        total_conflict(trajectories, [0, 1])
    with pytest.raises(ValueError, match="integers"):
        total_conflict(trajectories, [0.0, 1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="discrete"):
        total_conflict(dataclasses.replace(trajectories, num_actions=0), [0, 0, 0, 0])
