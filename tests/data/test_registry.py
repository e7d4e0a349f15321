"""Every registered dataset keeps its promises."""

import numpy as np
import pytest

from trajclust_jax.data import REGISTRY, Codebook, make
from trajclust_jax.data.types import DataError

SIZE = 3


@pytest.fixture(scope="module")
def built():
    """Datasets by name, each built once."""
    made = {}
    return lambda name: made.setdefault(name, make(name, SIZE, seed=1))


@pytest.mark.parametrize("name", REGISTRY)
def test_entries_build(built, name):
    dataset, entry = built(name), REGISTRY[name]
    trajectories = dataset.trajectories
    assert trajectories.num_trajectories == SIZE * entry.num_policies
    np.testing.assert_array_equal(dataset.labels, np.repeat(np.arange(entry.num_policies), SIZE))
    assert len(set(dataset.spec.policy_names)) == entry.num_policies == dataset.num_policies
    assert dataset.provenance.parameters["environment"] == entry.environment
    likelihoods = dataset.true_log_likelihoods
    assert likelihoods.shape == (len(dataset.labels), entry.num_policies)
    assert likelihoods.dtype == np.float32
    own = likelihoods[np.arange(len(likelihoods)), dataset.labels]
    assert np.isfinite(own).all()
    assert not np.isnan(likelihoods).any()
    assert not np.asarray(trajectories.rewards).any()


def test_fresh_maps_are_dense_and_a_fixed_one_is_a_codebook(built):
    fresh, fixed = built("extra").trajectories, built("extrafixed").trajectories
    assert fresh.observations.dtype == np.uint8
    assert fresh.observations.shape == (9, 40, 9, 9, 5)
    assert isinstance(fixed.observations, Codebook)
    walls = fresh.observations[:, 0, :, :, 0]
    assert len(np.unique(walls.reshape(9, -1), axis=0)) == 9
    for n, length in enumerate(fresh.lengths):  # an episode keeps its map
        assert (fresh.observations[n, :length, :, :, 0] == walls[n]).all()


def test_ways_are_another_view_of_the_same_episodes(built):
    """Among them is the shortest way to the goal."""
    seen, ways = built("extra-vi").trajectories, built("extra-vi-ways").trajectories
    np.testing.assert_array_equal(seen.actions, ways.actions)
    np.testing.assert_array_equal(seen.lengths, ways.lengths)
    assert ways.observations.shape == (9, 40, 34)
    for n in (0, 4, 8):
        maps = np.asarray(seen.observations[n, : seen.lengths[n]])
        distances = _ways_to_goal(~maps[0, ..., 0].astype(bool), np.argwhere(maps[0, ..., 2])[0])
        for t, step in enumerate(maps):
            here = distances[tuple(np.argwhere(step[..., 1])[0])]
            assert ways.observations[n, t, 24] == pytest.approx(here / 10)


def _ways_to_goal(free, goal):
    """Breadth-first search."""
    distances, frontier = np.full(free.shape, 30), [tuple(goal)]
    distances[tuple(goal)] = 0
    while frontier:
        row, column = frontier.pop(0)
        for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if free[cell] and distances[cell] == 30:
                distances[cell] = distances[row, column] + 1
                frontier.append(cell)
    return distances


def test_pathfollowing_is_continuous(built):
    trajectories = built("pathfollowing").trajectories
    assert not trajectories.discrete
    assert trajectories.actions.shape == (9, 50, 2)
    assert trajectories.observations.shape == (9, 50, 2)
    assert not trajectories.terminated.any()


def test_equal_arguments_give_equal_content(built):
    first = built("extra")
    assert make("extra", SIZE, seed=1).provenance.fingerprint == first.provenance.fingerprint
    assert built("extra-vi").provenance.fingerprint != first.provenance.fingerprint
    assert make("extra", SIZE, seed=2).provenance.fingerprint != first.provenance.fingerprint


def test_unknown_names_and_sizes_are_refused():
    with pytest.raises(DataError, match="choose one of diagonal"):
        make("Extra")
    with pytest.raises(DataError, match="size is 0"):
        make("extra", 0)
