"""SAC's losses against NumPy in float64, and a bandit whose best policy is known."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learner_reference import SIZE, A, D, bellman, critics, moved_state, normal_log_prob, some_batch, squashed, wide

from trajclust_jax.learners import SAC, Batch, Replay
from trajclust_jax.networks import TanhGaussianActor, sample_squashed

AGENT = SAC(A, features=(8, 8), actor_features=(6,))


def _drawn(params, observations, key):
    """Actions that JAX draws, and their log-density in float64 by the plain formula."""
    inner = wide(AGENT.actor.apply(params, observations).sample(seed=key))
    log_prob = normal_log_prob(inner, *squashed(params, observations)) - np.log(1 - np.tanh(inner) ** 2).sum(-1)
    return np.tanh(inner), log_prob


@pytest.fixture
def state():
    state = moved_state(AGENT.init(jax.random.key(0), D))
    return state.replace(params={**state.params, "log_alpha": jnp.float32(-0.5)})


def test_critic_loss(state):
    batch, key = some_batch(), jax.random.key(2)
    actions, log_prob = _drawn(state.params["actor"], batch.next_observations, key)
    following = critics(state.targets["critics"], batch.next_observations, actions).min(0) - np.exp(-0.5) * log_prob
    expected = bellman(AGENT, state.params["critics"], batch, following)
    loss, info = AGENT.critic_loss(state.params["critics"], state.params, state.targets, batch, key)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    values = critics(state.params["critics"], batch.observations, batch.actions)
    np.testing.assert_allclose(info["critic/value"], values.mean(), rtol=1e-4)


def test_actor_and_alpha_loss(state):
    batch, key = some_batch(3), jax.random.key(4)
    actions, log_prob = _drawn(state.params["actor"], batch.observations, key)
    values = critics(state.params["critics"], batch.observations, actions).min(0)
    loss, info = AGENT.actor_loss(state.params["actor"], state.params, batch, key)
    np.testing.assert_allclose(loss, (np.exp(-0.5) * log_prob - values).mean(), rtol=1e-4)
    np.testing.assert_allclose(info["actor/entropy"], -log_prob.mean(), rtol=1e-4)
    gradient = jax.grad(lambda x: AGENT.alpha_loss(x, jnp.float32(-1.0))[0])(jnp.float32(0.3))
    assert gradient == 1.0  # entropy -1 above its target -2: alpha is to fall


def test_terminated_cuts_the_bootstrap(state):
    batch = some_batch(5)
    moved = batch._replace(next_observations=batch.next_observations + 1)

    def loss(batch, terminated):
        batch = batch._replace(terminated=jnp.full(SIZE, terminated))
        return AGENT.critic_loss(state.params["critics"], state.params, state.targets, batch, jax.random.key(6))[0]

    assert loss(batch, True) == loss(moved, True)
    assert loss(batch, False) != loss(moved, False)


def test_squashed_density_matches_distrax_and_is_finite_at_the_bounds():
    actor = TanhGaussianActor(2, (4,))
    x = jax.random.normal(jax.random.key(0), (64, 3))
    policy = actor.apply(actor.init(jax.random.key(1), x), x)
    actions, log_prob = sample_squashed(jax.random.key(2), policy)
    reference = distrax.Transformed(policy, distrax.Block(distrax.Tanh(), 1)).log_prob(actions)
    inside = jnp.abs(actions).max(-1) < 0.999  # beyond, the reference cannot undo the tanh in float32
    assert inside.sum() > 40
    np.testing.assert_allclose(log_prob[inside], reference[inside], rtol=1e-3, atol=1e-3)
    far = distrax.Independent(distrax.Normal(jnp.full((1, 2), 40.0), jnp.ones((1, 2))), 1)
    assert np.isfinite(sample_squashed(jax.random.key(3), far)[1]).all()


def test_bandit_of_one_step():
    """Reward -10 |a - (0.5, -0.25)|^2: the best action is known, and the entropy is to be its target."""
    agent = SAC(2, features=(32, 32), actor_features=(32,), learning_rate=3e-3, target_entropy=-3.0)
    key = jax.random.key(0)
    actions = jax.random.uniform(key, (4096, 2), minval=-1, maxval=1)
    rewards = -10 * ((actions - jnp.array([0.5, -0.25])) ** 2).sum(-1)
    data = Batch(jnp.zeros((4096, 1)), actions, rewards, jnp.zeros((4096, 1)), jnp.ones(4096, bool))
    replay = Replay.empty(4096, 1, 2).add(data)

    def update(i, state):
        return agent.update(state, replay.sample(jax.random.fold_in(key, i), 128), i)[0]

    state = jax.jit(lambda s: jax.lax.fori_loop(0, 5000, update, s))(agent.init(key, 1))
    policy = agent.actor.apply(state.params["actor"], jnp.zeros((1, 1)))
    np.testing.assert_allclose(jnp.tanh(policy.mean())[0], [0.5, -0.25], atol=0.08)
    _, log_prob = sample_squashed(key, agent.actor.apply(state.params["actor"], jnp.zeros((2048, 1))))
    assert -log_prob.mean() == pytest.approx(-3.0, abs=0.3)


def test_replay_wraps_and_samples_only_what_was_added():
    replay = Replay.empty(6, 1, 1)
    for start in (0, 2, 4, 6):
        values = jnp.arange(start, start + 2, dtype=jnp.float32)
        replay = replay.add(Batch(values[:, None], values[:, None], values, values[:, None], values > 5))
        drawn = replay.sample(jax.random.key(start), 200)
        assert set(np.asarray(drawn.rewards).tolist()) == set(map(float, range(max(0, start - 4), start + 2)))
        np.testing.assert_array_equal(drawn.observations[:, 0], drawn.rewards)
        np.testing.assert_array_equal(drawn.terminated, drawn.rewards > 5)
