"""MuJoCo's rollouts and the densities of its policies."""

import itertools

import distrax
import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_envs.mujoco import (
    TASKS,
    GaussianPolicy,
    load_policies,
    make_env,
    noisy_log_prob,
    run_episodes,
    save_policies,
)


def _policy(observation_size=11, action_size=3, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    sizes = (observation_size, 16, 2 * action_size)
    weights = tuple(rng.normal(0, 0.4, shape).astype(np.float32) for shape in itertools.pairwise(sizes))
    biases = tuple(rng.normal(0, 0.1, size).astype(np.float32) for size in sizes[1:])
    return GaussianPolicy(weights, biases, np.full(action_size, scale, np.float32))


def test_log_prob_is_a_tanh_gaussians():
    policy, rng = _policy(scale=0.4), np.random.default_rng(1)
    observations = rng.normal(size=(50, 11)).astype(np.float32)
    actions = policy.sample(observations, rng.normal(size=(50, 3)).astype(np.float32))
    mean, std = policy(observations)
    base = distrax.Independent(distrax.Normal(jnp.array(mean), jnp.array(std)), 1)
    squash = distrax.Chain([distrax.ScalarAffine(0.0, jnp.full(3, 0.4)), distrax.Tanh()])
    expected = distrax.Transformed(base, distrax.Block(squash, 1)).log_prob(jnp.array(actions))
    inside = np.abs(actions).max(-1) < 0.999 * 0.4  # beyond, the reference cannot undo the tanh in float32
    assert inside.sum() >= 20
    found = policy.log_prob(observations, actions)
    np.testing.assert_allclose(found[inside], expected[inside], rtol=2e-3, atol=2e-3)
    assert np.isfinite(policy.log_prob(observations, np.full((50, 3), 0.4, np.float32))).all()


@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_noisy_density_has_mass_one(noise):
    policy = _policy(action_size=1)
    observation = np.random.default_rng(2).normal(size=(1, 11)).astype(np.float32)
    grid = np.linspace(-1, 1, 20001)[1:-1, None]
    density = np.exp(noisy_log_prob(policy, observation, grid, noise))
    ends = np.exp(noisy_log_prob(policy, observation, np.array([[-1.0], [1.0]]), noise)).sum()
    assert np.trapezoid(density, grid[:, 0]) + ends == pytest.approx(1, abs=1e-3)


def test_episodes_do_not_depend_on_the_copies():
    policy = _policy()
    runs = [list(run_episodes("hopper", policy.sample, 5, seed=3, copies=copies)) for copies in (2, 5)]
    for few, many in zip(*runs, strict=True):
        np.testing.assert_allclose(few.observations, many.observations, atol=1e-3)
        assert few.terminated == many.terminated
    again = list(run_episodes("hopper", policy.sample, 5, seed=3, copies=2))
    for first, second in zip(runs[0], again, strict=True):
        np.testing.assert_array_equal(first.actions, second.actions)
    assert len({len(episode.rewards) for episode in again}) > 1  # each has its own start and noise


def test_a_fall_terminates_and_the_limit_does_not():
    fallen = next(run_episodes("hopper", lambda o, z: z, 1, seed=0))
    assert fallen.terminated
    assert len(fallen.rewards) < 1000
    whole = next(run_episodes("halfcheetah", lambda o, z: 0 * z, 1, seed=0))
    assert not whole.terminated
    assert whole.observations.shape == (1001, 17)
    assert whole.actions.shape == (1000, 6)
    assert whole.observations.dtype == whole.actions.dtype == whole.rewards.dtype == np.float32


def test_the_recorded_step_is_the_one_the_environment_took():
    episode = next(run_episodes("walker2d", lambda o, z: np.clip(z, -1, 1), 1, seed=5))
    env = make_env("walker2d")
    env.reset(seed=int(np.random.default_rng((5, 0)).integers(2**31)))
    for t in range(len(episode.rewards)):
        after, reward, *_ = env.step(episode.actions[t])
        np.testing.assert_array_equal(after.astype(np.float32), episode.observations[t + 1])
        assert np.float32(reward) == episode.rewards[t]


def test_weights_survive_a_file(tmp_path):
    policies = {"a": _policy(seed=1), "b": _policy(seed=2)}
    save_policies(tmp_path / "x.npz", policies)
    loaded = load_policies(tmp_path / "x.npz")
    observations = np.random.default_rng(0).normal(size=(8, 11)).astype(np.float32)
    assert list(loaded) == ["a", "b"]
    for name, policy in policies.items():
        np.testing.assert_allclose(loaded[name].mode(observations), policy.mode(observations), atol=5e-3)
        assert loaded[name].weights[0].dtype == np.float32


def test_nothing_is_written_beside_the_user(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    make_env("halfcheetah")
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""


def test_score_of_the_references():
    for task in TASKS.values():
        np.testing.assert_allclose(task.normalised([task.random_return, task.expert_return]), [0, 100])
