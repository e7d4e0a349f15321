"""k-means between programs, and k-means on returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from trajclust_jax.clustering import SummaryKmeans
from trajclust_jax.clustering.kmeans import Asked, kmeans, kmeans_before, posterior, squared_distances
from trajclust_jax.metrics import adjusted_rand
from trajclust_jax.training import fit

CENTRES = np.array([[0.0, 0], [9, 0], [0, 9]])


def _blobs(seed, n=60):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return (CENTRES[labels] + rng.normal(size=(n, 2))).astype(np.float32), labels


def _asked(points, seed=0):
    return Asked(np.uint32(seed), np.asarray(points, np.float32))


def test_equals_scikit_learn():
    for seed in range(3):
        points = _blobs(seed)[0]
        found, again = (kmeans(3, _asked(points, seed)) for _ in range(2))
        np.testing.assert_array_equal(again.centres, found.centres)  # bit for bit
        expected = KMeans(3, n_init=10, random_state=seed).fit(points)
        np.testing.assert_array_equal(found.assignments, expected.labels_)
        np.testing.assert_allclose(found.centres, expected.cluster_centers_, rtol=1e-6)
        np.testing.assert_array_equal(squared_distances(points, found.centres).argmin(-1), found.assignments)


def test_a_fit_solves_for_every_seed_of_its_own_points():
    """Between programs: each seed's own draw, on one device as on several, resumed as undisturbed."""
    points = _blobs(0)[0]
    host = kmeans_before(lambda data, previous: data + previous, 3)
    keys = jax.random.split(jax.random.key(0), 2)
    asked = jax.vmap(host.ask, (0, None, 0))(keys, points, jnp.arange(2.0))
    assert asked.seed[0] != asked.seed[1]
    np.testing.assert_array_equal(asked.points[1], points + 1)
    shapes = host.shapes(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), asked))
    found = host.solve(jax.tree.map(lambda x: np.asarray(x[1]), asked))
    for shape, array in zip(shapes, found, strict=True):
        assert (shape.shape, shape.dtype) == (array.shape, array.dtype)


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_identical_or_diverged_points(value):
    found = kmeans(3, _asked(np.full((8, 2), value)))
    assert len(np.unique(found.assignments)) == 1
    assert np.isnan(found.centres).all() == np.isnan(value)


def test_posterior_is_that_of_equal_spherical_gaussians():
    points = jnp.array([[0.0], [2.0], [10.0], [12.0]])
    centres, assignments = jnp.array([[1.0], [11.0]]), jnp.array([0, 0, 1, 1])
    # inner variance 1; log odds of the first point: (11^2 - 1^2) / 2
    np.testing.assert_allclose(posterior(points, centres, assignments)[0, 1], np.exp(-60.0), rtol=1e-3)
    np.testing.assert_allclose(posterior(centres, centres, jnp.array([0, 1])), np.eye(2))  # no inner variance
    np.testing.assert_allclose(posterior(jnp.zeros((2, 1)), jnp.zeros((2, 1)), jnp.array([0, 0])), 0.5)


def _rewarded(random_data, labels):
    trajectories = random_data(n=len(labels))
    lengths = np.asarray(trajectories.lengths)
    rewards = np.where(np.asarray(trajectories.mask), (10.0 * labels / lengths)[:, None], 1e6)  # padding lies
    return trajectories.replace(rewards=rewards.astype(np.float32))


def test_returns_are_told_apart(random_data):
    labels = np.arange(30) % 3
    method = SummaryKmeans(3)
    outcome = fit(method, _rewarded(random_data, labels), 2, score=lambda a: {"clusters": a.max(-1) + 1})
    result = outcome.result
    for s in range(2):
        assert adjusted_rand(labels, np.asarray(result.assignments[s])) == 1
        np.testing.assert_allclose(np.sort(result.params[s].ravel()), [0, 10, 20], atol=1e-3)
    np.testing.assert_array_equal(result.posterior.argmax(-1), result.assignments)
    assert outcome.history[-1]["used_clusters"] == [[3], [3]]


def test_equal_returns_have_no_answer(random_data):
    with pytest.raises(ValueError, match="every return is equal"):
        SummaryKmeans(2).check(random_data())
    with pytest.raises(ValueError, match="2 trajectories"):
        SummaryKmeans(3).check(random_data(n=2))
    with pytest.raises(ValueError, match="num_clusters"):
        SummaryKmeans(0)


def test_lengths_and_mean_steps(random_data, dense):
    trajectories = random_data(n=40, t=9)
    lengths = np.asarray(trajectories.lengths)
    found = fit(SummaryKmeans(2, "length"), trajectories, 1).result
    reference = KMeans(2, n_init=10, random_state=0).fit_predict(lengths[:, None].astype(float))
    assert adjusted_rand(reference, np.asarray(found.assignments[0])) == 1
    observations, actions = np.asarray(dense(trajectories).observations, float), np.eye(4)[trajectories.actions]
    rows = [
        np.concatenate([observations[n, :length].mean(0), actions[n, :length].mean(0)])
        for n, length in enumerate(lengths)
    ]
    rows = np.array(rows)
    expected = (rows - rows.mean(0)) / rows.std(0)
    np.testing.assert_allclose(SummaryKmeans(2, "mean").prepare(trajectories), expected, atol=1e-4)
    np.testing.assert_allclose(SummaryKmeans(2, "mean").prepare(dense(trajectories)), expected, atol=1e-4)
    with pytest.raises(ValueError, match="every length is equal"):
        SummaryKmeans(2, "length").check(trajectories.replace(lengths=np.full(40, 3, np.int32)))
    with pytest.raises(ValueError, match="unknown summary 'median'"):
        SummaryKmeans(2, "median")
