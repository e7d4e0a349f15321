"""EM on a mixture of policies, R restarts of K policies at once: what its methods share.

    assign every trajectory to clusters at random
    repeat
        M-step: train each cluster's policy on its trajectories   (behaviour cloning)
        E-step: see how well each policy explains each trajectory, and assign accordingly
    of the R restarts take the one with the highest objective

`pg_kmeans`, `sorl` and `empo` are its methods: hard EM, soft EM, and soft EM with momentum. With log P(tau | k) the
sum of log pi_k(a_t | s_t) over a trajectory's steps, they are

    method      E-step                                    objective, summed over trajectories
    pg_kmeans   arg max_k log P(tau | k)                  max_k log P(tau | k)             (J)
    sorl        P(k | tau) = softmax_k log P(tau | k)     log (1 / K) sum_k P(tau | k)
    empo        Q <- mu Q + (1 - mu) P(k | tau)           log (1 / K) sum_k P(tau | k)

and every M-step maximises the sum of Q(tau, k) log P(tau | k), Q 0 or 1 where assignments are hard. Everything is
written for one seed; `training.fit` maps it over S seeds.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Self

import chex
import jax
import jax.numpy as jnp
from flax import struct

from trajclust_jax.clustering.clusterer import Clusterer, SupportPolicies
from trajclust_jax.clustering.policies import (
    Chunks,
    MarkovMapPolicy,
    Member,
    MixtureData,
    PlanningPolicy,
    PolicyKind,
    TransitionPolicy,
    harden,
    is_hard,
    policy_for,
)
from trajclust_jax.clustering.preprocessing import Preprocessing
from trajclust_jax.clustering.types import Clustering
from trajclust_jax.data import Trajectories
from trajclust_jax.data.transforms import ACTIONS_VERSION
from trajclust_jax.devices import BATCH, INNER, OUTER, shared
from trajclust_jax.networks import chosen, ensemblize, ensemblize_wide, member_keys
from trajclust_jax.training import Info

_SCORED = 0x73636F72  # the E-step's keys are folded from it, the M-step's from the iteration
MOVED = 1e-2  # a soft assignment has moved when a posterior changed by more than this


@struct.dataclass
class Prepared:
    """The data and their policy class; for choosing K, also the clusters and trajectories that a run uses."""

    data: MixtureData
    policies: Any = struct.field(pytree_node=False)
    unused: jax.Array | None = None  # [] int32: how many clusters, the last ones, are unused; None: all are in use
    trained: jax.Array | None = None  # [N'] bool: the others are held out of M-steps and objective; None: none is

    def on_host(self) -> "Prepared":
        """The steps in the host's memory: see `devices.within`."""
        return self.replace(data=self.data.on_host())


@struct.dataclass
class State:
    """State of R restarts of one seed. N' counts trajectories in `MixtureData`'s order, fillers included."""

    members: Member  # [R, K, ...]
    assignments: jax.Array  # [R, N'] int32, or posteriors [R, N', K] float32
    objective: jax.Array  # [R] float32, the method's (plus the log prior of tabular policies)
    settled: jax.Array  # [R] bool: this restart has converged and is frozen
    converged: jax.Array  # [] bool: all restarts have
    key: jax.Array


class PolicyMixture(Clusterer):
    """What EM methods on policies share: data, start, the EM iteration, result.

    A method is a dataclass with the fields `policy`, `policy_settings`, `restarts`, `tolerance` and `patience` (see
    `PGKmeans`), the number of policies that it starts with, and its E-step.
    """

    ACTIONS_VERSION: ClassVar[int] = ACTIONS_VERSION
    POLICY: ClassVar[PolicyKind] = "mlp"
    DEFAULTS: ClassVar[dict[str, dict[str, Any]]]  # by kind of policy: the settings that work, where they differ

    @classmethod
    def default(cls, num_clusters: int, policy: PolicyKind = POLICY, **overrides: Any) -> Self:
        """The settings that work for a policy class, with overrides."""
        return cls(num_clusters, policy=policy, **{**cls.DEFAULTS.get(policy, {}), **overrides})

    @property
    @abc.abstractmethod
    def initial_clusters(self) -> int:
        """K at the start."""

    @abc.abstractmethod
    def _e_step(self, members: Member, prepared: Prepared) -> tuple[jax.Array, jax.Array]:
        """Objective `[R]` of policies `[R, K, ...]`, and assignments as `State` holds them."""

    def members(self, trajectories: Trajectories) -> tuple[int, int]:
        """Restarts and clusters: see `training`."""
        del trajectories
        return self.restarts, self.initial_clusters

    # --- the method: prepare, start, result -----------------------------------------------------

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError if the policy class does not fit this data."""
        policy_for(self.policy, trajectories, **dict(self.policy_settings)).check(trajectories)

    def support_policies(self) -> SupportPolicies:
        """Markov policies that see observations as its own policies do."""
        if self.policy == "planner":
            return PlanningPolicy()
        extractor = dict(self.policy_settings).get("extractor")
        return TransitionPolicy() if extractor is None else MarkovMapPolicy(extractor=extractor)

    def preprocessing(self, trajectories: Trajectories) -> Preprocessing:
        """See `Clusterer`."""
        return policy_for(self.policy, trajectories, **dict(self.policy_settings)).preprocessing(trajectories)

    def prepare(
        self, trajectories: Trajectories, num_seeds: int = 1, preprocessing: Preprocessing | None = None
    ) -> Prepared:
        """The policy class for this data, and the data as the EM loop wants it (host-side, once)."""
        policies = policy_for(self.policy, trajectories, **dict(self.policy_settings))
        num_members = num_seeds * self.restarts * self.initial_clusters
        return Prepared(policies.prepare(trajectories, num_members, preprocessing), policies)

    def result(self, state: State, prepared: Prepared) -> Clustering:
        """The restart with the highest objective, scored on all trajectories (Algorithm 3)."""
        objective, assignments = state.objective, state.assignments
        if prepared.policies.scored_steps:  # scored on some of the steps until here: now on all
            objective, assignments = self._e_step(state.members, prepared)
        return self._scored(state.members, objective, assignments, prepared)

    def _scored(self, members: Member, objective: jax.Array, assignments: jax.Array, prepared: Prepared) -> Clustering:
        """The best restart's log-likelihoods and posterior; `objective` and `assignments` as the E-step gives them."""
        data = prepared.data
        best = jnp.argmax(jnp.where(jnp.isnan(objective), -jnp.inf, objective))  # a diverged one never wins
        members = jax.tree.map(lambda x: x[best], members)
        score = self._scorer(jax.tree.map(lambda x: x[None], members), prepared)
        scores = jax.lax.map(lambda chunk: score(chunk)[0].T, data.chunks)  # [C, n, K]
        log_likelihoods = data.in_data_unit(scores.reshape(-1, scores.shape[-1]), data.lengths[:, None])[data.rank]
        objectives = data.in_data_unit(objective, data.num_steps)
        assignments = assignments[:, data.rank]
        hard = harden(assignments)
        return Clustering(
            assignments=hard[best],
            posterior=jax.nn.softmax(log_likelihoods) if is_hard(assignments) else assignments[best],
            log_likelihoods=log_likelihoods,
            objective=objectives[best],
            restart=best.astype(jnp.int32),
            restart_assignments=hard,
            restart_objectives=objectives,
            params=members.params,
        )

    def assign(self, model: Any, data: Prepared) -> Clustering:
        """An E-step of trained policies `[K, ...]` on other trajectories."""
        members = Member(jax.tree.map(lambda x: x[None], data.policies.known(model, data.data)), None)
        return self._scored(members, *self._e_step(members, data), data)

    def _start(self, key: jax.Array, prepared: Prepared, previous: None) -> tuple[State, Info]:
        """Random assignments and fresh policies."""
        del previous
        num_clusters = self.initial_clusters
        num_used = num_clusters if prepared.unused is None else num_clusters - prepared.unused
        key, key_assign, key_members = jax.random.split(key, 3)
        data = prepared.data

        def assign(key):  # drawn in the dataset's order, whatever padding and chunks are
            return data.slots(jax.random.randint(key, (data.num_trajectories,), 0, num_used))

        assignments = jax.vmap(assign)(member_keys(key_assign, self.restarts))
        return self._begin(key, self._new_members(key_members, num_clusters, prepared), assignments, data)

    def _begin(self, key: jax.Array, members: Member, assignments: jax.Array, data: MixtureData) -> tuple[State, Info]:
        """The state before a phase's first iteration."""
        objective = jnp.full(self.restarts, -jnp.inf)
        state = State(members, assignments, objective, jnp.zeros(self.restarts, bool), jnp.bool_(False), key)
        return state, self._info(state, data)

    def _new_members(self, key: jax.Array, num_clusters: int, prepared: Prepared, paired: bool = False) -> Member:
        """`[R, K, ...]`; the key is consumed."""
        keys = restart_keys(key, paired, self.restarts, num_clusters)
        return ensemblize(lambda key: prepared.policies.init(key, prepared.data), 2)(keys)

    # --- one EM iteration -----------------------------------------------------------------------------

    def _m_step(
        self,
        state: State,
        prepared: Prepared,
        iteration: jax.Array,
        num_steps: jax.Array,
        paired: bool = False,
        decay: jax.Array | float = 0.0,
        counts: jax.Array | None = None,
    ) -> Member:
        """The policies after `num_steps` gradient steps on their clusters; those of settled restarts stay.

        `paired` as in `restart_keys`. `counts [R, U * A, K]` are those of the state's assignments, where the caller has
        taken them already.
        """
        keys = restart_keys(jax.random.fold_in(state.key, iteration), paired, self.restarts)
        before, policies, data = shared(state.members, OUTER, INNER), prepared.policies, prepared.data

        def fit(settled, members, given, key):
            def train(members):
                if counts is None:
                    return policies.fit(members, given, data, key, num_steps, decay)
                return policies.fit_counts(members, given, data, num_steps, decay)

            return chosen(settled, lambda members: members, train, members)

        given = trained_assignments(state, prepared) if counts is None else counts
        return ensemblize_wide(fit, 1)(state.settled, before, given, keys)

    def _iterate(
        self, state: State, prepared: Prepared, iteration: jax.Array, members: Member, **e_step: Any
    ) -> tuple[State, Info]:
        """E-step and convergence of all restarts (PG-Kmeans' Algorithm 1, lines 6-7), with the M-step's `members`.

        `e_step` is what the method's own E-step takes beside the policies.
        """
        data = prepared.data
        scored = self._seen(prepared, state.key, iteration)
        objective, assignments = self._e_step(members, scored, **e_step)

        moved = _moved(assignments, state.assignments) & (data.lengths > 0)
        gain = (objective - state.objective) / data.num_steps
        flat = ~moved.any(1) | (jnp.abs(gain) < self.tolerance)
        settled = state.settled | (flat & (iteration + 1 >= self.patience))
        new = state.replace(
            members=members, assignments=assignments, objective=objective, settled=settled, converged=settled.all()
        )

        def keep(new, old):  # a settled restart does not change, whatever the others do
            return jnp.where(state.settled.reshape(-1, *[1] * (new.ndim - 1)), old, new)

        new = new.replace(
            members=jax.tree.map(keep, members, state.members),
            assignments=keep(assignments, state.assignments),
            objective=keep(objective, state.objective),
        )
        return new, self._info(new, data, moved & ~state.settled[:, None])

    def _seen(self, prepared: Prepared, key: jax.Array, iteration: jax.Array) -> Prepared:
        """What the E-step of an iteration looks at: fresh random steps of long trajectories, else all."""
        steps = prepared.policies.scored_steps
        if not steps:
            return prepared
        key = jax.random.fold_in(jax.random.fold_in(key, _SCORED), iteration)
        return prepared.replace(data=prepared.data.sampled(key, steps))

    def _soft_e_step(
        self,
        members: Member,
        prepared: Prepared,
        posterior: Callable[[Chunks, jax.Array], jax.Array] | None = None,
        shift: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """The mixture's log-likelihood `[R]` under a uniform prior (tabular: plus the log prior), and posteriors
        `[R, N', K]`: of a chunk `posterior(chunk, scores [R, K, n])`, by default the softmax of its scores,
        from which `shift [R, K]` is subtracted for each step."""
        data, policies = prepared.data, prepared.policies
        score = self._scorer(members, prepared)

        def one_chunk(chunk):
            scores = score(chunk)  # [R, K, n]
            marginal = jax.nn.logsumexp(scores, axis=1) - jnp.log(scores.shape[1])
            marginal = jnp.where(chunk.lengths > 0, marginal, 0)
            if posterior is not None:
                return marginal, posterior(chunk, scores)
            compared = scores if shift is None else scores - shift[..., None] * chunk.stand_for
            return marginal, jax.nn.softmax(compared, axis=1)

        marginal, soft = jax.lax.map(one_chunk, data.chunks)  # [C, R, n], [C, R, K, n]
        prior = ensemblize(policies.log_prior, 2)(members.params).sum(1)
        soft = jnp.moveaxis(soft, 0, 2)  # [R, K, C, n]
        soft = soft.reshape(*soft.shape[:2], -1).swapaxes(1, 2)
        return marginal.sum((0, 2)) + prior, soft

    def _mean_step(self, members: Member, prepared: Prepared) -> jax.Array:
        """`[R, K]`: each policy's mean log-likelihood of a step of the data; 0 where that is not finite.

        After short M-steps on a random partition, policies that started alike differ more in how good they are in
        general than in whose actions they have learned: E-steps may subtract this (`shift`).
        """
        score = self._scorer(members, prepared)
        totals = jax.lax.map(lambda chunk: score(chunk).sum(-1), prepared.data.chunks).sum(0)
        return jnp.where(jnp.isfinite(totals), totals / prepared.data.num_steps, 0)

    def _info(self, state: State, data: MixtureData, moved: jax.Array | None = None) -> Info:
        """What the training loop shows and records; `[R]` each, assignments in the dataset's order.

        `moved [R, N']` tells whose assignment an E-step changed; None: there was none, and nobody moved.
        """
        moved = jnp.zeros(state.assignments.shape[:2], bool) if moved is None else moved
        num_clusters = jax.tree.leaves(state.members)[0].shape[1]
        valid = data.lengths > 0
        assignments = harden(state.assignments)
        used = jax.vmap(lambda a: jnp.zeros(num_clusters, bool).at[a].max(valid).sum())(assignments)
        return {
            "objective": data.in_data_unit(state.objective / data.num_steps, 1.0),
            "changed": moved.sum(1),
            "used_clusters": used,
            "assignments": assignments[:, data.rank],
        }

    def _scorer(self, members: Member, prepared: Prepared) -> Callable[[Chunks], jax.Array]:
        """Log-likelihoods `[R, K, n]` of a chunk; -inf for unused clusters."""
        params, shape = shared(members.params, OUTER, INNER), jax.tree.leaves(members)[0].shape[:2]
        score = prepared.policies.scorer(params, prepared.data)
        used = None if prepared.unused is None else clusters_in_use(members, prepared)

        def checked(chunk: Chunks) -> jax.Array:
            scores = score(chunk.replace(lengths=shared(chunk.lengths, BATCH)))
            chex.assert_shape(scores, (*shape, *chunk.lengths.shape))
            scores = shared(scores, OUTER, INNER, BATCH)
            return scores if used is None else jnp.where(used[:, None], scores, -jnp.inf)

        return checked


def clusters_in_use(members: Member, prepared: Prepared) -> jax.Array:
    """`[K]` bool: the clusters in use."""
    num_clusters = jax.tree.leaves(members)[0].shape[1]
    return jnp.arange(num_clusters) < num_clusters - (0 if prepared.unused is None else prepared.unused)


def trained_assignments(state: State, prepared: Prepared) -> jax.Array:
    """The state's assignments; a trajectory that is held out is in no cluster."""
    if prepared.trained is None:
        return state.assignments
    num_clusters = jax.tree.leaves(state.members)[0].shape[1]
    return jnp.where(prepared.trained, state.assignments, num_clusters)


def restart_keys(key: jax.Array, paired: bool, *shape: int) -> jax.Array:
    """Keys of `shape`, R restarts first; if `paired`, the same ones for every restart. The key is consumed."""
    return jnp.broadcast_to(member_keys(key, *shape[1:]), shape) if paired else member_keys(key, *shape)


def _moved(new: jax.Array, old: jax.Array) -> jax.Array:
    """`[R, N']` bool: whose assignment changed."""
    return new != old if is_hard(new) else jnp.abs(new - old).max(-1) > MOVED
