"""PG-Kmeans: hard EM on a mixture of policies.

Hu, Wang and Du, "Policy-Based Trajectory Clustering in Offline RL", Algorithms 1, 3 and 4.

    assign every trajectory to one of K = k* + extra clusters at random
    repeat                                                        phase "em"
        M-step: train each cluster's policy on its trajectories   (behaviour cloning)
        E-step: assign each trajectory to the policy that makes its actions likeliest
    merge clusters that lose least, until k* are left             phase "merge"
    train fresh policies on the merged clusters, then EM again    phase "polish" (ours, not in the paper)
    let clusters compete for what they explain worst, polish      phase "reconsider" (ours, an option)
    of the R restarts take the one with the highest J             (Best-of-N)

Data, start, the EM iteration and the result are `mixture`'s.
"""

import dataclasses
import math
import operator
from typing import Any, ClassVar, get_args

import jax
import jax.numpy as jnp

from trajclust_jax.clustering.merging import MergeRule, merge_clusters
from trajclust_jax.clustering.mixture import (
    PolicyMixture,
    Prepared,
    State,
    clusters_in_use,
    restart_keys,
    trained_assignments,
)
from trajclust_jax.clustering.policies import Chunks, Member, PolicyKind
from trajclust_jax.networks import ensemblize, ensemblize_wide
from trajclust_jax.training import Info, Phase
from trajclust_jax.validation import check_at_least, check_one_of

_POOLED = 0x706F6F6C  # the pooled policy's keys are folded from it


@dataclasses.dataclass(frozen=True)
class PGKmeans(PolicyMixture):
    """Policy-Guided K-means. `PGKmeans.default(k, policy)` gives the settings that work for a policy class."""

    num_clusters: int
    """k*: clusters after merging."""
    extra_clusters: int = 2
    """Over-parameterisation: EM starts with k* + this many clusters (B.4.2)."""
    restarts: int = 5
    """R: independent restarts, the best of which is chosen by J (B.4.1)."""
    policy: PolicyKind = "mlp"
    """Policy class: a table, an MLP of the observation, a GRU over the observations so far, or value iteration on
    the map observed."""
    iterations: int = 20
    """Largest number of EM iterations."""
    first_steps: int = 5
    """Gradient steps of the first M-step: long ones would freeze the random partition."""
    steps: int = 25
    """Gradient steps of every later M-step; parameters and Adam's state stay warm."""
    pooled_restarts: int = 0
    """Number of restarts in which every cluster starts from one policy that was trained on all trajectories, and whose
    first E-step subtracts each cluster's mean log-likelihood (not in the paper): for policies that are nearly the
    same."""
    pooled_steps: int = 300
    """Gradient steps that train this policy."""
    merging: MergeRule = "least_loss"
    """How clusters are merged; `printed` is Algorithm 4 to the letter (worse: see `merging`)."""
    polish_iterations: int = 6
    """EM iterations after merging, with fresh policies; 0 leaves the polish out, as in the paper."""
    polish_first_steps: int = 200
    """Gradient steps of the polish's first M-step, on the merged clusters."""
    polish_steps: int = 50
    """Gradient steps of its later M-steps."""
    paired_polish: bool = False
    """The polishes of all restarts draw the same random numbers, so that restarts that agree have equal J, and the
    learning rate of the last M-step falls to 0 (not in the paper): J then tells clusterings apart rather than luck in
    training."""
    reconsidered: float = 0.0
    """After the polish, fresh policies of ALL clusters are also trained on this share of the trajectories, those that
    their own policies explain worst; the clusters then compete for them, and the polish starts again from the result
    (not in the paper). Far from its cluster's other trajectories a policy is arbitrary: only one that was trained on a
    trajectory can claim it."""
    tolerance: float = 1e-4
    """A restart has converged when no assignment changes, or when J per step changes by less than this."""
    patience: int = 8
    """Iterations of a phase before a restart may count as converged: when assignments first stop changing, network
    policies are not yet trained. A polish shorter than this runs its whole budget."""
    policy_settings: tuple[tuple[str, Any], ...] = ()
    """Further settings of the policy class, e.g. `(("batch_size", 64),)`."""

    VERSION: ClassVar[int] = 1  # of the algorithm: part of a cell's identity; raise it when results change

    DEFAULTS: ClassVar[dict[str, dict[str, Any]]] = {
        "tabular": {"iterations": 100, "tolerance": 0.0, "patience": 0, "polish_iterations": 50},
        "mlp": {},
        # with long M-steps, a history policy infers which expert acts, and absorbs mixtures
        "gru": {"steps": 15, "iterations": 18, "polish_first_steps": 100, "polish_steps": 30},
        # on the maps it is for, over-clustering hurts
        "planner": {"extra_clusters": 0, "first_steps": 10, "polish_iterations": 0},
    }

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_clusters", "restarts", "iterations", "first_steps", "steps")
        check_at_least(self, 0, "extra_clusters", "polish_iterations", "polish_first_steps", "polish_steps")
        check_at_least(self, 0, "tolerance", "patience", "pooled_restarts", "pooled_steps", "reconsidered")
        if self.reconsidered > 1 or (self.reconsidered and not self.polish_iterations):
            raise ValueError(f"reconsidered is {self.reconsidered}: it must be at most 1, and 0 without a polish")
        if self.pooled_restarts > self.restarts:
            raise ValueError(f"pooled_restarts is {self.pooled_restarts}: there are {self.restarts} restarts")
        check_one_of("merging", self.merging, get_args(MergeRule))
        check_one_of("policy", self.policy, self.DEFAULTS)

    @property
    def initial_clusters(self) -> int:
        """K = k* + extra."""
        return self.num_clusters + self.extra_clusters

    def phases(self) -> tuple[Phase, ...]:
        """EM, merge, polish, reconsider; a phase that the settings make empty is left out."""
        em = Phase("em", self._start, self._em_step, self.iterations, light_start=True)
        merge = Phase("merge", self._merge, None, 0)
        polish = Phase("polish", self._restart, self._polish_step, self.polish_iterations, light_start=True)
        again = Phase("reconsider", self._reconsider, self._polish_step, self.polish_iterations)
        wanted = (True, self.extra_clusters, self.polish_iterations, self.reconsidered)
        return tuple(phase for phase, want in zip((em, merge, polish, again), wanted, strict=True) if want)

    # --- em ---------------------------------------------------------------------------------------------

    def _start(self, key: jax.Array, prepared: Prepared, previous: None) -> tuple[State, Info]:
        """Random assignments and fresh policies; in the last `pooled_restarts`, the pooled policy in every cluster."""
        state, info = super()._start(key, prepared, previous)
        if not self.pooled_restarts:
            return state, info
        data, policies = prepared.data, prepared.policies
        key_init, key_fit = jax.random.split(jax.random.fold_in(state.key, _POOLED))
        one = jax.tree.map(lambda x: x[None], policies.init(key_init, data))
        pooled = policies.fit(one, jnp.zeros(data.num_slots, jnp.int32), data, key_fit, self.pooled_steps)
        first = self.restarts - self.pooled_restarts
        members = jax.tree.map(lambda own, shared: own.at[first:].set(shared[0]), state.members, pooled)
        return state.replace(members=members), info

    def _em_step(self, state: State, prepared: Prepared, iteration: jax.Array) -> tuple[State, Info]:
        """M-step, then E-step."""
        steps = jnp.where(iteration == 0, self.first_steps, self.steps)
        members = self._m_step(state, prepared, iteration, steps)
        if not self.pooled_restarts:
            return self._iterate(state, prepared, iteration, members)
        pooled = jnp.arange(self.restarts) >= self.restarts - self.pooled_restarts
        return self._iterate(state, prepared, iteration, members, centred=pooled & (iteration == 0))

    def _e_step(
        self, members: Member, prepared: Prepared, centred: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """J `[R]` (Eq. 3; tabular: plus the log prior), and each trajectory's likeliest policy, `[R, N']` int32; where
        `centred [R]`, by more than the policy's mean over all steps."""
        shift = None
        if centred is not None:
            mean = lambda: jnp.where(centred[:, None], self._mean_step(members, prepared), 0)
            zero = lambda: jnp.zeros(jax.tree.leaves(members)[0].shape[:2])
            shift = jax.lax.cond(centred.any(), mean, zero)
        assigned, best = self._explained(members, None, prepared, shift)
        if prepared.trained is not None:
            best = jnp.where(prepared.trained.reshape(-1, 1, best.shape[-1]), best, 0)
        prior = ensemblize(prepared.policies.log_prior, 2)(members.params).sum(1)
        assigned = assigned.swapaxes(0, 1).reshape(assigned.shape[1], -1)
        return best.sum((0, 2)) + prior, assigned

    def _explained(
        self, members: Member, assignments: jax.Array | None, prepared: Prepared, shift: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Assignments and each trajectory's log-likelihood under its policy, both `[C, R, n]`.

        Assignments are the given ones, `[R, N']`, or each trajectory's likeliest policy, after `shift [R, K]` was taken
        off for each step.
        """
        data = prepared.data
        score = self._scorer(members, prepared)
        shape = (jax.tree.leaves(members)[0].shape[0], *data.chunks.lengths.shape)
        given = None if assignments is None else assignments.reshape(shape).swapaxes(0, 1)

        def one_chunk(inputs: tuple[Chunks, Any]):
            chunk, assigned = inputs
            scores = score(chunk)  # [R, K, n]
            if assigned is None:
                compared = scores if shift is None else scores - shift[..., None] * chunk.stand_for
                assigned = compared.argmax(1).astype(jnp.int32)
            return assigned, jnp.take_along_axis(scores, assigned[:, None], axis=1)[:, 0]

        return jax.lax.map(one_chunk, (data.chunks, given))

    # --- merge ------------------------------------------------------------------------------------------

    def _merge(self, key: jax.Array, prepared: Prepared, previous: State) -> tuple[State, Info]:
        """Algorithm 4: merge to k* clusters; assignments follow, policies of merged clusters are dropped."""
        del key
        data, policies = prepared.data, prepared.policies
        num_clusters = jax.tree.leaves(previous.members)[0].shape[1]
        score = policies.scorer(previous.members.params, data)
        grouped = (
            trained_assignments(previous, prepared).reshape(self.restarts, *data.chunks.lengths.shape).swapaxes(0, 1)
        )

        def add_chunk(totals, chunk_and_assigned):
            chunk, assigned = chunk_and_assigned  # assigned: [R, n]
            member = jax.nn.one_hot(assigned, num_clusters)
            return totals + jnp.einsum("rnj,rin->rji", member, score(chunk), precision="highest"), None

        totals = jnp.zeros((self.restarts, num_clusters, num_clusters))
        totals, _ = jax.lax.scan(add_chunk, totals, (data.chunks, grouped))
        used = clusters_in_use(previous.members, prepared)
        target, kept = jax.vmap(lambda s: merge_clusters(s, self.num_clusters, self.merging, used))(totals)
        members = jax.tree.map(lambda x: jax.vmap(lambda x, i: x[i])(x, kept), previous.members)
        assignments = jax.vmap(lambda t, a: t[a])(target, previous.assignments)
        policy = jnp.take_along_axis(kept, target, axis=1)  # [R, K], that each old cluster has now
        objective = jnp.take_along_axis(totals, policy[..., None], axis=2).sum((1, 2))
        objective += ensemblize(policies.log_prior, 2)(members.params).sum(1)
        settled = jnp.zeros(self.restarts, bool)
        state = State(members, assignments, objective, settled, jnp.bool_(False), previous.key)
        return state, self._info(state, data)

    # --- polish -----------------------------------------------------------------------------------------

    def _restart(self, key: jax.Array, prepared: Prepared, previous: State) -> tuple[State, Info]:
        """Fresh policies for the clusters found so far."""
        key, key_members = jax.random.split(key)
        assignments = self._numbered_alike(previous.assignments)
        members = self._new_members(key_members, self.num_clusters, prepared, self.paired_polish)
        return self._begin(key, members, assignments, prepared.data)

    def _numbered_alike(self, assignments: jax.Array) -> jax.Array:
        """`[R, N']`: if polishes are paired, restarts that agree also number their clusters alike."""
        if not self.paired_polish:
            return assignments
        return jax.vmap(lambda each: by_first_member(each, self.num_clusters))(assignments)

    def _polish_step(self, state: State, prepared: Prepared, iteration: jax.Array) -> tuple[State, Info]:
        """The same of a polish."""
        steps = jnp.where(iteration == 0, self.polish_first_steps, self.polish_steps)
        last = iteration == self.polish_iterations - 1
        decay = jnp.where(last, 1.0 * self.paired_polish, 0.0)
        members = self._m_step(state, prepared, iteration, steps, self.paired_polish, decay)
        return self._iterate(state, prepared, iteration, members)

    # --- reconsider -------------------------------------------------------------------------------------

    def _reconsider(self, key: jax.Array, prepared: Prepared, previous: State) -> tuple[State, Info]:
        """The worst explained trajectories go to the clusters that explain them best once all were trained on them."""
        data, policies, paired = prepared.data, prepared.policies, self.paired_polish
        by_restart = lambda values: values.swapaxes(0, 1).reshape(self.restarts, -1)  # [C, R, n] -> [R, N']
        explained = by_restart(self._explained(previous.members, previous.assignments, prepared)[1])
        per_step = jnp.where(data.lengths > 0, explained / jnp.maximum(data.lengths, 1), jnp.inf)
        worst = jax.lax.top_k(-per_step, math.ceil(self.reconsidered * data.num_trajectories))[1]
        contested = jax.vmap(lambda n: jnp.zeros(data.num_slots, bool).at[n].set(True))(worst)  # [R, N']

        key, key_rivals, key_fit = jax.random.split(key, 3)
        key, key_members = jax.random.split(key)
        # Initial parameters take long to compile and are quick to draw: one program for both.
        new = lambda key: self._new_members(key, self.num_clusters, prepared, paired)
        both = jax.vmap(new)(jnp.stack([key_rivals, key_members]))
        rivals, fresh = (jax.tree.map(operator.itemgetter(i), both) for i in (0, 1))
        before = self._numbered_alike(previous.assignments)
        weights = jax.nn.one_hot(trained_assignments(previous.replace(assignments=before), prepared), self.num_clusters)
        weights = jnp.where(contested[..., None], weights.max(-1, keepdims=True), weights)  # none of what is held out
        # With weights, a batch is drawn from all trajectories and not from the cluster's: K times the steps.
        steps = self.num_clusters * self.polish_first_steps
        m_step = lambda members, weights, key: policies.fit(members, weights, data, key, steps, 1.0)
        rivals = ensemblize_wide(m_step, 1)(rivals, weights, restart_keys(key_fit, paired, self.restarts))
        claimed = by_restart(self._explained(rivals, None, prepared)[0])

        after = jnp.where(contested, claimed, before)
        state, _ = self._begin(key, fresh, self._numbered_alike(after), data)
        return state, self._info(state, data, (after != before) & (data.lengths > 0))


def by_first_member(assignments: jax.Array, num_clusters: int) -> jax.Array:
    """`[N']` int32: clusters numbered by their first trajectories, so that equal clusterings are equal arrays."""
    first = jnp.full(num_clusters, assignments.size).at[assignments].min(jnp.arange(assignments.size))
    return jnp.argsort(jnp.argsort(first))[assignments].astype(assignments.dtype)
