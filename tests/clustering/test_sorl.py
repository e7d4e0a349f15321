"""SORL's clustering: both E-steps against NumPy, EM's monotonicity, what the two variants find."""

import jax
import numpy as np
import pytest

from trajclust_jax.clustering import Sorl
from trajclust_jax.data import make
from trajclust_jax.metrics import nmi
from trajclust_jax.training import fit


def log_pi_of_steps(trajectories, params):
    """Lists over trajectories of `[K, steps]`: each step's log-probability under tabular policies `[K, U, A]`."""
    ids, actions = trajectories.observations.ids, trajectories.actions
    return [params[:, ids[n, :length], actions[n, :length]] for n, length in enumerate(trajectories.lengths)]


@pytest.mark.parametrize("posterior", ["product", "sum"])
def test_posteriors_and_m_step_equal_numpy(random_data, posterior):
    """Three EM iterations in float64, from the same random partition."""
    trajectories = random_data(n=12, t=5)
    method = Sorl.default(3, "tabular", posterior=posterior, iterations=3, tolerance=0.0, patience=9)
    prepared = jax.device_put(method.prepare(trajectories))
    phase = method.phases()[0]
    state, info = phase.start(jax.random.key(0), prepared, None)
    weights = np.eye(3)[np.asarray(info["assignments"][0])]
    for iteration in range(3):
        state, info = phase.step(state, prepared, np.int32(iteration))
        counts = np.zeros((3, 6, 4))
        for n, length in enumerate(trajectories.lengths):
            for t in range(length):
                counts[:, trajectories.observations.ids[n, t], trajectories.actions[n, t]] += weights[n]
        smoothed = counts + 1e-2
        log_pi = np.log(smoothed / smoothed.sum(-1, keepdims=True))
        steps = log_pi_of_steps(trajectories, log_pi)
        log_likelihoods = np.array([x.sum(1) for x in steps])
        scores = np.exp(log_likelihoods) if posterior == "product" else np.array([np.exp(x).mean(1) for x in steps])
        weights = scores / scores.sum(1, keepdims=True)
    result = method.result(state, prepared)
    np.testing.assert_allclose(result.posterior, weights, atol=1e-4)
    np.testing.assert_allclose(result.log_likelihoods, log_likelihoods, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(result.assignments, weights.argmax(1))
    mixture = np.log(np.exp(log_likelihoods).mean(1)).sum() + 1e-2 * log_pi.sum()
    np.testing.assert_allclose(result.objective, mixture, rtol=1e-4)


def test_the_mixtures_likelihood_never_falls(random_data):
    """Soft EM with exact M-steps climbs the mixture's log-likelihood (plus the log prior of the tables)."""
    trajectories = random_data(n=60, t=12, rows=5, num_actions=3)
    outcome = fit(Sorl.default(4, "tabular", iterations=60, tolerance=0.0, patience=60), trajectories, 3)
    objective = np.array([entry["objective"] for entry in outcome.history[1:]])
    assert (np.diff(objective, axis=0) >= -1e-6 * np.abs(objective[:-1])).all()


@pytest.mark.parametrize("policy", ["tabular", "mlp"])
def test_policies_that_disagree_are_told_apart(conflict, policy):
    trajectories, labels = conflict(k=2, n=40)
    result = fit(Sorl.default(2, policy, iterations=15, steps=15, patience=15), trajectories, 2).result
    assert max(nmi(labels, np.asarray(found)) for found in result.assignments) == pytest.approx(1)
    np.testing.assert_allclose(result.posterior.sum(-1), 1, rtol=1e-5)
    assert result.restart_assignments.shape == (2, 1, 40)


def test_sums_of_probabilities_leave_posteriors_near_uniform():
    """The release's E-step: every policy gives most steps a fair probability, so that no trajectory is claimed."""
    dataset = make("diagonal", 30, 0)
    confidence, score = {}, {}
    for posterior in ("product", "sum"):
        result = fit(Sorl.default(5, "tabular", posterior=posterior), dataset.trajectories, 3).result
        confidence[posterior] = float(result.posterior.max(-1).mean())
        score[posterior] = np.mean([nmi(dataset.labels, np.asarray(found)) for found in result.assignments])
    assert confidence["product"] > 0.9
    assert confidence["sum"] < 0.3
    assert score["product"] > score["sum"] + 0.2, score


def test_padding_chunks_and_seeds_do_not_matter():
    trajectories = make("diagonal", 30, 0).trajectories
    method = Sorl.default(5, "tabular", iterations=4)
    expected = fit(method, trajectories, 2).result
    pad = lambda x: np.pad(np.asarray(x), [(0, 0), (0, 7)], constant_values=1)
    longer = trajectories.replace(
        observations=trajectories.observations.replace(ids=pad(trajectories.observations.ids)),
        actions=pad(trajectories.actions),
        rewards=pad(trajectories.rewards),
    )
    small = Sorl.default(5, "tabular", iterations=4, policy_settings=(("memory_budget", 10_000),))
    for other in (fit(method, longer, 2).result, fit(small, trajectories, 2).result):
        np.testing.assert_array_equal(other.assignments, expected.assignments)
        np.testing.assert_allclose(other.posterior, expected.posterior, atol=1e-4)
    alone = fit(method, trajectories, [1]).result
    np.testing.assert_array_equal(alone.assignments[0], expected.assignments[1])


@pytest.mark.parametrize(("posterior", "policy"), [("product", "mlp"), ("sum", "tabular")])
def test_one_trajectory_and_more_clusters_than_trajectories(conflict, posterior, policy):
    trajectories, _ = conflict(n=1)
    with jax.debug_nans(True):
        result = fit(Sorl.default(3, policy, posterior=posterior, iterations=2), trajectories, 1).result
    assert np.isfinite(result.objective).all()
    np.testing.assert_allclose(result.posterior.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"num_clusters": 0}, {"num_clusters": 2, "posterior": "mean"}, {"num_clusters": 2, "policy": "cnn"}]
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"unknown (posterior|policy)|at least"):
        Sorl(**settings)
