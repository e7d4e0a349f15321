"""SORL's clustering: soft EM on a mixture of policies, with a hard assignment at the end.

Mao et al., "Stylized Offline Reinforcement Learning" (ICLR 2024), the clustering step only, as in the PG-Kmeans paper's
baseline (appendix B.3).

    assign every trajectory to one of K clusters at random
    repeat
        M-step: train each policy on all trajectories, weighted by their posteriors
        E-step: posteriors of the trajectories, under a uniform prior over clusters
    assign each trajectory to its largest posterior

Data, start, the EM iteration and the result are `mixture`'s.
"""

import dataclasses
from typing import Any, ClassVar, Literal, get_args

import chex
import jax
import jax.numpy as jnp

from trajclust_jax.clustering.mixture import PolicyMixture, Prepared, State
from trajclust_jax.clustering.policies import Chunks, Member, PolicyKind, membership
from trajclust_jax.training import Info, Phase
from trajclust_jax.validation import check_at_least, check_one_of

Posterior = Literal["product", "sum"]


@dataclasses.dataclass(frozen=True)
class Sorl(PolicyMixture):
    """Soft EM. `Sorl.default(k, policy)` gives the settings that work for a policy class."""

    num_clusters: int
    """K: policies, and clusters."""
    posterior: Posterior = "product"
    """The E-step: P(k | tau) in proportion to the `product` of the steps' pi_k(a_t | s_t), as in SORL's paper, or to
    their `sum`, as in its release."""
    policy: PolicyKind = "mlp"
    """Policy class: a table, an MLP of the observation, or a GRU over the observations so far."""
    restarts: int = 1
    """R: independent runs, the best of which is chosen by the objective; the baseline has one."""
    iterations: int = 30
    """Largest number of EM iterations."""
    first_steps: int = 5
    """Gradient steps of the first M-step."""
    steps: int = 25
    """Gradient steps of every later M-step; parameters and Adam's state stay warm."""
    tolerance: float = 1e-4
    """A run has converged when no posterior moves, or when the objective per step changes by less than this."""
    patience: int = 15
    """Iterations before a run may count as converged."""
    policy_settings: tuple[tuple[str, Any], ...] = ()
    """Further settings of the policy class, e.g. `(("batch_size", 64),)`."""

    VERSION: ClassVar[int] = 1  # of the algorithm: part of a cell's identity; raise it when results change

    DEFAULTS: ClassVar[dict[str, dict[str, Any]]] = {"tabular": {}, "mlp": {}, "gru": {}}

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_clusters", "restarts", "iterations", "first_steps", "steps")
        check_at_least(self, 0, "tolerance", "patience")
        check_one_of("posterior", self.posterior, get_args(Posterior))
        check_one_of("policy", self.policy, self.DEFAULTS)

    @property
    def initial_clusters(self) -> int:
        """K."""
        return self.num_clusters

    def phases(self) -> tuple[Phase, ...]:
        """EM."""
        return (Phase("em", self._start, self._em_step, self.iterations, light_start=True),)

    def _start(self, key: jax.Array, prepared: Prepared, previous: None) -> tuple[State, Info]:
        """A random partition, as posteriors of 0 and 1."""
        state, info = super()._start(key, prepared, previous)
        return state.replace(assignments=membership(state.assignments, self.num_clusters)), info

    def _em_step(self, state: State, prepared: Prepared, iteration: jax.Array) -> tuple[State, Info]:
        """M-step, then E-step."""
        steps = jnp.where(iteration == 0, self.first_steps, self.steps)
        return self._iterate(state, prepared, iteration, self._m_step(state, prepared, iteration, steps))

    def _e_step(self, members: Member, prepared: Prepared) -> tuple[jax.Array, jax.Array]:
        """The mixture's log-likelihood `[R]` (tabular: plus the log prior), and posteriors `[R, N', K]`."""
        if self.posterior == "product":
            return self._soft_e_step(members, prepared)
        # The sum's posterior is the mean's: the number of steps cancels.
        probability = prepared.policies.scorer(members.params, prepared.data, of=jnp.exp)

        def by_sums(chunk: Chunks, scores: jax.Array) -> jax.Array:
            likely = probability(chunk)
            chex.assert_equal_shape([likely, scores])
            total = likely.sum(1, keepdims=True)
            return jnp.where(total > 0, likely / jnp.where(total > 0, total, 1), 1 / self.num_clusters)

        return self._soft_e_step(members, prepared, by_sums)
