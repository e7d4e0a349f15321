"""C^4, a plug-in for any learner with critics ("Less Is More: Clustered Cross-Covariance Control for Offline RL").

The variance of the TD error near the data holds the cross-covariance of g = dQ(x)/dx and g' = dQ'(x')/dx', where Q' is
the target and x' = (s', a') follows x = (s, a) in the data; minimising the error makes it grow (Theorem 1).

    every 200 gradient steps:
        a Gaussian mixture of K components on y = [g', g], from the one before                      (Algorithm 1)
    each gradient step:
        z ~ p_z, a minibatch drawn by r_iz: of one cluster                                          (Theorem 2)
        critics   the learner's loss + lambda (||C_z||_F^2 + beta tr(C_z)^2),
                  C_z = Cov(g', g) of the minibatch                                                 (Eq. 14)

**What the weight means.** ||C||_F^2 grows with the fourth power of Q's scale, the TD loss with the second: a weight of
one task is another's ruin. Here Eq. 14 holds of values in units of their own standard deviation sigma over the data
(measured whenever clusters are): the term added is lambda R / sigma^2. Of values times 10 it is the same share of the
TD loss. How large a share depends on the task, still: on g's size beside Q's, and on how far the TD loss falls.

**Divergences** (section 6), an option: the value that a TD target bootstraps from is less by
sigma (1 - gamma) sum_z p_z (alpha chi^2(pi || nu_z) + beta KL(pi || nu_z)) at s', where nu_z is a Gaussian whose mean
is linear in the observation, fitted to cluster z, and pi one of its covariance about the learner's action (Proposition
3, Eq. 18). Backed up, they are Eq. 15's. Squared distances count as far as they exceed what the data's own actions have
on average, and not beyond `FARTHEST`.

What the paper leaves open: a transition without an action recorded after it (the last of its trajectory) has no g',
does not enter C and is clustered as if its g' were the mean; clusters are the first critic's, the penalty is both
critics'; a minibatch's z is drawn by the clusters' shares of the transitions scored, so that over all draws these are
drawn alike.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct

from trajclust_jax.clustering import PGKmeans, Sorl
from trajclust_jax.clustering.clusterer import Clusterer
from trajclust_jax.clustering.gaussian import (
    GaussianMixture,
    LinearGaussians,
    fit_mixture,
    regress,
    responsibilities,
    squared_lengths,
    standardised,
    start,
)
from trajclust_jax.clustering.suited import LONG_CONTINUOUS
from trajclust_jax.clustering.types import Clustering
from trajclust_jax.learners.learner import ActorCritic, Backup, LearnerState, PlugIn
from trajclust_jax.learners.sampling import Batch, Sampler, Uniform, View
from trajclust_jax.training import Info
from trajclust_jax.validation import check_at_least, check_one_of

FEWEST = 0.01  # a cluster with a smaller share of the transitions is left out: its own go to the others
REDUCED = 16  # dimensions that penultimate features are projected to before they are clustered
FARTHEST = 6.0  # a squared distance's excess: Pearson's divergence is its exponential
RENEWAL = 0x636C7573  # keeps the keys of clusterings apart from others of a run
_TRAJECTORIES = {"pg_kmeans": PGKmeans, "sorl": Sorl}


class Pairs(NamedTuple):
    """What is clustered of n transitions, and whose covariance is penalised."""

    following: jax.Array  # [..., n, M]: g', of the target
    current: jax.Array  # [..., n, M]: g


class Decomposition(NamedTuple):
    """The cross-covariance of g' and g by clusters: `total = shares @ within + between` (Eq. 9)."""

    total: jax.Array  # [M, M]: C
    within: jax.Array  # [K, M, M]: C_z
    between: jax.Array  # [M, M]: Cov(mu'_Z, mu_Z)
    shares: jax.Array  # [K]: p_z


class Seen(NamedTuple):
    """A clustering of n transitions."""

    rows: jax.Array  # [n] int32: of all data
    valid: jax.Array  # [n] bool: whether there is one
    batch: Batch  # [n, ...]
    pairs: Pairs  # [n, M]
    values: jax.Array  # [n]: Q
    points: jax.Array  # [n, 2M]: y, standardised
    mixture: GaussianMixture
    soft: jax.Array  # [n, K]: responsibilities, 0 for clusters that have hardly any


@struct.dataclass
class Clusters:
    """The state of the sampler."""

    mixture: GaussianMixture
    begun: jax.Array  # [] bool: there was a clustering
    rows: jax.Array  # [n] int32: the transitions that minibatches are drawn from
    cumulative: jax.Array  # [K, n]: sums of their responsibilities
    unit: jax.Array  # []: what the penalty is multiplied by, to be in the unit of the TD loss
    sigma: jax.Array  # []: the standard deviation of Q over them
    measured: Info  # what was found of them, by name
    posterior: jax.Array | None = None  # [N, K]: of the trajectories, where those are clustered
    behaviours: LinearGaussians | None = None  # the clusters', where divergences from them count


@dataclasses.dataclass(frozen=True)
class C4(PlugIn):
    """Settings; the defaults are the paper's (section E.7) or, where it is silent, found by trying.

    One cluster and weight 0 are the learner itself, bit for bit; weight 0 is its sampling alone, `clustered=False` the
    penalty alone. The weights that the paper prints are of penultimate features, whose scale is not Q's.
    """

    clusters: int = 5
    """K."""
    weight: float = 0.1
    """lambda, of values whose standard deviation is 1."""
    trace_weight: float = 0.0
    """beta."""
    clustered: bool = True
    """Minibatches are of one cluster each; else uniform."""
    cluster_by: Literal["gradients", "features", "pg_kmeans", "sorl"] = "gradients"
    """What is clustered: gradients in (s, a); penultimate features in their place, as the paper's runs have them, in
    the penalty, too; or trajectories, by PG-Kmeans' or SORL's policies, once, before the training."""
    clusters_used: float = 0.0
    """At most so many of the K clusters, 0: all of them; for sweeps of K."""
    recluster_every: int = 200
    """Gradient steps between two clusterings."""
    recluster_wait: float = 1.0
    """Times that: for sweeps of the frequency, over multiples of a `recluster_every` that divides them all."""
    pool_size: int = 4_096
    """Transitions that are scored at a clustering, and that minibatches are drawn from until the next."""
    cluster_points: int = 2_048
    """Of those, what the mixture is fitted to."""
    em_iterations: int = 10
    """Of the mixture, at a clustering, from the last one."""
    ridge: float = 1e-4
    """On the covariances of the mixture, whose points are standardised."""
    kl_weight: float = 0.0
    """beta of section 6, of values whose standard deviation is 1."""
    pearson_weight: float = 0.0
    """alpha of section 6, likewise."""

    ASKS = ("pairs",)
    FIXED = ("kl_weight", "pearson_weight")  # whether they are 0 decides what is computed

    def check(self) -> None:
        super().check()
        check_at_least(self, 1, "clusters", "recluster_every", "pool_size", "cluster_points")
        check_at_least(self, 1, "em_iterations")
        check_at_least(self, 0, "weight", "trace_weight", "clusters_used", "ridge")
        check_at_least(self, 0, "kl_weight", "pearson_weight")
        if self.clusters_used % 1 or self.clusters_used > self.clusters:
            raise ValueError(f"clusters_used is {self.clusters_used:g}: give a whole number, at most {self.clusters}")
        if self.recluster_wait % 1 or self.recluster_wait < 1:
            raise ValueError(f"recluster_wait is {self.recluster_wait:g}: give a whole number, at least 1")
        if self.clusters_used and self.cluster_by in _TRAJECTORIES:
            raise ValueError(f"clusters_used is of clusters of transitions: with {self.cluster_by} set clusters")
        check_one_of("cluster_by", self.cluster_by, ("gradients", "features", *_TRAJECTORIES))
        if self.cluster_by == "features" and not hasattr(self, "penultimate"):
            raise ValueError("cluster_by is features: this learner does not say what its critic's last layer sees")
        if not isinstance(super().sampler, Uniform):
            raise ValueError("this learner has minibatches of its own, in whose place those of clusters would come")
        if self._diverges and not isinstance(self, ActorCritic):
            raise ValueError("kl_weight, pearson_weight: this learner values no action of a policy at the next state")
        if self.cluster_by in _TRAJECTORIES and super().before() is not None:
            raise ValueError(f"cluster_by is {self.cluster_by}: this learner clusters trajectories itself")

    # --- clusters of trajectories ---------------------------------------------------------------------

    def before(self) -> Any:
        """The clustering of trajectories, where those are clustered."""
        if self.cluster_by not in _TRAJECTORIES:
            return super().before()
        algorithm: type[Clusterer] = _TRAJECTORIES[self.cluster_by]
        return algorithm.default(self.clusters, **LONG_CONTINUOUS[algorithm, "mlp"])

    def informed(self, state: LearnerState, found: Clustering) -> LearnerState:
        """A state whose sampler knows them."""
        if self.cluster_by not in _TRAJECTORIES:
            return super().informed(state, found)
        return state.replace(sampler=state.sampler.replace(posterior=found.posterior))

    # --- what the plug-in changes -------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        drawn = self.clusters, self.clustered, self.pool_size
        return OneCluster(*drawn, self.recluster_every, self._reduced, self._diverges)

    @property
    def _diverges(self) -> bool:
        return self.kl_weight > 0 or self.pearson_weight > 0

    def backup(self, params: dict[str, Any], targets: dict[str, Any], batch: Batch, key: Any) -> Backup:
        """The learner's, less divergences from the clusters' behaviours (Eq. 18); the key is the learner's."""
        found = super().backup(params, targets, batch, key)
        if not self._diverges:
            return found
        known = batch.sampler
        lengths = squared_lengths(known.behaviours, batch.next_observations, found.actions)  # [B, K]
        excess = jnp.clip(lengths - self.action_size, 0, FARTHEST)  # of the data's own actions the mean is A
        divergence = self.kl_weight * excess / 2 + self.pearson_weight * jnp.expm1(excess)
        totals = known.cumulative[:, -1]
        penalty = known.sigma * (1 - self.discount) * divergence @ (totals / totals.sum())
        return found._replace(values=found.values - penalty)

    def critic_loss(
        self, critics: Any, params: dict[str, Any], targets: dict[str, Any], batch: Batch, *key: Any
    ) -> tuple[jax.Array, Info]:
        """The learner's, and the penalty (Eqs. 13 and 14); the key, where there is one, is the learner's."""
        if batch.sampler is None:
            raise ValueError("C4 learns from recorded trajectories: train it with Offline")
        loss, info = super().critic_loss(critics, params, targets, batch, *key)
        info = info | batch.sampler.measured
        if isinstance(self.weight, int | float) and self.weight == 0:  # a swept one is an array
            return loss, info
        covariance = cross_covariance(self.pairs(critics, params, targets, batch), batch.paired)  # [2, M, M]
        penalty = batch.sampler.unit * cross_penalty(covariance, self.trace_weight)
        return loss + self.weight * penalty.sum(), info | {"critic/penalty": penalty.mean()}

    # --- what is clustered ----------------------------------------------------------------------------------

    @property
    def _reduced(self) -> int | None:
        """Dimensions of g and g' that are clustered; None: all."""
        return REDUCED if self.cluster_by == "features" else None

    def pairs(self, critics: Any, params: dict[str, Any], targets: dict[str, Any], batch: Batch) -> Pairs:
        """`[E, B, M]` of E critics; g' carries no gradient, and is 0 where there is none."""
        of = lambda critics, *inputs: (
            self.penultimate(critics, *inputs)
            if self.cluster_by == "features"
            else self.valued_gradients(critics, params, batch, *inputs)
        )
        following = jax.lax.stop_gradient(of(targets[self.CRITIC], batch.next_observations, batch.next_actions))
        return Pairs(jnp.where(batch.paired[:, None], following, 0), of(critics, batch.observations, batch.actions))

    def scored(self, state: LearnerState, batch: Batch) -> tuple[Pairs, jax.Array]:
        """Of the first critic its pairs `[B, M]` and values `[B]`."""
        critic, target = (self.first_critic(x[self.CRITIC]) for x in (state.params, state.targets))
        pairs = self.pairs(critic, state.params, {self.CRITIC: target}, batch)
        values = self.valued(critic, state.params, batch, batch.observations, batch.actions)
        return jax.tree.map(lambda x: x[0], pairs), values[0]

    def unit(self, pairs: Pairs, values: jax.Array, valid: jax.Array) -> jax.Array:
        """`[]`: of the penalty, which is of the fourth power of g's unit, in that of the TD loss: 1 / sigma^2.

        Features have a scale of their own: they are measured in their own variance.
        """
        variance = jnp.maximum(jnp.var(values, where=valid), jnp.finfo(jnp.float32).tiny)
        if self.cluster_by != "features":
            return 1 / variance
        spread = jnp.var(pairs.current, axis=0, where=valid[:, None]).sum()
        return variance / jnp.maximum(spread, jnp.finfo(jnp.float32).eps) ** 2


@dataclasses.dataclass(frozen=True)
class OneCluster:
    """Draws each minibatch from one cluster, or uniformly and only looks at the clusters, which it renews."""

    clusters: int
    clustered: bool
    pool_size: int
    period: int
    reduced: int | None
    with_behaviours: bool = False

    def init(self, view: View) -> Clusters:
        observation_size, action_size = view.scaling.mean.shape[-1], view.data.batch.actions.shape[-1]
        size = self.reduced or observation_size + action_size
        n, k, m = self._pool_size(view), self.clusters, 2 * size
        behaviours = LinearGaussians(
            jnp.zeros((k, observation_size + 1, action_size)), jnp.zeros((k, action_size, action_size))
        )
        unit = jnp.broadcast_to(jnp.eye(m), (k, m, m))
        return Clusters(
            mixture=GaussianMixture(jnp.zeros(k), jnp.zeros((k, m)), unit),
            begun=jnp.bool_(False),
            rows=jnp.zeros(n, jnp.int32),
            cumulative=jnp.ones((k, n)),
            unit=jnp.float32(0),
            sigma=jnp.float32(0),
            behaviours=behaviours if self.with_behaviours else None,
            measured=dict.fromkeys(MEASURED, jnp.float32(0)),
        )

    def renew(self, state: Clusters, learner: C4, learner_state: LearnerState, view: View, step: jax.Array) -> Clusters:
        """A clustering, where one is due."""
        new = self._clustered(state, learner, learner_state, view, step)
        wait = jnp.round(learner.recluster_wait).astype(jnp.int32) * self.period
        due = ~state.begun | (step % wait == 0)
        return jax.tree.map(lambda new, old: jnp.where(due, new, old), new, state)

    def rows(self, state: Clusters, key: jax.Array, size: int, view: View) -> jax.Array:
        if not self.clustered or self.clusters == 1:
            return Uniform().rows((), key, size, view)
        key_cluster, key_rows = jax.random.split(key)
        totals = state.cumulative[:, -1]
        cluster = jax.random.categorical(key_cluster, jnp.log(totals))
        sums = state.cumulative[cluster]
        places = jnp.searchsorted(sums, jax.random.uniform(key_rows, (size,)) * sums[-1], side="right")
        return state.rows[jnp.minimum(places, len(sums) - 1)]

    def _pool_size(self, view: View) -> int:
        return min(self.pool_size, len(view.data.batch.rewards))

    def seen(self, state: Clusters, learner: C4, learner_state: LearnerState, view: View, step: jax.Array) -> Seen:
        """A clustering of transitions drawn anew for the `step`-th gradient step, from the last one's mixture."""
        key = jax.random.fold_in(jax.random.fold_in(learner_state.key, RENEWAL), step)
        key_pool, key_points, key_start = jax.random.split(key, 3)
        rows, valid = self._pool(key_pool, view)
        batch = view.batch(rows)
        pairs, values = learner.scored(learner_state, batch)
        points = self._points(pairs, batch.paired, valid)
        if state.posterior is not None:
            mixture, soft = state.mixture, state.posterior[batch.trajectory]
        else:
            mixture = self._mixture(state, learner, key_points, key_start, points, valid)
            soft = responsibilities(mixture, points)
        return Seen(rows, valid, batch, pairs, values, points, mixture, _without_few(soft * valid[:, None]))

    def _clustered(
        self, state: Clusters, learner: C4, learner_state: LearnerState, view: View, step: jax.Array
    ) -> Clusters:
        """The state after a clustering, and what is measured of it."""
        rows, valid, batch, pairs, values, _, mixture, soft = self.seen(state, learner, learner_state, view, step)
        found = decompose(pairs, soft * batch.paired[:, None])
        behaviours = None
        if self.with_behaviours:
            behaviours = regress(batch.observations, batch.actions, soft, learner.ridge)
        return state.replace(
            mixture=mixture,
            begun=jnp.bool_(True),
            rows=rows,
            cumulative=jnp.cumsum(soft.T, axis=1),
            unit=learner.unit(pairs, values, valid),
            sigma=jnp.std(values, where=valid),
            behaviours=behaviours,
            measured=measured(found, pairs, values, soft, valid, batch.paired),
        )

    def _pool(self, key: jax.Array, view: View) -> tuple[jax.Array, jax.Array]:
        """`[n]` transitions, all where there are no more, and which of them are any."""
        n = self._pool_size(view)
        every = jnp.arange(n)
        drawn = jax.random.randint(key, (n,), 0, jnp.maximum(view.count, 1))
        few = view.count <= n
        rows = jnp.where(few, jnp.minimum(every, jnp.maximum(view.count, 1) - 1), drawn)
        return view.first + rows, jnp.where(few, every < view.count, True)

    def _points(self, pairs: Pairs, paired: jax.Array, valid: jax.Array) -> jax.Array:
        """`[n, 2M]`: y, standardised; where there is no g', its mean."""
        current, following = standardised(pairs.current, valid), standardised(pairs.following, valid & paired)
        if self.reduced is not None:
            # drawn once for all: the same at every clustering, which begins with the last one's mixture
            directions = jax.random.normal(jax.random.key(0), (current.shape[-1], self.reduced))
            current, following = standardised(current @ directions, valid), standardised(following @ directions, valid)
        return jnp.concatenate([following, current], axis=-1)

    def _mixture(
        self,
        state: Clusters,
        learner: C4,
        key_points: jax.Array,
        key_start: jax.Array,
        points: jax.Array,
        valid: jax.Array,
    ) -> GaussianMixture:
        """The mixture of some of the points, from the last one; the keys are consumed."""
        if learner.cluster_points < len(points):
            chosen = jax.random.randint(key_points, (learner.cluster_points,), 0, jnp.maximum(valid.sum(), 1))
            points, valid = points[chosen], valid[chosen]
        used = jnp.where(learner.clusters_used > 0, learner.clusters_used, self.clusters)
        begun = start(key_start, points, valid, self.clusters, used, learner.ridge)
        begun = jax.tree.map(lambda old, new: jnp.where(state.begun, old, new), state.mixture, begun)
        return fit_mixture(begun, points, valid, learner.em_iterations, learner.ridge)


def _without_few(soft: jax.Array) -> jax.Array:
    """Responsibilities `[n, K]` without those of clusters that have hardly any; rows that do not count stay zeros.

    What is of no other cluster at all goes to the largest.
    """
    shares = soft.sum(0) / jnp.maximum(soft.sum(), 1)
    kept = soft * (shares >= FEWEST)
    total = kept.sum(1, keepdims=True)
    largest = jax.nn.one_hot(shares.argmax(), soft.shape[1])
    counted = soft.sum(1, keepdims=True) > 0
    return jnp.where(total > 1e-6, kept / jnp.maximum(total, 1e-6), largest) * counted


def cross_covariance(pairs: Pairs, counted: jax.Array) -> jax.Array:
    """`[..., M, M]`: Cov(g', g) over the pairs `[..., B, M]` that are `counted [B]` (Eq. 13)."""
    chex.assert_equal_shape([pairs.following, pairs.current])
    weight = counted[:, None].astype(pairs.current.dtype)
    total = weight.sum()
    centred = lambda x: weight * (x - (weight * x).sum(-2, keepdims=True) / jnp.maximum(total, 1))
    return centred(pairs.following).swapaxes(-1, -2) @ centred(pairs.current) / jnp.maximum(total - 1, 1)


def cross_penalty(covariance: jax.Array, trace_weight: float | jax.Array) -> jax.Array:
    """`[...]`: ||C||_F^2 + beta tr(C)^2 of `[..., M, M]` (Eq. 13)."""
    return (covariance**2).sum((-2, -1)) + trace_weight * jnp.trace(covariance, axis1=-2, axis2=-1) ** 2


def decompose(pairs: Pairs, soft: jax.Array) -> Decomposition:
    """Eq. 9 for pairs `[n, M]` and responsibilities `[n, K]`; rows of zeros do not count."""
    total = jnp.maximum(soft.sum(), 1e-6)
    sums = soft.sum(0)  # [K]
    shares = sums / total
    within_cluster = soft / jnp.where(sums > 0, sums, 1)
    mean = lambda x: soft.sum(1) @ x / total
    of_clusters = lambda x: within_cluster.T @ x  # [K, M]
    following, current = of_clusters(pairs.following), of_clusters(pairs.current)

    def covariance(weight, following_mean, current_mean):
        return (weight[:, None] * (pairs.following - following_mean)).T @ (pairs.current - current_mean)

    within = jax.vmap(covariance, (1, 0, 0))(within_cluster, following, current)
    between = (shares[:, None] * (following - mean(pairs.following))).T @ (current - mean(pairs.current))
    overall = covariance(soft.sum(1) / total, mean(pairs.following), mean(pairs.current))
    return Decomposition(overall, within, between, shares)


# What a clustering measures, of the first critic: the effective number of clusters; Theorem 1's A = tr Cov(g'),
# B = tr Cov(g) and C = tr Cov(g', g), divided by M as in section E.6, C within clusters, too; squared Frobenius norms
# of C, within and between clusters; and the mean and variance of Q.
MEASURED = (
    "clusters/effective",
    "clusters/a",
    "clusters/b",
    "clusters/c",
    "clusters/c_within",
    "clusters/norm",
    "clusters/norm_within",
    "clusters/norm_between",
    "clusters/value",
    "clusters/variance",
)


def measured(
    found: Decomposition, pairs: Pairs, values: jax.Array, soft: jax.Array, valid: jax.Array, paired: jax.Array
) -> Info:
    """The numbers of `MEASURED`; those of g' are of the `paired [n]` transitions."""
    size = pairs.current.shape[-1]
    counted = soft.sum(1) > 0
    spread = lambda x, counted: jnp.var(x, axis=0, where=counted[:, None]).sum() / size
    trace = lambda x: jnp.trace(x, axis1=-2, axis2=-1) / size
    norm = lambda x: (x**2).sum((-2, -1))
    numbers = (
        (soft.sum(0) / jnp.maximum(soft.sum(), 1e-6) >= FEWEST).sum().astype(jnp.float32),
        spread(pairs.following, counted & paired),
        spread(pairs.current, counted),
        trace(found.total),
        found.shares @ trace(found.within),
        norm(found.total),
        found.shares @ norm(found.within),
        norm(found.between),
        jnp.mean(values, where=valid),
        jnp.var(values, where=valid),
    )
    return dict(zip(MEASURED, numbers, strict=True))
