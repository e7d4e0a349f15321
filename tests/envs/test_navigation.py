"""Navigation's dynamics, rewards, behaviours and routes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from trajclust_envs import Navigation, Ways, drawn_subgoals, expert_rollout, expert_rollouts
from trajclust_envs.navigation import GOAL, SUBGOALS, EnvState, in_penalty_area, routes
from trajclust_jax.data import make

ENV = Navigation()
PARAMS = ENV.default_params
KEY = jax.random.key(0)


def at(*position, progress=(0, 0)):
    return EnvState(jnp.int32(0), jnp.array(position, jnp.float32), jnp.array(progress, jnp.int32))


@pytest.mark.parametrize(
    ("position", "action", "after", "reward", "ends"),
    [
        ((1.0, 2.0), (0.1, -0.15), (1.1, 1.85), -1, False),
        ((1.0, 2.0), (3.0, -0.5), (1.2, 1.8), -1, False),  # clipped to the bounds
        ((0.1, 29.9), (-0.2, 0.2), (0.0, 30.0), -1, False),  # and to the square
        ((14.9, 5.0), (0.2, 0.0), (15.1, 5.0), -2, False),  # the penalty is for where a step ends
        ((15.1, 5.0), (-0.2, 0.0), (14.9, 5.0), -1, False),
        ((20.0, 9.9), (0.0, 0.2), (20.0, 10.1), -1, False),
        ((29.8, 29.9), (0.0, 0.0), (29.8, 29.9), -1, False),
        ((29.8, 29.9), (0.15, 0.1), (29.95, 30.0), 0, True),
    ],
)
def test_a_step_by_hand(position, action, after, reward, ends):
    obs, state, got, terminated, _ = ENV.step_env(KEY, at(*position), jnp.array(action), PARAMS)
    np.testing.assert_allclose(obs, after, atol=1e-5)
    np.testing.assert_array_equal(obs, state.position)
    assert (float(got), bool(terminated)) == (reward, ends)


def test_the_limit_is_a_thousand_steps():
    state = at(1.0, 1.0).replace(time=jnp.int32(999))
    _, _, _, terminated, truncated, _ = ENV.step(KEY, state.replace(time=jnp.int32(998)), jnp.zeros(2), PARAMS)
    assert (bool(terminated), bool(truncated)) == (False, False)
    _, _, _, terminated, truncated, _ = ENV.step(KEY, state, jnp.zeros(2), PARAMS)
    assert (bool(terminated), bool(truncated)) == (False, True)


def test_behaviours_go_on_from_a_subgoal_once_they_are_there():
    _, near, *_ = ENV.step_env(KEY, at(9.8, 0.0, progress=(2, 0)), jnp.array([0.15, 0.0]), PARAMS)
    np.testing.assert_array_equal(near.progress, [3, 1])  # (10, 0) is the third subgoal of one, the first of the other
    actions = jax.vmap(lambda i: ENV.expert_action(i, KEY, None, near, PARAMS))(jnp.arange(2))
    noise = 0.1 * jax.random.normal(KEY, (2,))
    means = np.array([[0.2, 0.0], [0.05, 0.2]])  # to (20, 0); to (10, 15), of which only a little is left to go right
    np.testing.assert_allclose(actions, np.clip(means + noise, -0.2, 0.2), atol=1e-5)


def test_likelihoods_of_clipped_gaussians():
    """Mass at the bounds, density between them; a behaviour's own actions are the likeliest under it on average."""
    state, actions = at(5.0, 0.0), np.array([[0.2, 0.05], [-0.2, -0.2], [0.1, 0.2], [0.0, 0.0]], np.float32)
    got = jax.vmap(lambda a: ENV.expert_log_probs(None, state, a, PARAMS))(actions)
    for b, mean in enumerate(([-0.2, 0.2], [0.2, 0.0])):
        expected = norm.logpdf(actions, mean, 0.1)
        expected[actions == np.float32(0.2)] = norm.logsf(0.2, np.broadcast_to(mean, (4, 2)), 0.1)[
            actions == np.float32(0.2)
        ]
        low = actions == np.float32(-0.2)
        expected[low] = norm.logcdf(-0.2, np.broadcast_to(mean, (4, 2)), 0.1)[low]
        np.testing.assert_allclose(got[:, b], expected.sum(1), rtol=1e-4)
    # The likelihood is one: it integrates to 1 over the square of actions, its sides and corners.
    inner = np.linspace(-0.1995, 0.1995, 400, dtype=np.float32)  # the middles of cells
    values = np.concatenate([[-0.2], inner, [0.2]]).astype(np.float32)
    weight = np.concatenate([[1], np.full(400, 0.001 * 399 / 400), [1]])
    grid = np.stack(np.meshgrid(values, values, indexing="ij"), -1).reshape(-1, 2)
    total = (
        np.exp(jax.vmap(lambda a: ENV.expert_log_probs(None, state, a, PARAMS))(grid)).T
        @ np.outer(weight, weight).ravel()
    )
    np.testing.assert_allclose(total, 1, rtol=5e-3)


@pytest.fixture(scope="module")
def dataset():
    """About ten trajectories of each behaviour."""
    return make("navigation", size=8000, seed=1)


def test_data_are_algorithm_3s(dataset):
    """Whole trajectories until there are enough steps, over all subgoals to the goal, as long as the paper's."""
    trajectories, labels = dataset.trajectories, dataset.labels
    lengths = np.asarray(trajectories.lengths)
    for label, (low, high, least, most) in enumerate([(700, 800, -870, -810), (520, 610, -790, -700)]):
        own = lengths[labels == label]
        assert own.sum() >= 8000 > own[:-1].sum()
        assert ((own > low) & (own < high)).all()
        returns = np.asarray(trajectories.rewards).sum(1)[labels == label]
        assert ((returns > least) & (returns < most)).all()
    assert trajectories.max_length == lengths.max()
    assert np.asarray(trajectories.terminated).all()
    assert (np.linalg.norm(np.asarray(trajectories.final_observations) - GOAL, axis=1) < 0.1).all()
    assert np.abs(np.asarray(trajectories.actions)).max() == np.float32(0.2)
    for n, points in ((0, ENV.subgoals[0]), (-1, ENV.subgoals[1])):
        path, begin = np.asarray(trajectories.observations)[n, : lengths[n]], 0
        for point in points:
            begin += np.flatnonzero(np.linalg.norm(path[begin:] - point, axis=1) < 0.1)[0]


def test_likelihoods_tell_the_behaviours_apart(dataset):
    likelihoods = np.asarray(dataset.true_log_likelihoods)
    assert (likelihoods.argmax(1) == dataset.labels).all()
    assert np.isfinite(likelihoods[np.arange(len(likelihoods)), dataset.labels]).all()


def test_routes(dataset):
    lengths, paths = np.asarray(dataset.trajectories.lengths), np.asarray(dataset.trajectories.observations)
    assert (routes(paths, lengths) == "lost").all()  # without the last position nobody has arrived
    whole = np.concatenate([paths, paths[:, -1:]], axis=1)
    whole[np.arange(len(whole)), lengths] = dataset.trajectories.final_observations
    assert (routes(whole, lengths + 1) == "penalty").all()  # both behaviours
    short = [(0, 0), (10, 0), (10, 15), (20, 15), (20, 30), (30, 30)]
    edges = [(0, 0), (0, 30), (30, 30)]
    penalty = [(0, 0), (10, 0), (20, 0), (20, 30), (30, 30)]
    walked = [
        np.concatenate([np.linspace(a, b, 60) for a, b in itertools.pairwise(way)]) for way in (short, edges, penalty)
    ]
    lengths = np.array(list(map(len, walked)))
    padded = np.zeros((3, lengths.max(), 2))
    for row, way in zip(padded, walked, strict=True):
        row[: len(way)] = way
    assert routes(padded, lengths).tolist() == ["short", "detour", "penalty"]
    assert np.asarray(in_penalty_area(jnp.array([[15.0, 10.0], [14.9, 5.0], [20.0, 10.1]]))).tolist() == [
        True,
        False,
        False,
    ]


def test_other_lists_of_subgoals():
    env = Navigation((((5.0, 0.0),), ((0.0, 5.0), (5.0, 5.0)), ()))
    assert env.expert_names == ("behaviour 0", "behaviour 1", "behaviour 2")
    data = expert_rollout(env, 2, KEY, 3)
    assert data.log_likelihoods.shape == (3, 3)
    assert (data.log_likelihoods.argmax(1) == 2).all()
    assert (data.lengths >= env.fewest_steps).all()
    assert data.lengths.max() < 1.5 * env.fewest_steps
    with pytest.raises(ValueError, match="has 3 experts: give as many keys, not 2"):
        expert_rollouts(env, jax.random.split(KEY), 3)


def test_the_best_way_joins_both_behaviours():
    """By hand: 50 + 75 + 50 + 75 + 50 steps, of which the last costs nothing; alone, 450 steps and 150 of penalty."""
    ways = Ways()
    assert (ways.best, ways.best_lone) == (-299, -600)
    on_the_first_line, on_the_second, elsewhere = ways.following(np.array([[10.0, 5.0], [20.0, 5.0], [5.0, 15.0]]))
    # Down x = 10 is a step away from the best way, which goes up there, and down x = 20 as well.
    np.testing.assert_allclose(on_the_first_line - on_the_first_line.min(), [2, 0])
    assert on_the_second.argmin() == 0
    np.testing.assert_array_equal(elsewhere, np.inf)


def test_the_best_way_is_walked_in_as_many_steps():
    """At full speed from corner to corner, the environment itself gives the return."""
    state, total = at(0.0, 0.0), 0.0
    for corner in ((10, 0), (10, 15), (20, 15), (20, 30), (30, 30)):
        while np.abs(np.array(corner) - state.position).max() > 1e-3:
            action = jnp.clip(jnp.array(corner, jnp.float32) - state.position, -0.2, 0.2)
            _, state, reward, ends, _ = ENV.step_env(KEY, state, action, PARAMS)
            total += float(reward)
            if ends:
                break
    assert total == Ways().best


@pytest.mark.parametrize("count", [2, 5])
def test_drawn_behaviours_join_to_a_better_way(count):
    lists = drawn_subgoals(count, seed=1)
    assert len(set(lists)) == count
    assert lists == drawn_subgoals(count, seed=1) != drawn_subgoals(count, seed=2)
    ways = Ways(lists)
    assert 0.9 * ways.best_lone < ways.best < -140  # a straight line costs 149
    for points in lists:
        corners = np.array([(0, 0), *points])
        assert (np.count_nonzero(np.diff(corners, axis=0), axis=1) == 1).all(), "along one axis"
        assert Ways((points,)).best == Ways((points,)).best_lone


def test_drawn_data_are_of_the_drawn_behaviours():
    dataset = make("navigation-drawn-3", 500, 4)
    assert dataset.provenance.parameters["subgoals"] == drawn_subgoals(3, 4)
    assert np.unique(dataset.labels).tolist() == [0, 1, 2]
    assert (np.asarray(dataset.true_log_likelihoods).argmax(1) == dataset.labels).all()
    assert drawn_subgoals(3, 4) != SUBGOALS
