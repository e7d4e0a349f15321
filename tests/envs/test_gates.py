"""Gates' walls, rewards and behaviours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from trajclust_envs import Gates
from trajclust_envs.gates import NOISE, OPENINGS, SECTION, SPEED, WIDTH, EnvState
from trajclust_jax.clustering.oracle import bayes_assignment
from trajclust_jax.data import make, returns

ENV, KEY = Gates(), jax.random.key(0)
PARAMS = ENV.default_params
STEP = jax.jit(ENV.step_env)


def stepped(position, time, action):
    state = EnvState(time=jnp.int32(time), position=jnp.float32(position))
    observation, state, reward, terminated, _ = STEP(KEY, state, jnp.array([action], jnp.float32), PARAMS)
    return observation, float(state.position), float(reward), bool(terminated)


@pytest.mark.parametrize("opening", OPENINGS)
def test_an_opening_is_as_wide_as_it_is(opening):
    for side in (-1, 1):
        inside, outside = (opening + side * (WIDTH + more) for more in (-1e-3, 1e-3))
        assert stepped(inside, SECTION - 1, 0.0)[2:] == (1.0, False)
        assert stepped(outside, SECTION - 1, 0.0)[2:] == (0.0, True)
        assert stepped(outside, SECTION, 0.0)[2:] == (1.0, False), "between two walls one is anywhere"


def test_a_step_by_hand():
    observation, position, reward, terminated = stepped(-0.2, 1, 3.0)
    assert position == pytest.approx(SPEED - 0.2)  # the action was clipped
    assert (reward, terminated) == (1.0, False)
    np.testing.assert_allclose(observation, [SPEED - 0.2, 0, 1], atol=1e-6)  # a quarter of the way


def test_the_mean_of_any_behaviours_meets_a_wall():
    for count in range(2, 9):
        assert np.abs(OPENINGS[:count].mean() - OPENINGS).min() > WIDTH + 0.02


@pytest.fixture(scope="module")
def dataset():
    return make("gates-8", size=30, seed=1)


def test_behaviours_get_through_and_are_told_apart(dataset):
    trajectories = dataset.trajectories
    assert returns(trajectories).mean() > 79.5
    through = trajectories.observations[:, SECTION, 0]
    np.testing.assert_allclose(through, OPENINGS[dataset.labels], atol=WIDTH)
    assert (bayes_assignment(dataset.true_log_likelihoods) == dataset.labels).all()
    full = trajectories.lengths == 80
    assert (
        not trajectories.terminated[full].any() or (returns(trajectories)[full & trajectories.terminated] == 79).all()
    )


def test_likelihoods(dataset):
    n, trajectories = 40, dataset.trajectories
    steps = np.arange(trajectories.lengths[n])
    position, actions = trajectories.observations[n, steps, 0], trajectories.actions[n, steps, 0]
    targets = np.where((steps % SECTION == SECTION - 1)[:, None], OPENINGS, 0)
    means = (targets - position[:, None]) / SPEED
    expected = norm.logpdf(actions[:, None], means, NOISE).sum(0)
    np.testing.assert_allclose(dataset.true_log_likelihoods[n], expected, rtol=1e-4)


def test_behaviours_are_the_first_ones():
    assert make("gates-3", 2).spec.policy_names == ("opening 1", "opening 2", "opening 3")
    for count in (0, 9):
        with pytest.raises(ValueError, match="there are 1 to 8"):
            Gates(count)
