"""Collected episodes against stepping by hand."""

import chex
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from trajclust_envs import ENVIRONMENTS, Takeball, expert_policy, rollout
from trajclust_envs.rollout import _collect

ENVS = {name: environment() for name, environment in ENVIRONMENTS.items()}
NUM, LIMIT = 40, 17  # a limit at which some episodes end and some are cut


@pytest.fixture(scope="module", params=["Diagonal-v0", "TakeballPermuted-v0"])  # Takeball is the latter with one order
def env(request):
    return ENVS[request.param]


@pytest.fixture(scope="module")
def params(env):
    return env.default_params.replace(max_steps_in_episode=LIMIT)


@pytest.fixture(scope="module")
def data(env, params):
    return rollout(env, expert_policy(env, 1), jax.random.key(0), NUM, params)


def by_hand(env, policy, key, num, params, limit):
    """The same episodes from `reset_env` and `step_env`, one at a time, all observations kept."""
    reset, step = jax.jit(env.reset_env), jax.jit(env.step_env)
    for episode_key in jax.random.split(key, num):
        key_reset, key_steps = jax.random.split(episode_key)
        obs, state = reset(key_reset, params)
        observations, actions, rewards, terminated = [obs], [], [], False
        for step_key in jax.random.split(key_steps, limit):
            key_policy, key_env = jax.random.split(step_key)
            actions.append(policy(key_policy, obs, state, params))
            obs, state, reward, terminated, _ = step(key_env, state, actions[-1], params)
            observations.append(obs)
            rewards.append(reward)
            if terminated or env.is_truncated(state, params):
                break
        yield np.stack(observations), np.stack(actions), np.stack(rewards), bool(terminated)


def test_shapes_and_types(env, data):
    assert data.observations.shape == data.actions.shape == data.rewards.shape == (NUM, LIMIT)
    assert data.lengths.shape == data.terminated.shape == data.final_observations.shape == (NUM,)
    assert {field.dtype for field in (data.observations, data.actions, data.lengths, data.final_observations)} == {
        np.dtype(np.int32)
    }
    assert data.rewards.dtype == np.float32
    assert data.terminated.dtype == bool
    assert data.table.shape[1:] == env.observation_space(None).shape
    assert data.table.dtype == np.uint8
    assert all(type(field) is np.ndarray for field in data[:-1])
    assert data.scenes == ()


def test_equals_stepping_by_hand(env, params, data):
    policy = jax.jit(expert_policy(env, 1))
    assert 0 < data.terminated.sum() < NUM
    for n, (observations, actions, rewards, terminated) in enumerate(
        by_hand(env, policy, jax.random.key(0), NUM, params, LIMIT)
    ):
        length = len(actions)
        assert data.lengths[n] == length
        np.testing.assert_array_equal(data.table[data.observations[n, :length]], observations[:-1])
        np.testing.assert_array_equal(data.table[data.final_observations[n]], observations[-1])
        np.testing.assert_array_equal(data.actions[n, :length], actions)
        np.testing.assert_array_equal(data.rewards[n, :length], rewards)
        assert data.terminated[n] == terminated


def test_padding_is_zero_and_lengths_fit(data):
    padded = np.arange(LIMIT) >= data.lengths[:, None]
    assert padded.any()
    for field in (data.observations, data.actions, data.rewards):
        assert not field[padded].any()
    assert ((data.lengths >= 1) & (data.lengths <= LIMIT)).all()
    assert (data.lengths[~data.terminated] == LIMIT).all()


def test_the_table_holds_each_seen_observation_once(data):
    rows = data.table.reshape(len(data.table), -1)
    assert len(np.unique(rows, axis=0)) == len(rows)
    seen = np.concatenate([data.observations[np.arange(LIMIT) < data.lengths[:, None]], data.final_observations])
    np.testing.assert_array_equal(np.unique(seen), np.arange(len(rows)))


def test_same_key_same_result(env, params, data):
    chex.assert_trees_all_equal(rollout(env, expert_policy(env, 1), jax.random.key(0), NUM, params), data)
    other = rollout(env, expert_policy(env, 1), jax.random.key(1), NUM, params)
    assert not np.array_equal(other.lengths, data.lengths)


def test_experts_and_parameters_share_one_program(env, params, data):
    before = _collect._cache_size()
    for expert in range(len(env.experts)):
        for noise in (0.0, 0.3):
            rollout(env, expert_policy(env, expert), jax.random.key(2), NUM, params.replace(noise=noise))
    assert _collect._cache_size() == before


@pytest.mark.parametrize("name", ["Diagonal-v0", "Takeball-v0", "TakeballPermuted-v0"])
def test_state_codes_are_inverted(name):
    env = ENVS[name]
    num = 81 * (16 * len(env.permutations) if isinstance(env, Takeball) else 1)
    ids = jnp.arange(num)
    states = jax.vmap(env.state_from_id)(ids)
    np.testing.assert_array_equal(jax.vmap(env.state_id)(states), ids)
    assert len(np.unique(np.concatenate([np.reshape(x, (num, -1)) for x in jax.tree.leaves(states)], 1), axis=0)) == num
    _, state = env.reset(jax.random.key(0))
    assert jax.tree.map(lambda x: x.dtype, env.state_from_id(jnp.int32(0))) == jax.tree.map(lambda x: x.dtype, state)
    chex.assert_trees_all_equal(env.state_from_id(env.state_id(state)), state)


def test_dense_observations_where_states_have_no_code():
    env, params = gymnax.make("CartPole-v1")
    params = params.replace(max_steps_in_episode=30)

    def lean(key, obs, state, params):
        return jnp.where(jax.random.bernoulli(key, 0.1), 0, (obs[2] > 0).astype(jnp.int32))

    data = rollout(env, lean, jax.random.key(0), 20, params)
    assert data.table is None
    assert data.observations.shape == (20, 30, 4)
    assert data.final_observations.shape == (20, 4)
    assert 0 < data.terminated.sum() < 20
    for n, (observations, actions, rewards, terminated) in enumerate(
        by_hand(env, jax.jit(lean), jax.random.key(0), 20, params, 30)
    ):
        length = len(actions)
        assert (data.lengths[n], data.terminated[n]) == (length, terminated)
        np.testing.assert_allclose(data.observations[n, :length], observations[:-1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(data.final_observations[n], observations[-1], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(data.actions[n, :length], actions)
        np.testing.assert_array_equal(data.rewards[n, :length], rewards)
        assert not data.observations[n, length:].any()
        assert not data.rewards[n, length:].any()


def test_policies_with_parameters_do_not_recompile():
    env = ENVS["Diagonal-v0"]

    def act(weights, key, obs, state, params):
        return jax.random.categorical(key, weights)

    params = env.default_params.replace(max_steps_in_episode=5)
    weights = np.where(np.eye(5, dtype=bool), 0.0, -np.inf).astype(np.float32)
    down, right = (rollout(env, Partial(act, jnp.array(weights[i])), jax.random.key(0), 4, params) for i in (1, 3))
    before = _collect._cache_size()
    rollout(env, Partial(act, jnp.zeros(5)), jax.random.key(0), 4, params)
    assert _collect._cache_size() == before
    assert (down.actions == 1).all()
    assert (right.actions == 3).all()


def test_log_likelihoods_sum_the_scores_of_real_steps():
    env = ENVS["Diagonal-v0"]
    params = env.default_params.replace(max_steps_in_episode=LIMIT)
    score = Partial(env.expert_log_probs)
    data = rollout(env, expert_policy(env, 1), jax.random.key(0), NUM, params, score)
    choices = np.array(
        [
            jax.vmap(lambda i, k=k: env.expert_action(k, None, None, env.state_from_id(i), params))(jnp.arange(81))
            for k in range(5)
        ]
    )
    cells = data.table[..., 1].reshape(-1, 81).argmax(1)[data.observations]
    differs = (choices[:, cells] != data.actions) & (np.arange(LIMIT) < data.lengths[:, None])
    assert data.log_likelihoods.dtype == np.float32
    np.testing.assert_array_equal(data.log_likelihoods, np.where(differs.any(-1), -np.inf, 0.0).T)
    assert not data.log_likelihoods[:, 1].any()
    assert np.isneginf(data.log_likelihoods[:, 0]).any()
    assert rollout(env, expert_policy(env, 1), jax.random.key(0), NUM, params).log_likelihoods.shape == (NUM, 0)
