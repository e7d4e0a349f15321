"""Returns of trained policies, against episodes run one by one and an environment worked by hand."""

import dataclasses
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnasium.spaces import Box, Dict, Discrete, Text, Tuple

from trajclust_envs.mujoco import run_episodes
from trajclust_experiments.cells.evaluation import returns_of
from trajclust_jax.data import DataError
from trajclust_jax.data.spaces import ObservationReader
from trajclust_jax.evaluation import COPIES, gymnasium_returns, gymnax_episodes, gymnax_returns, mujoco_returns
from trajclust_jax.learners import Scaling, TrainedPolicy


@dataclasses.dataclass(frozen=True)
class Linear:
    """A policy that is a matrix: exact however it is batched."""

    action_size: int

    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        return jnp.tanh(observations @ actor)


def some_policies(axes, observation_size, action_size):
    keys = jax.random.split(jax.random.key(0), 3)
    scaling = Scaling(
        0.1 * jax.random.normal(keys[0], (*axes, observation_size)),
        jnp.exp(0.1 * jax.random.normal(keys[1], (*axes, observation_size))),
        jnp.full((*axes, action_size), 0.8),
    )
    return TrainedPolicy(jax.random.normal(keys[2], (*axes, observation_size, action_size)), scaling)


def alone(policy, index, observations):
    """One policy in NumPy."""
    actor, scaling = jax.tree.map(lambda x: np.asarray(x[index]), (policy.actor, policy.scaling))
    return (scaling.bound * np.tanh((observations - scaling.mean) / scaling.std @ actor)).astype(np.float32)


def test_mujoco_returns_are_those_of_lone_episodes():
    policy = some_policies((2, 3), 11, 3)
    found = mujoco_returns("hopper", Linear(3), policy, 3, seed=7)
    assert found.shape == (2, 3, 3)
    for index in ((0, 0), (1, 2)):
        act = lambda observations, _, index=index: alone(policy, index, observations)
        episodes = run_episodes("hopper", act, 3, seed=7)
        expected = [episode.rewards.sum(dtype=np.float64) for episode in episodes]
        np.testing.assert_allclose(found[index], expected, rtol=2e-2)
    assert len(np.unique(found)) == found.size


def test_later_evaluations_compile_nothing():
    traces = []

    @dataclasses.dataclass(frozen=True)
    class Noted(Linear):
        def act(self, actor, observations):
            traces.append(observations.shape)
            return super().act(actor, observations)

    mujoco, plane = some_policies((2,), 11, 3), some_policies((2,), 2, 2)
    for number in range(2):
        returns_of(Noted(3), "Hopper-v4", mujoco, 2, number)
        returns_of(Noted(2), "Pathfollowing-v0", plane, 2, number)
    assert len(traces) == 2


def test_many_policies_are_evaluated_in_turns(monkeypatch):
    policy = some_policies((2,), 11, 3)
    whole = mujoco_returns("hopper", Linear(3), policy, 5, seed=1)
    assert COPIES >= 10
    monkeypatch.setattr("trajclust_jax.evaluation.COPIES", 4)
    np.testing.assert_allclose(mujoco_returns("hopper", Linear(3), policy, 5, seed=1), whole, rtol=2e-2)


def test_the_same_policies_meet_the_same_first_states():
    policy = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], (2, *x.shape[1:])), some_policies((1,), 11, 3))
    found = mujoco_returns("hopper", Linear(3), policy, 4, seed=0)
    np.testing.assert_allclose(found[0], found[1], rtol=2e-2)


class Steps(gymnasium.Env):
    """Episodes of 1 to 9 steps by their seed, that end or are cut; odd observations, infos that cannot be stacked."""

    observation_space = Dict(
        kind=Discrete(3, start=1),
        parts=Tuple((Box(-9, 9, (2,), np.float64), Text(9))),
        image=Box(0, 3, (2, 1), np.uint8),
    )
    taken = 0  # by all

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, seed=None):
        super().reset(seed=seed)
        self.left, self.cut = self.np_random.integers(1, 10), self.np_random.random() < 0.5
        return self._seen(), {}

    def step(self, action):
        assert self.left > 0, "an episode that is over goes on"
        assert self.action_space.contains(action)
        Steps.taken, self.left = Steps.taken + 1, self.left - 1
        over, reward = self.left == 0, np.sum(action) + self.np_random.normal()
        return self._seen(), reward, over and not self.cut, over and self.cut, {"left": np.zeros(self.left)}

    def _seen(self):
        image, parts = self.np_random.integers(0, 4, (2, 1), np.uint8), (self.np_random.normal(size=2), "text")
        return {"kind": np.int64(1 + self.left % 3), "parts": parts, "image": image}


class Greedy(Linear):
    DISCRETE = True


@pytest.mark.parametrize(
    ("learner", "space"), [(Linear(2), Box(-0.5, 0.7, (1, 2), np.float64)), (Greedy(3), Discrete(3, start=-1))]
)
def test_gymnasium_returns_are_those_of_lone_episodes(monkeypatch, learner, space):
    """However many run side by side, and no step is taken that no episode has."""
    policy = some_policies((2, 2), 7, learner.action_size)
    for copies in (1, 12, 128):
        monkeypatch.setattr("trajclust_jax.evaluation.COPIES", copies)
        Steps.taken = 0
        found = gymnasium_returns(lambda: Steps(space), learner, policy, 7, seed=5)
        assert found.shape == (2, 2, 7)
        taken, Steps.taken = Steps.taken, 0
        np.testing.assert_allclose(found, _one_by_one(Steps(space), policy, 7, seed=5), rtol=1e-5)
        assert taken == Steps.taken


def _one_by_one(env, policy, num_episodes, seed):
    reader, totals = ObservationReader(env.observation_space), np.zeros((2, 2, num_episodes))
    for *index, number in np.ndindex(totals.shape):
        seen, _ = env.reset(seed=int(np.random.default_rng((seed, number)).integers(2**31)))
        over = False
        while not over:
            action = alone(policy, tuple(index), reader(jax.tree.map(lambda x: np.array([x]), seen))[0])
            if isinstance(env.action_space, Discrete):
                action = int(action.argmax()) - 1
            else:
                action = np.clip(action, -0.5, 0.7, dtype=np.float64).reshape(1, 2)
            seen, reward, terminated, truncated, _ = env.step(action)
            totals[*index, number] += reward
            over = terminated or truncated
    return totals


def test_an_episode_without_an_end_is_an_error(monkeypatch):
    policy = some_policies((1,), 7, 1)
    monkeypatch.setattr("trajclust_jax.evaluation.LONGEST", 9)
    gymnasium_returns(lambda: Steps(Box(-1, 1, (1,))), Linear(1), policy, 9, seed=5)
    monkeypatch.setattr("trajclust_jax.evaluation.LONGEST", 8)
    with pytest.raises(DataError, match="has not ended after 8 steps: give the environment a time limit"):
        gymnasium_returns(lambda: Steps(Box(-1, 1, (1,))), Linear(1), policy, 9, seed=5)


@struct.dataclass
class Counter:
    time: jax.Array
    limit: jax.Array


@struct.dataclass
class Limits:
    max_steps_in_episode: int = 6


class Counting:
    """The reward is the action; an episode ends after as many steps as its first state says, or at the limit."""

    default_params = Limits()

    def reset_env(self, key, params):
        limit = jax.random.randint(key, (), 1, 12)
        return limit[None].astype(jnp.float32), Counter(jnp.int32(0), limit)

    def step_env(self, key, state, action, params):
        state = Counter(state.time + 1, state.limit)
        return state.limit[None].astype(jnp.float32), state, action[0], state.time >= state.limit, {}

    def is_truncated(self, state, params):
        return state.time >= params.max_steps_in_episode


def test_gymnax_returns_stop_where_episodes_end():
    scaling = Scaling(jnp.zeros((2, 1)), jnp.ones((2, 1)), jnp.full((2, 1), 2.0))
    policy = TrainedPolicy(jnp.array([[[0.0]], [[1.0]]]), scaling)  # acts 0, and 2 tanh(limit)
    key = jax.random.key(3)
    found = gymnax_returns(Counting(), Linear(1), policy, 40, key)
    assert found.shape == (2, 40)
    np.testing.assert_array_equal(found[0], 0)
    keys = jax.random.split(jax.random.split(key)[0], 40)
    limits = np.array([int(Counting().reset_env(k, None)[1].limit) for k in keys])
    assert limits.min() < 6 < limits.max()
    np.testing.assert_allclose(found[1], np.minimum(limits, 6) * 2 * np.tanh(limits), rtol=1e-5)


def test_gymnax_episodes_are_those_of_the_returns():
    policy = TrainedPolicy(
        jnp.array([[[0.0]], [[1.0]]]), Scaling(jnp.zeros((2, 1)), jnp.ones((2, 1)), jnp.ones((2, 1)))
    )
    key = jax.random.key(3)
    episodes = gymnax_episodes(Counting(), Linear(1), policy, 40, key)
    np.testing.assert_allclose(episodes.rewards.sum(-1), gymnax_returns(Counting(), Linear(1), policy, 40, key))
    assert episodes.observations.shape == (2, 40, 7, 1)
    limits = episodes.observations[..., 0, 0]
    np.testing.assert_array_equal(episodes.lengths, np.minimum(limits, 6))
    steps = np.arange(7)
    seen = np.where(steps <= episodes.lengths[..., None], limits[..., None], 0)
    np.testing.assert_array_equal(episodes.observations[..., 0], seen)
