"""Every registered dataset keeps its promises."""

from functools import partial

import h5py
import numpy as np
import pytest

import trajclust_envs.mujoco
from trajclust_envs.mujoco import TASKS, GaussianPolicy, shipped_tasks
from trajclust_jax.data import REGISTRY, Codebook, load, make, mujoco, registry, transitions
from trajclust_jax.data.d4rl import ENVIRONMENTS
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
    size = SIZE if entry.unit == "trajectories" else 1  # of so few steps as SIZE one trajectory is enough
    assert trajectories.num_trajectories == size * entry.num_policies
    assert entry.continuous == (not trajectories.discrete)
    np.testing.assert_array_equal(dataset.labels, np.repeat(np.arange(entry.num_policies), size))
    assert len(set(dataset.spec.policy_names)) == entry.num_policies == dataset.num_policies
    assert dataset.provenance.parameters["environment"] == entry.environment
    likelihoods = dataset.true_log_likelihoods
    assert likelihoods.shape == (len(dataset.labels), entry.num_policies)
    assert likelihoods.dtype == np.float32
    own = likelihoods[np.arange(len(likelihoods)), dataset.labels]
    assert np.isfinite(own).all()
    assert not np.isnan(likelihoods).any()
    assert np.asarray(trajectories.rewards).any() == (entry.long or name.startswith("gates"))  # the others give none


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
    for options, words in (
        ({"size": 10**15}, "size is 1000000000000000: at most"),
        ({"seed": 2**70}, "seed is 1180591620717411303424"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(DataError, match=words):
            make("takeball", **options)
    with pytest.raises(DataError, match="size is 0"):
        make("extra", 0)


# --- MuJoCo: by policies, whether trained ones are shipped or not --------------------------------------


@pytest.fixture
def shipped(monkeypatch):
    """Small random policies of Hopper in place of the trained ones."""

    def policy(seed):
        rng = np.random.default_rng(seed)
        weights = tuple(rng.normal(0, 0.5, size).astype(np.float32) for size in ((11, 8), (8, 6)))
        return GaussianPolicy(weights, (np.zeros(8, np.float32), np.zeros(6, np.float32)), np.ones(3, np.float32))

    names = ("medium", "expert", "late", "replay-1", "replay-2", "replay-3", "replay-4")
    policies = {name: policy(seed) for seed, name in enumerate(names)}
    monkeypatch.setattr(trajclust_envs.mujoco, "shipped_policies", lambda task: policies)
    return policies


def test_rollouts_are_labelled_and_scored(shipped):
    data = mujoco.rolled_out("hopper", "medium-expert", "x", 3, 0)
    trajectories = data.trajectories
    np.testing.assert_array_equal(data.labels, [0, 0, 0, 1, 1, 1])
    assert data.spec.policy_names == ("medium", "expert")
    for n, length in enumerate(trajectories.lengths):
        given = trajectories.observations[n, :length], trajectories.actions[n, :length]
        expected = [shipped[name].log_prob(*given).sum() for name in data.spec.policy_names]
        np.testing.assert_allclose(data.true_log_likelihoods[n], expected, rtol=1e-4)
    assert (data.true_log_likelihoods.argmax(1) == data.labels).all()
    again = mujoco.rolled_out("hopper", "medium-expert", "x", 3, 0)
    assert again.provenance.fingerprint == data.provenance.fingerprint
    assert (
        mujoco.rolled_out("hopper", "medium-expert", "x", 3, 1).provenance.fingerprint != again.provenance.fingerprint
    )


def test_noise_in_place_of_sampling(shipped):
    exact = mujoco.rolled_out("hopper", "late-expert", "x", 2, 0, noise=0.0).trajectories
    modes = shipped["late"].mode(exact.observations[0, : exact.lengths[0]])
    np.testing.assert_allclose(exact.actions[0, : exact.lengths[0]], modes, atol=1e-5)
    noisy = mujoco.rolled_out("hopper", "late-expert", "x", 4, 0, noise=0.1)
    assert (noisy.true_log_likelihoods.argmax(1) == noisy.labels).all()
    first = noisy.trajectories.lengths[0]
    modes = shipped["late"].mode(noisy.trajectories.observations[0, :first])
    assert 0 < np.abs(noisy.trajectories.actions[0, :first] - modes).mean() < 0.2
    with pytest.raises(DataError, match="noise is -1"):
        mujoco.rolled_out("hopper", "late-expert", "x", 2, 0, noise=-1.0)


def test_replay_is_of_several_policies(shipped):
    data = mujoco.rolled_out("hopper", "medium-replay", "x", 6, 0)
    np.testing.assert_array_equal(np.bincount(data.labels), [6, 6])
    n = 6  # the first one of replay-1
    length = data.trajectories.lengths[n]
    given = data.trajectories.observations[n, :length], data.trajectories.actions[n, :length]
    each = [shipped[f"replay-{i}"].log_prob(*given).sum() for i in range(1, 5)]
    np.testing.assert_allclose(data.true_log_likelihoods[n, 1], np.logaddexp.reduce(each) - np.log(4), rtol=1e-4)


def test_options_are_checked():
    with pytest.raises(DataError, match="takeball has no option noise"):
        make("takeball", 2, 0, noise=0.1)
    with pytest.raises(DataError, match="takeball has no option noise"):
        load("takeball:size=2,noise=0.1")


def test_d4rls_own_file_goes_first(shipped, tmp_path, monkeypatch):
    build = partial(registry._medium_expert, "hopper", "hopper-medium-expert")
    assert build(2, 0).provenance.parameters["task"] == "hopper"
    data = mujoco.rolled_out("hopper", "medium-expert", "x", 5, 0).trajectories
    flat = transitions(data)
    with h5py.File(tmp_path / "hopper_medium_expert-v2.hdf5", "w") as file:
        for name in ("observations", "actions", "rewards", "next_observations"):
            file[name] = getattr(flat, name)
        file["terminals"], file["timeouts"] = flat.terminated, flat.truncated
        file["labels"] = np.repeat([0, 1], 5)
    monkeypatch.setenv("TRAJCLUST_D4RL", str(tmp_path))
    some, all_of_it = build(2, 0), build(1000, 0)
    assert some.provenance.source == "hopper_medium_expert-v2.hdf5"
    np.testing.assert_array_equal(np.bincount(some.labels), [2, 2])
    np.testing.assert_array_equal(all_of_it.trajectories.lengths, data.lengths)
    for n in range(4):  # each is one of the file's
        length = some.trajectories.lengths[n]
        assert any(
            length == data.lengths[m]
            and np.array_equal(some.trajectories.actions[n, :length], data.actions[m, :length])
            and some.labels[n] == m // 5
            for m in range(10)
        )


def test_the_tasks_are_those_that_policies_come_with():
    assert {task: TASKS[task].env_id for task in shipped_tasks()} == ENVIRONMENTS


def test_heterogeneous_sets_have_as_many_steps_of_each_agent(shipped):
    """Whole episodes until there are enough; those of the first agents are the same however many there are."""
    for number, name in enumerate(list(shipped)[:3], start=1):
        shipped[f"agent-{number}"] = shipped[name]
    three, two = (mujoco.heterogeneous("hopper", k, "x", 60, 0) for k in (3, 2))
    assert three.spec.policy_names == ("agent 1", "agent 2", "agent 3")
    lengths = np.asarray(three.trajectories.lengths)
    for label in range(3):
        own = lengths[three.labels == label]
        assert own.sum() >= 60 > own[:-1].sum()
    count = len(two.labels)
    np.testing.assert_array_equal(lengths[:count], two.trajectories.lengths)
    assert (three.true_log_likelihoods.argmax(1) == three.labels).all()
    assert three.provenance.parameters["environment"] == "Hopper-v4"
