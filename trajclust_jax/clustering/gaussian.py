"""Mixtures of Gaussians with full covariances by EM, inside a jitted program: fixed shapes, float32.

    E    r_iz ~ p_z N(y_i | mu_z, Omega_z),  sum_z r_iz = 1
    M    p_z, mu_z, Omega_z:  share, mean and covariance of the points weighted by r_iz;  Omega_z + ridge I

A component that has lost its points has weight 0 from then on, and keeps its parameters. Written for one mixture.
Unused components have weight 0, too, so that mixtures of different K have the same shapes.
"""

import chex
import jax
import jax.numpy as jnp
from flax import struct

from trajclust_jax.devices import on_cpu

EMPTY = 1e-3  # a component with a smaller sum of responsibilities is empty
ROUNDING = 1e-6  # of a covariance's trace: what float32 needs on the diagonal to be positive definite
CONSTANT = 1e-6  # a column whose std is below this share of its magnitude does not vary


@struct.dataclass
class GaussianMixture:
    """K Gaussians of M dimensions."""

    weights: jax.Array  # [K]: p_z, 0 for a component that is empty
    means: jax.Array  # [K, M]
    covariances: jax.Array  # [K, M, M], ridge included


@struct.dataclass
class LinearGaussians:
    """K Gaussians of A dimensions whose means are linear in D inputs."""

    coefficients: jax.Array  # [K, D + 1, A]: the last row is the intercept
    whitenings: jax.Array  # [K, A, A]: W with W W^T the inverse of the covariance


def standardised(points: jax.Array, valid: jax.Array) -> jax.Array:
    """`[N, M]`: mean 0 and std 1 over the `valid [N]` points, so that a ridge is relative; 0 where a column does not
    vary, and for points that are not valid."""
    counted = valid[:, None].astype(points.dtype)
    total = jnp.maximum(counted.sum(), 1)
    mean = (counted * points).sum(0) / total
    centred = counted * (points - mean)
    std = jnp.sqrt((centred**2).sum(0) / total)
    size = jnp.max(jnp.abs(counted * points), axis=0)
    varies = std > CONSTANT * size
    return jnp.where(varies, centred / jnp.where(varies, std, 1), 0)


def log_densities(mixture: GaussianMixture, points: jax.Array) -> jax.Array:
    """`[N, K]`: log p_z + log N(y_i | mu_z, Omega_z) of `points [N, M]`; -inf for empty components."""
    chex.assert_equal(points.shape[-1], mixture.means.shape[-1])

    def one(weight, mean, covariance):
        whitening, log_det = _whitening(covariance)
        white = _product(points - mean, whitening)
        size = points.shape[-1]
        return jnp.log(weight) - 0.5 * ((white**2).sum(-1) + size * jnp.log(2 * jnp.pi) + log_det)

    densities = jax.vmap(one, out_axes=1)(mixture.weights, mixture.means, mixture.covariances)
    return jnp.where(mixture.weights > 0, densities, -jnp.inf)


def responsibilities(mixture: GaussianMixture, points: jax.Array) -> jax.Array:
    """E-step: `[N, K]`, whose rows sum to 1; 0 for empty components."""
    return jax.nn.softmax(log_densities(mixture, points))


def maximise(
    points: jax.Array, weights: jax.Array, ridge: float | jax.Array, previous: GaussianMixture
) -> GaussianMixture:
    """M-step with `weights [N, K]`, the responsibilities (rows of zeros: points that do not count).

    A component whose weights sum to less than `EMPTY` keeps the previous mean and covariance.
    """
    counts = weights.sum(0)  # [K]
    alive = counts > EMPTY
    shares = weights / jnp.where(alive, counts, 1)
    means = _product(shares.T, points)
    size = points.shape[-1]

    def covariance(share, mean):
        centred = points - mean
        return _product((share[:, None] * centred).T, centred)

    spread = jax.vmap(covariance, (1, 0))(shares, means)
    floor = jnp.maximum(ridge, ROUNDING * jnp.trace(spread, axis1=1, axis2=2) / size)
    spread = spread + floor[:, None, None] * jnp.eye(size)
    kept = lambda new, old: jnp.where(alive.reshape(-1, *[1] * (new.ndim - 1)), new, old)
    counted = jnp.where(alive, counts, 0)
    return GaussianMixture(
        counted / jnp.maximum(counted.sum(), EMPTY), kept(means, previous.means), kept(spread, previous.covariances)
    )


def start(
    key: jax.Array, points: jax.Array, valid: jax.Array, num_components: int, used: jax.Array | float, ridge: float
) -> GaussianMixture:
    """An initial mixture: centres drawn as by k-means++, each with the points nearest to it; the key is consumed.

    Args:
        key: PRNG key.
        points: `[N, M]`.
        valid: `[N]` bool: the points that count.
        num_components: K.
        used: how many of them, the first ones, are in use; the others are empty.
        ridge: as `maximise` has it.
    """
    keys = jax.random.split(key, num_components)
    distances = lambda centre: ((points - centre) ** 2).sum(-1)

    def draw(nearest, key):
        # Where every point is a centre already, one is drawn again, whose component is empty. The first is uniform.
        logits = jnp.log(jnp.clip(nearest, jnp.finfo(jnp.float32).tiny, jnp.finfo(jnp.float32).max))
        centre = points[jax.random.categorical(key, jnp.where(valid, logits, -jnp.inf))]
        away = distances(centre)
        return jnp.minimum(nearest, away), (centre, away)

    _, (centres, away) = jax.lax.scan(draw, jnp.full(len(points), jnp.inf), keys)
    in_use = jnp.arange(num_components) < used
    nearest = jnp.where(in_use[:, None], away, jnp.inf).argmin(0)
    own = jax.nn.one_hot(nearest, num_components) * valid[:, None]
    unit = jnp.broadcast_to(jnp.eye(points.shape[-1]), (num_components, points.shape[-1], points.shape[-1]))
    return maximise(points, own, ridge, GaussianMixture(jnp.zeros(num_components), centres, unit))


def fit_mixture(
    mixture: GaussianMixture, points: jax.Array, valid: jax.Array, iterations: int, ridge: float
) -> GaussianMixture:
    """`iterations` of EM from a mixture, on the `valid [N]` of `points [N, M]`."""

    def iterate(_, mixture):
        return maximise(points, responsibilities(mixture, points) * valid[:, None], ridge, mixture)

    return jax.lax.fori_loop(0, iterations, iterate, mixture)


def regress(inputs: jax.Array, outputs: jax.Array, weights: jax.Array, ridge: float) -> LinearGaussians:
    """Least squares for each cluster, weighted by `weights [N, K]`: outputs `[N, A]` linear in inputs `[N, D]`.

    The ridge is on the inputs' second moments and on the covariances.
    """
    extended = _with_one(inputs)
    shares = weights / jnp.maximum(weights.sum(0), EMPTY)

    def one(share):
        weighted = (share[:, None] * extended).T
        whitening, _ = _whitening(_product(weighted, extended) + ridge * jnp.eye(extended.shape[-1]))
        coefficients = _product(whitening, _product(whitening.T, _product(weighted, outputs)))
        residuals = outputs - _product(extended, coefficients)
        covariance = _product((share[:, None] * residuals).T, residuals) + ridge * jnp.eye(outputs.shape[-1])
        return coefficients, _whitening(covariance)[0]

    return LinearGaussians(*jax.vmap(one, 1)(shares))


def squared_lengths(behaviours: LinearGaussians, inputs: jax.Array, outputs: jax.Array) -> jax.Array:
    """`[N, K]`: squared Mahalanobis distances of outputs `[N, A]` from the means at inputs `[N, D]`."""
    extended = _with_one(inputs)

    def one(coefficients, whitening):
        return (((outputs - extended @ coefficients) @ whitening) ** 2).sum(-1)

    return jax.vmap(one, out_axes=1)(behaviours.coefficients, behaviours.whitenings)


def _with_one(inputs: jax.Array) -> jax.Array:
    return jnp.concatenate([inputs, jnp.ones((*inputs.shape[:-1], 1))], axis=-1)


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    """In full float32, also on devices whose default is less precise: covariances are decomposed."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def _whitening(covariance: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`W [M, M]` with `W W^T` the covariance's inverse, and the log of its determinant."""
    if on_cpu():
        # LAPACK's batched calls share a thread pool that two programs can wait for for ever: see `networks.orthogonal`
        return _one_at_a_time(covariance)
    return _decomposed(covariance)


def _decomposed(covariance: jax.Array) -> tuple[jax.Array, jax.Array]:
    lower = jnp.linalg.cholesky(covariance)
    inverse = jax.scipy.linalg.solve_triangular(lower, jnp.eye(lower.shape[-1]), lower=True)
    return inverse.T, 2 * jnp.log(jnp.diagonal(lower)).sum()


_one_at_a_time = jax.custom_batching.sequential_vmap(_decomposed)
