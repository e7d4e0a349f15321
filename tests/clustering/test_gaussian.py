"""Mixtures of Gaussians: equal to scikit-learn's from the same start, and what they survive."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from trajclust_jax.clustering import gaussian

RIDGE = 1e-4
N, M, K = 300, 4, 3


def some_points(n=N, seed=0):
    """Three blobs that overlap, each stretched in its own way."""
    rng = np.random.default_rng(seed)
    blobs = [rng.normal(size=(n // 3, M)) @ rng.normal(size=(M, M)) * 0.6 + 1.5 * rng.normal(size=M) for _ in range(3)]
    points = np.concatenate(blobs)
    return ((points - points.mean(0)) / points.std(0)).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("components", "iterations"))
def run(key, points, valid, used, components=K, iterations=7):
    begun = gaussian.start(key, points, valid, components, used, RIDGE)
    ended = gaussian.fit_mixture(begun, points, valid, iterations, RIDGE)
    return begun, ended, gaussian.log_densities(ended, points), gaussian.responsibilities(ended, points)


def test_it_is_scikit_learns_from_the_same_start():
    points = some_points()
    begun, ended, densities, shares = run(jax.random.key(1), points, np.ones(N, bool), K)
    wide = np.float64(points)
    precisions = np.linalg.inv(np.float64(begun.covariances))
    reference = Reference(
        K, reg_covar=RIDGE, max_iter=7, tol=0.0, weights_init=begun.weights, means_init=begun.means,
        precisions_init=(precisions + precisions.swapaxes(1, 2)) / 2,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        reference.fit(wide)
    assert reference.n_iter_ == 7
    np.testing.assert_allclose(ended.weights, reference.weights_, atol=1e-4)
    np.testing.assert_allclose(ended.means, reference.means_, atol=1e-4)
    np.testing.assert_allclose(ended.covariances, reference.covariances_, atol=1e-4)
    np.testing.assert_allclose(shares, reference.predict_proba(wide), atol=1e-4)
    likelihoods = jax.nn.logsumexp(densities, axis=1)
    np.testing.assert_allclose(likelihoods, reference.score_samples(wide), atol=1e-4, rtol=1e-4)


def test_the_likelihood_never_falls():
    points, valid = some_points(), jnp.ones(N, bool)
    likelihood = lambda mixture: jax.nn.logsumexp(gaussian.log_densities(mixture, points), axis=1).mean()
    begun = run(jax.random.key(1), points, valid, K)[0]
    step = jax.jit(lambda mixture: gaussian.fit_mixture(mixture, points, valid, 1, RIDGE))
    found = [float(likelihood(begun))]
    for _ in range(12):
        begun = step(begun)
        found.append(float(likelihood(begun)))
    assert (np.diff(found) > -1e-5).all()
    assert found[-1] > found[0] + 0.01


def _constant():
    points = some_points()
    points[:, 1] = 0
    return points


HARD = {
    "a constant dimension": _constant,
    "all points equal": lambda: np.full((N, M), 0.7, np.float32),
    "far outliers": lambda: np.concatenate([some_points()[3:], np.float32(3e3) * np.eye(3, M, dtype=np.float32)]),
    "tiny": lambda: np.float32(1e-20) * some_points(),
}


@pytest.mark.parametrize("name", HARD)
def test_it_survives(name):
    points = jax.jit(gaussian.standardised)(HARD[name](), np.ones(N, bool))
    with jax.debug_nans(True):
        _, ended, _, shares = run(jax.random.key(0), points, np.ones(N, bool), K)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ended))
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(ended.weights.sum(), 1, atol=1e-5)
    assert np.linalg.eigvalsh(np.float64(ended.covariances)).min() > 0


def test_fewer_points_than_dimensions():
    """By a mask: the others change nothing."""
    points = some_points()
    few = np.arange(N) < M - 1
    other = np.where(few[:, None], points, 1e6).astype(np.float32)
    standard = jax.jit(gaussian.standardised)
    found = [run(jax.random.key(0), standard(given, few), few, K) for given in (points, other)]
    for mixture in found[0][:2]:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(mixture))
    np.testing.assert_allclose(found[0][1].weights.sum(), 1, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, found[0][1], found[1][1])


def test_an_empty_component_stays_empty_and_the_others_are_a_smaller_mixture():
    points, valid = some_points(), np.ones(N, bool)
    begun = run(jax.random.key(1), points, valid, K)[0]
    emptied = begun.replace(weights=jnp.array([0.5, 0.0, 0.5]))
    smaller = jax.tree.map(lambda x: x[jnp.array([0, 2])], emptied)
    fit = jax.jit(lambda mixture: gaussian.fit_mixture(mixture, points, valid, 5, RIDGE))
    found, wanted = fit(emptied), fit(smaller)
    assert found.weights[1] == 0
    np.testing.assert_array_equal(found.means[1], emptied.means[1])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[np.array([0, 2])], y, atol=1e-4), found, wanted)
    assert (np.asarray(gaussian.responsibilities(found, points))[:, 1] == 0).all()


def test_components_in_use_are_a_mask():
    """Mixtures of 1, 2 and 3 of 3 components side by side: those out of use are empty; one is mean and covariance."""
    points, valid = some_points(), np.ones(N, bool)
    counts = jnp.array([1.0, 2.0, 3.0])
    _, ended, _, shares = jax.vmap(run, (None, None, None, 0))(jax.random.key(1), points, valid, counts)
    np.testing.assert_array_equal((np.asarray(ended.weights) > 0).sum(1), [1, 2, 3])
    np.testing.assert_allclose(ended.means[0, 0], np.float64(points).mean(0), atol=1e-5)
    wanted = np.cov(np.float64(points).T, bias=True) + RIDGE * np.eye(M)
    np.testing.assert_allclose(ended.covariances[0, 0], wanted, atol=1e-4)
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
    lone = run(jax.random.key(1), points, valid, jnp.float32(2))[1]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1], y, atol=2e-4), ended, lone)


def test_standardised_by_hand():
    points = np.float32([[1, 5, 9], [3, 5, 9], [100, 7, 9]])
    found = gaussian.standardised(points, np.array([True, True, False]))
    np.testing.assert_allclose(found, [[-1, 0, 0], [1, 0, 0], [0, 0, 0]])
