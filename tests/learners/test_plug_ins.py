"""What a plug-in may change of a learner that does not know it: critic loss, sampler, batch, policy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learner_reference import A, D, episodes, moved_state, some_batch, wide

from trajclust_jax.data import from_episodes, transitions
from trajclust_jax.data.preparation import ScaleReturns, ShiftRewards, n_steps, next_actions
from trajclust_jax.evaluation import act
from trajclust_jax.learners import AWAC, BC, CQL, IQL, SAC, TD3BC, BRACv, Offline, plugged
from trajclust_jax.training import fit

SMALL = {"features": (8, 8), "actor_features": (6,)}
BATCH, KEY = some_batch(), jax.random.key(2)
KEYS = {IQL: None, CQL: tuple(jax.random.split(KEY))}  # as their updates give them; the others' is one key


@dataclasses.dataclass(frozen=True)
class Smooth:
    """An L2 penalty on dQ/d(s, a), at (s, a) and at (s', a')."""

    smoothness: float = 0.0

    def critic_loss(self, critics, params, targets, batch, key):
        loss, info = super().critic_loss(critics, params, targets, batch, key)
        actions = self.backup(params, targets, batch, key).actions
        pairs = ((batch.observations, batch.actions), (batch.next_observations, jax.lax.stop_gradient(actions)))
        penalty = sum((self.input_gradients(critics, *pair) ** 2).sum(-1).mean() for pair in pairs)
        return loss + self.smoothness * penalty, info | {"critic/penalty": penalty}


@pytest.mark.parametrize(
    "algorithm", [TD3BC, IQL, CQL, SAC, *(pytest.param(x, marks=pytest.mark.slow) for x in (AWAC, BRACv))]
)
def test_a_penalty_on_gradients_wraps_every_critic(algorithm):
    """Nothing changes at weight 0; with a weight, critics come out smoother and the rest as it was."""
    lone, smooth = algorithm(A, **SMALL), plugged(Smooth, algorithm)
    state = moved_state(lone.init(jax.random.key(0), D))
    updates = {weight: jax.jit(smooth(A, smoothness=weight, **SMALL).update) for weight in (0.0, 10.0)}
    (expected, _), (same, info), (other, _) = (
        update(state, BATCH, jnp.int32(1)) for update in (jax.jit(lone.update), updates[0.0], updates[10.0])
    )
    for part, params in expected.params.items():
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, same.params[part])
        if part not in ("critics", "actor"):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, other.params[part])
    assert float(info["critic/penalty"]) > 0
    key = KEYS.get(algorithm, KEY)
    penalty = lambda state: smooth(A, **SMALL).critic_loss(
        state.params["critics"], state.params, state.targets, BATCH, key
    )[1]["critic/penalty"]
    held = other.replace(params={**expected.params, "critics": other.params["critics"]}, targets=expected.targets)
    assert float(penalty(held)) < float(penalty(expected))


def test_gradients_in_the_input_are_those_of_finite_differences():
    agent = TD3BC(A, **SMALL)
    critics = moved_state(agent.init(jax.random.key(0), D)).params["critics"]
    found = agent.input_gradients(critics, BATCH.observations, BATCH.actions)
    assert found.shape == (2, len(BATCH.rewards), D + A)
    inputs = wide(jnp.concatenate([BATCH.observations, BATCH.actions], 1))
    value = lambda x: wide(agent.values(critics, *(jnp.float32(part) for part in np.split(x, [D], 1))))
    for i in range(D + A):
        step = 1e-2 * np.eye(D + A)[i]
        np.testing.assert_allclose(found[..., i], (value(inputs + step) - value(inputs - step)) / 2e-2, atol=5e-3)


class OneTrajectory:
    """Draws from one trajectory at a time, the next one at every block, and counts its blocks."""

    period = 0

    def init(self, view):
        return jnp.int32(-1)

    def renew(self, state, learner, learner_state, view, step):
        assert "critics" in learner_state.params  # may be looked at
        return state + 1

    def rows(self, state, key, size, view):
        mine = view.data.batch.trajectory == state
        return jax.random.categorical(key, jnp.where(mine, 0.0, -jnp.inf), shape=(size,))


@dataclasses.dataclass(frozen=True)
class Ordered:
    """With that sampler; reports the trajectories that a minibatch is of."""

    sampler = OneTrajectory()

    def critic_loss(self, critics, params, targets, batch, key):
        loss, info = super().critic_loss(critics, params, targets, batch, key)
        return loss, info | {"critic/first": batch.trajectory.min(), "critic/last": batch.trajectory.max()}


@pytest.mark.parametrize("algorithm", [TD3BC, IQL])
def test_a_sampler_draws_for_a_learner_that_does_not_know(algorithm):
    learner = plugged(Ordered, algorithm)(A, updates=8, batch_size=4, **SMALL)
    outcome = fit(Offline(learner, block=2), episodes(), 2)
    drawn = [(entry["critic/first"], entry["critic/last"]) for entry in outcome.history[1:]]
    assert drawn == [([i, i], [i, i]) for i in map(float, range(4))]


@dataclasses.dataclass(frozen=True)
class Asking(IQL):
    """Reports what its batches carry beyond transitions."""

    n_steps: int = 3
    ASKS = ("next_actions", "n_steps")

    def update(self, state, batch, step):
        state, info = super().update(state, batch, step)
        seen = {name: getattr(batch, name) for name in ("next_actions", "n_step_rewards", "n_step_observations")}
        return state, info | {f"seen/{name}": value.sum() for name, value in seen.items()}


def test_a_learner_gets_what_it_asks_for_and_others_do_not():
    trajectories = episodes()
    asking = Offline(Asking(A, updates=2, batch_size=4, **SMALL), block=1)
    batch = asking.prepare(trajectories, 1).batch
    flat = transitions(trajectories)
    kept = np.flatnonzero(~np.asarray(flat.truncated))  # after a cut no action is recorded
    assert len(batch.rewards) == len(kept)
    assert batch.next_actions.shape == batch.actions.shape
    last = np.asarray(flat.terminated)[kept]
    assert (batch.next_actions[last] == 0).all()
    inner = np.flatnonzero(~last)
    np.testing.assert_array_equal(batch.next_actions[inner], np.asarray(flat.actions)[kept[inner] + 1])
    assert np.isfinite(fit(asking, trajectories, 1).history[-1]["seen/n_step_rewards"]).all()
    plain = Offline(IQL(A, updates=2, batch_size=4, **SMALL), block=1).prepare(trajectories, 1).batch
    assert plain.next_actions is None
    assert plain.n_step_rewards is None
    np.testing.assert_array_equal(plain.trajectory, flat.trajectory)


def test_n_steps_by_hand():
    """Two trajectories of 4 steps (terminal) and of 2 (cut off), n = 3, a discount of 1/2."""
    flat = transitions(
        from_episodes(
            [
                (np.zeros((5, 1), np.float32), np.float32([[0], [1], [2], [3]]), np.float32([1, 2, 4, 8]), True),
                (np.zeros((3, 1), np.float32), np.float32([[0], [1]]), np.float32([1, 1]), False),
            ]
        )
    )
    found = n_steps(flat, 3, 0.5)
    np.testing.assert_allclose(found.rewards, [1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8, 1.5, 1])
    np.testing.assert_array_equal(found.last, [2, 3, 3, 3, 5, 5])
    np.testing.assert_allclose(found.discount, [1 / 8, 0, 0, 0, 1 / 4, 1 / 2])
    ends = np.asarray(flat.terminated | flat.truncated)
    np.testing.assert_array_equal(next_actions(np.asarray(flat.actions), ends)[:, 0], [1, 2, 3, 0, 1, 0])


def test_transforms_of_rewards_by_hand():
    trajectories = episodes(3, 2).replace(rewards=np.float32([[1, 2], [0, 1], [4, 7]]))  # returns 3, 1, 11
    scaled = ScaleReturns(1000.0)(trajectories)
    np.testing.assert_allclose(scaled.rewards, np.array([[1, 2], [0, 1], [4, 7]]) * 100)
    shifted = ShiftRewards(2.0, -1.0)(scaled)
    assert shifted.rewards.dtype == np.float32
    np.testing.assert_allclose(shifted.rewards[0], [199, 399])
    equal = trajectories.replace(rewards=np.ones((3, 2), np.float32))
    assert ScaleReturns(1000.0)(equal) is equal


@dataclasses.dataclass(frozen=True)
class Switching(BC):
    """Two actors and one that chooses between them by the first column: a policy of several parts."""

    def parts(self):
        one = super().parts()["actor"]
        return {"actor": one, "other": one, "limit": lambda key, observation, action: jnp.zeros(())}

    def policy(self, params):
        return params

    def act(self, actor, observations):
        first, second = (self.actor.apply(actor[name], observations) for name in ("actor", "other"))
        return jnp.where(observations[..., :1] < actor["limit"], first, second)


def test_a_policy_may_have_several_parts():
    learner = Switching(A, updates=2, batch_size=4, actor_features=(6,))
    policy = fit(Offline(learner, block=1), episodes(), 2).result
    assert set(policy.actor) == {"actor", "other", "limit"}
    observations = jnp.broadcast_to(jnp.float32([[-5.0, 0, 0], [5.0, 0, 0]]), (2, 2, D))
    found = act(learner, policy, observations)
    for seed in range(2):
        of_seed = lambda tree, seed=seed: jax.tree.map(lambda x: x[seed], tree)
        scaled = of_seed(policy.scaling).observations(observations[seed])
        for row, name in enumerate(("actor", "other")):
            expected = learner.actor.apply(of_seed(policy.actor[name]), scaled)[row]
            np.testing.assert_allclose(found[seed, row], expected, rtol=1e-5)
