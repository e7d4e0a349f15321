"""k-means on small vectors by scikit-learn, callable inside a jitted program."""

import functools
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np

RESTARTS = 10  # k-means++ starts, of which the one with the least inertia is kept


def kmeans(key: jax.Array, points: jax.Array, num_clusters: int) -> tuple[jax.Array, jax.Array]:
    """Centres `[K, D]` float32 and assignments `[N]` int32 of points `[N, D]` (unbatched; the key is consumed).

    Computed on the host, for what is done once in a phase: not for a hot loop. Fewer distinct points than clusters
    leave clusters empty; points that are not finite give NaN centres and cluster 0 throughout.
    """
    centres = jax.ShapeDtypeStruct((num_clusters, points.shape[1]), jnp.float32)
    assignments = jax.ShapeDtypeStruct(points.shape[:1], jnp.int32)
    solve = functools.partial(_solve, num_clusters)
    seed = jax.random.bits(key, (), jnp.uint32)
    return jax.pure_callback(solve, (centres, assignments), seed, points, vmap_method="sequential")


def _solve(num_clusters: int, seed: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    points = np.asarray(points, np.float32)
    if not np.isfinite(points).all():
        nowhere = np.full((num_clusters, points.shape[1]), np.nan, np.float32)
        return nowhere, np.zeros(len(points), np.int32)
    # Sums over several threads differ in their last bits from run to run.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters: used clusters tell
        found = KMeans(num_clusters, n_init=RESTARTS, random_state=int(seed)).fit(points)
    return found.cluster_centers_.astype(np.float32), found.labels_.astype(np.int32)


def squared_distances(points: jax.Array, centres: jax.Array) -> jax.Array:
    """`[..., K]` float32: squared distances of points `[..., D]` to centres `[K, D]`."""
    chex.assert_equal(points.shape[-1], centres.shape[-1])  # broadcasting would take a single dimension for all
    return ((points[..., None, :] - centres) ** 2).sum(-1)


def posterior(points: jax.Array, centres: jax.Array, assignments: jax.Array) -> jax.Array:
    """`[N, K]`: responsibilities of equally likely spherical Gaussians that share the clusters' inner variance."""
    return responsibilities(points, centres, inner_variance(points, centres, assignments))


def inner_variance(points: jax.Array, centres: jax.Array, assignments: jax.Array) -> jax.Array:
    """`[]`: the mean squared distance of points to their own centres, a dimension; above 0."""
    own = jnp.take_along_axis(squared_distances(points, centres), assignments[:, None], axis=1)
    return jnp.maximum(own.mean() / points.shape[1], jnp.finfo(jnp.float32).tiny)


def responsibilities(points: jax.Array, centres: jax.Array, variance: jax.Array) -> jax.Array:
    """`[N, K]`: of equally likely spherical Gaussians with this variance."""
    return jax.nn.softmax(-squared_distances(points, centres) / (2 * variance))
