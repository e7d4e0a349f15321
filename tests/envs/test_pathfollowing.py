"""Pathfollowing's dynamics, rewards and experts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_envs import Pathfollowing, expert_rollout
from trajclust_envs.pathfollowing import PATHS, EnvState, distance_to_path
from trajclust_envs.ppo import load_weights

ENV = Pathfollowing()
PARAMS = ENV.default_params
KEY = jax.random.key(0)


def at(*position):
    return EnvState(jnp.int32(0), jnp.array(position, jnp.float32))


def test_a_step_adds_the_clipped_action_and_noise():
    step = jax.jit(jax.vmap(ENV.step_env, (0, None, None, None)))
    keys = jax.random.split(KEY, 10_000)
    _, after, reward, ends, _ = step(keys, at(0.2, -0.3), jnp.array([0.5, -7.0]), PARAMS)
    moved = np.asarray(after.position) - [0.2 + 0.05, -0.3 - 0.1]
    assert (np.abs(moved.mean(0)) < 4 * 0.05 / 100).all()
    np.testing.assert_allclose(moved.std(0), 0.05, rtol=0.03)
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.04
    assert not reward.any()
    assert not ends.any()
    _, exact, *_ = ENV.step_env(KEY, at(0.2, -0.3), jnp.array([0.5, -7.0]), PARAMS.replace(noise=0.0))
    np.testing.assert_allclose(exact.position, [0.25, -0.4], rtol=1e-6)


def test_only_the_limit_ends_an_episode():
    state = at(1.0, 1.0).replace(time=jnp.int32(48))
    _, state, _, terminated, truncated, _ = ENV.step(KEY, state, jnp.zeros(2), PARAMS)
    assert (bool(terminated), bool(truncated)) == (False, False)
    _, fresh, _, terminated, truncated, info = ENV.step(KEY, state, jnp.zeros(2), PARAMS)
    assert (bool(terminated), bool(truncated), int(fresh.time)) == (False, True, 0)
    assert np.linalg.norm(info["final_observation"] - 1) < 0.6


def test_starts_are_uniform_in_the_square():
    obs, _ = jax.vmap(ENV.reset_env, (0, None))(jax.random.split(KEY, 4000), PARAMS)
    counts = np.histogram2d(*np.asarray(obs).T, 4, [(-1.5, -0.5)] * 2)[0]
    assert counts.sum() == 4000
    assert ((counts - 250) ** 2 / 250).sum() < 15 + 4 * np.sqrt(30)


@pytest.mark.parametrize(
    ("point", "up", "right"),
    [
        ((-1.0, 0.0), 0.0, 1.0),  # on the way up; the other path's nearest point is (-1, -1)
        ((0.0, 1.0), 0.0, 1.0),
        ((0.0, 0.0), 1.0, 1.0),
        ((2.0, 1.0), 1.0, 1.0),  # beyond the end
        ((-4.0, -5.0), 5.0, 5.0),  # before the beginning
        ((1.0, -0.5), 1.5, 0.0),
        ((-1.3, 1.4), 0.5, 2.3345),
    ],
)
def test_distances_and_rewards_by_hand(point, up, right):
    np.testing.assert_allclose([distance_to_path(jnp.array(point), path) for path in PATHS], [up, right], atol=1e-3)
    to_goal = np.hypot(point[0] - 1, point[1] - 1)
    rewards = [ENV.expert_reward(jnp.int32(i), at(9, 9), at(*point), PARAMS) for i in range(3)]
    np.testing.assert_allclose(rewards, [-to_goal, -to_goal - 5 * up, -to_goal - 5 * right], atol=5e-3)


@pytest.fixture(scope="module")
def episodes():
    """200 episodes of each expert."""
    return [expert_rollout(ENV, index, key, 200) for index, key in enumerate(jax.random.split(KEY, 3))]


def test_experts_take_their_routes_to_the_goal(episodes):
    off = np.zeros((3, 3))
    straight = np.array([[-1, -1], [1, 1]], np.float32)
    for expert, data in enumerate(episodes):
        assert data.observations.shape == (200, 50, 2)
        assert (data.lengths == 50).all()
        assert np.linalg.norm(data.final_observations - 1, axis=-1).mean() < 0.2
        for number, path in enumerate((straight, *PATHS)):
            way = jax.vmap(jax.vmap(lambda x, path=path: distance_to_path(x, path)))(data.observations[:, 10:])
            off[expert, number] = way.mean()
    assert (off.argmin(1) == [0, 1, 2]).all()
    assert (off.diagonal() < 0.15).all()
    up, right = (episodes[expert].observations[:, 20] for expert in (1, 2))
    assert (up[:, 1] > up[:, 0]).mean() > 0.99  # first up: above the diagonal
    assert (right[:, 0] > right[:, 1]).mean() > 0.99


def test_likelihoods_are_those_of_the_recorded_actions(episodes):
    """Against the shipped weights in NumPy."""
    data, weights = episodes[1], load_weights("pathfollowing")["params"]
    x = np.broadcast_to(data.observations.astype(np.float64), (3, *data.observations.shape))
    for layer in range(3):
        dense = weights[f"Dense_{layer}"]
        x = np.tanh(np.einsum("kntf,kfh->knth", x, dense["kernel"]) + dense["bias"][:, None, None])
    log_std = weights["log_std"][:, None, None]
    z = (data.actions - x) / np.exp(log_std)
    expected = (-0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)).sum((-2, -1)).T
    np.testing.assert_allclose(data.log_likelihoods, expected, rtol=1e-3, atol=0.05)
    assert (data.log_likelihoods.argmax(1) == 1).all()
    assert np.abs(data.actions).max() > 1  # the sampled action, before it is clipped
