"""The maze's walls, rewards and behaviours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_envs import PointMaze
from trajclust_envs.pointmaze import CORNERS, GOAL, SIZE, START, WALLS, EnvState, crossed, moved
from trajclust_jax.data import make

ENV = PointMaze()
PARAMS = ENV.default_params
KEY = jax.random.key(0)


def at(*position, progress=(0, 0), turn=(5, 6)):
    numbers = (jnp.array(each, jnp.int32) for each in (progress, turn))
    return EnvState(jnp.int32(0), jnp.array(position, jnp.float32), *numbers)


@pytest.mark.parametrize(
    ("position", "move", "after"),
    [
        ((1, 1), (0.1, 0.2), (1.1, 1.2)),
        ((5, 2.9), (0.1, 0.2), (5.1, 2.9)),  # along the wall
        ((5, 2.9), (0.0, 0.2), (5, 2.9)),
        ((5, 3.1), (-0.2, -0.2), (4.8, 3.1)),  # from above
        ((6.9, 2.9), (0.2, 0.2), (7.1, 3.1)),  # its end, (7, 3), lies on the other side of the move but for a point
        ((7.1, 2.9), (0.0, 0.2), (7.1, 3.1)),  # past its end
        ((7.05, 3.0), (-0.2, 0.0), (6.85, 3.0)),  # along it, on it
        ((9.95, 6.95), (0.2, 0.2), (10, 6.95)),
        ((0.1, 0.1), (-0.2, -0.2), (0, 0)),
    ],
)
def test_moves_by_hand(position, move, after):
    got = moved(jnp.array(position, jnp.float32), jnp.array(move, jnp.float32))
    if position == (6.9, 2.9):
        assert np.allclose(got, after, atol=1e-5) or np.allclose(got, (7.1, 2.9), atol=1e-5)
    else:
        np.testing.assert_allclose(got, after, atol=1e-5)


def test_crossing_against_a_fine_walk():
    """Random short moves near the walls: they cross one exactly if points on the way lie on both of its sides."""
    rng = np.random.default_rng(0)
    begins = rng.uniform(0, SIZE, (500, 2))
    begins[:, 1] = rng.choice([3, 7], 500) + rng.uniform(-0.2, 0.2, 500)
    ends = begins + rng.uniform(-0.2, 0.2, (500, 2))
    found = jax.vmap(lambda a, b: crossed(a, b, jnp.asarray(WALLS)))(begins.astype(np.float32), ends.astype(np.float32))
    for number, ((left, y), (right, _)) in enumerate(WALLS):
        opposite = (begins[:, 1] - y) * (ends[:, 1] - y) < 0
        share = (y - begins[:, 1]) / np.where(opposite, ends[:, 1] - begins[:, 1], 1)
        x = begins[:, 0] + share * (ends[:, 0] - begins[:, 0])
        np.testing.assert_array_equal(found[:, number], opposite & (x >= left) & (x <= right))


def test_the_goal_alone_has_a_reward():
    for position, action, reward in (((7.1, 8.5), (0.15, 0.0), 1.0), ((6.9, 8.5), (0.2, 0.0), 0.0)):
        _, _, got, ends, _ = ENV.step_env(KEY, at(*position), jnp.array(action), PARAMS)
        assert (float(got), bool(ends)) == (reward, bool(reward))


def test_behaviours_turn_round():
    """To the corner where they turn, back to the start, and on again; or to the goal."""
    for turn, progress, expected in (
        ((2, 2), 0, CORNERS[0][0]),
        ((2, 2), 1, CORNERS[0][1]),
        ((2, 2), 2, CORNERS[0][0]),
        ((2, 2), 3, START),
        ((2, 2), 4, CORNERS[0][0]),
        ((1, 1), 1, START),
        ((5, 6), 4, GOAL),
    ):
        state = at(5.0, 5.0, progress=(progress, 0), turn=turn)
        np.testing.assert_allclose(ENV._target(state)[0], expected)
    states = jax.vmap(lambda key: ENV.reset_env(key, PARAMS)[1])(jax.random.split(KEY, 4000))
    turn = np.asarray(states.turn)
    for b, corners in enumerate(CORNERS):
        np.testing.assert_allclose((turn[:, b] == 1 + len(corners)).mean(), 0.6 ** len(corners), atol=0.02)
        np.testing.assert_allclose((turn[:, b] == 2).mean(), 0.24, atol=0.03)


def test_data_in_which_few_arrive():
    dataset = make("pointmaze", size=100, seed=0)
    trajectories = dataset.trajectories
    arrived = np.asarray(trajectories.terminated)
    assert 5 <= arrived.sum() <= 40
    rewards = np.asarray(trajectories.rewards)
    np.testing.assert_array_equal(rewards.sum(1), arrived)
    np.testing.assert_array_equal(rewards[np.arange(200), np.asarray(trajectories.lengths) - 1], arrived)
    final = np.asarray(trajectories.final_observations)
    np.testing.assert_array_equal(np.linalg.norm(final - GOAL, axis=1) < 1.8, arrived)
    assert (np.asarray(dataset.true_log_likelihoods).argmax(1) == dataset.labels).all()
    # Nobody has gone through a wall.
    positions, mask = np.asarray(trajectories.observations), np.asarray(trajectories.mask)
    steps = mask[:, 1:]
    over = jax.vmap(jax.vmap(lambda a, b: crossed(a, b, jnp.asarray(WALLS)).any()))
    assert not np.asarray(over(positions[:, :-1], positions[:, 1:]))[steps].any()
