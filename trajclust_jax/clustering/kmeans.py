"""k-means on small vectors by scikit-learn, on the host between the programs of a fit."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from trajclust_jax.training import Host

RESTARTS = 10  # k-means++ starts, of which the one with the least inertia is kept


class Asked(NamedTuple):
    """The input of k-means from one run."""

    seed: jax.Array  # [] uint32
    points: jax.Array  # [N, D]


class Found(NamedTuple):
    """The result of k-means."""

    centres: jax.Array  # [K, D] float32
    assignments: jax.Array  # [N] int32


def kmeans_before(points_of: Callable[[Any, Any], jax.Array], num_clusters: int) -> Host:
    """k-means before a phase starts, of `points_of(data, previous state)` of each run, with the key of the start."""

    def ask(key: jax.Array, data: Any, previous: Any) -> Asked:
        _, key_centres = jax.random.split(key)
        return Asked(jax.random.bits(key_centres, (), jnp.uint32), points_of(data, previous))

    def shapes(asked: Asked) -> Found:
        count, size = asked.points.shape
        return Found(jax.ShapeDtypeStruct((num_clusters, size), jnp.float32), jax.ShapeDtypeStruct((count,), jnp.int32))

    return Host(ask, functools.partial(kmeans, num_clusters), shapes)


def kmeans(num_clusters: int, asked: Asked) -> Found:
    """k-means of NumPy arrays. With fewer distinct points than clusters some clusters are empty; points that are not
    finite give NaN centres and cluster 0 for all."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    points = np.asarray(asked.points, np.float32)
    if not np.isfinite(points).all():
        nowhere = np.full((num_clusters, points.shape[1]), np.nan, np.float32)
        return Found(nowhere, np.zeros(len(points), np.int32))
    # Sums over several threads differ in their last bits from run to run.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters: used clusters tell
        found = KMeans(num_clusters, n_init=RESTARTS, random_state=int(asked.seed)).fit(points)
    return Found(found.cluster_centers_.astype(np.float32), found.labels_.astype(np.int32))


def squared_distances(points: jax.Array, centres: jax.Array) -> jax.Array:
    """`[..., K]` float32: squared distances of points `[..., D]` to centres `[K, D]`."""
    chex.assert_equal(points.shape[-1], centres.shape[-1])  # broadcasting would accept a single dimension
    return ((points[..., None, :] - centres) ** 2).sum(-1)


def posterior(points: jax.Array, centres: jax.Array, assignments: jax.Array) -> jax.Array:
    """`[N, K]`: responsibilities of equally likely spherical Gaussians that share the clusters' inner variance."""
    return responsibilities(points, centres, inner_variance(points, centres, assignments))


def inner_variance(points: jax.Array, centres: jax.Array, assignments: jax.Array) -> jax.Array:
    """`[]`: the mean squared distance of points to their own centres, per dimension; above 0."""
    own = jnp.take_along_axis(squared_distances(points, centres), assignments[:, None], axis=1)
    return jnp.maximum(own.mean() / points.shape[1], jnp.finfo(jnp.float32).tiny)


def responsibilities(points: jax.Array, centres: jax.Array, variance: jax.Array) -> jax.Array:
    """`[N, K]`: of equally likely spherical Gaussians with this variance."""
    return jax.nn.softmax(-squared_distances(points, centres) / (2 * variance))
