"""EMPO's clustering: soft EM on a mixture of policies, with momentum on the posteriors.

Park, Cho and Sung, "EMPO: A Clustering-Based On-Policy Algorithm for Offline Reinforcement Learning", Algorithm 1.

    train each policy on one of K random groups for N_b epochs                   phase "bias" (heuristic III, Eq. 8)
    train all policies on everything for N_p epochs                              phase "pretrain" (II, Eq. 7)
    for N_E epochs                                                               phase "em"
        E-step: Q <- mu Q + (1 - mu) posteriors, Q = 1 / K at first              (I, Eq. 5)
        M-step: train each policy on all trajectories, weighted by Q             (Eq. 6)
    assign each trajectory to its largest posterior under the final policies     (Eqs. 3 and 9)

A classifier q(z | s) is trained alongside: which clusters visit a state (section 3.3).

Data, the M-step, the EM iteration and the result are `mixture`'s.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
from flax import struct

from trajclust_jax.clustering.mixture import PolicyMixture, Prepared, State
from trajclust_jax.clustering.policies import (
    CodedData,
    CountedData,
    DenseData,
    Member,
    NetworkPolicy,
    PolicyKind,
    at_position,
    draw,
    membership,
)
from trajclust_jax.clustering.types import Clustering
from trajclust_jax.devices import shared_rows
from trajclust_jax.networks import PolicyNetwork, ensemblize, ensemblize_wide, member_keys
from trajclust_jax.training import Info, Phase
from trajclust_jax.validation import check_at_least, check_one_of, check_share

_CLASSIFIER = 0x636C6173  # its keys are folded from it
CLASSIFIED = 256  # transitions that the classifier sees in a gradient step; of data that are counts it sees all
CLASSIFIED_AT_ONCE = 2**16  # observations, where a trained one is asked: what bounds its memory

Loss = Callable[[Any], jax.Array]  # of the classifier's parameters: []


@struct.dataclass
class EmpoState(State):
    """The mixture's state, whose assignments are Q, and the classifiers."""

    classifier: Member | None  # [R, ...]; None beside policies that are tables, or that see maps from a place on them


@dataclasses.dataclass(frozen=True)
class EmpoEM(PolicyMixture):
    """Soft EM with momentum. The defaults are the paper's (Table 4, didactic)."""

    num_clusters: int
    """K: policies, and clusters."""
    policy: PolicyKind = "mlp"
    """Policy class: a table, an MLP of the observation, or a GRU over the observations so far."""
    restarts: int = 1
    """R: independent runs, the best of which is chosen by the objective; the paper has one."""
    bias_epochs: int = 3
    """N_b: epochs on random groups (heuristic III)."""
    pretrain_epochs: int = 20
    """N_p: epochs on everything (heuristic II)."""
    iterations: int = 60
    """N_E: epochs of EM, with an E-step before each."""
    momentum: float = 0.9
    """mu: the share of Q that an E-step keeps (heuristic I); 0: none."""
    centred: bool = False
    """The first E-step subtracts each policy's mean log-likelihood over all steps (not in the paper): among policies
    that start alike, one may otherwise claim everything."""
    least_steps: int = 1
    """Least gradient steps an epoch, for data with fewer minibatches: what matters is steps, not epochs."""
    tolerance: float = 0.0
    """A run has converged when no Q moves, or when the objective per step changes by less than this."""
    patience: int = 60
    """Epochs of EM before a run may count as converged."""
    policy_settings: tuple[tuple[str, Any], ...] = ()
    """Further settings of the policy class, e.g. `(("features", (64, 64, 64)), ("learning_rate", 3e-4))`."""

    VERSION: ClassVar[int] = 1  # of the algorithm: part of a cell's identity; raise it when results change

    DEFAULTS: ClassVar[dict[str, dict[str, Any]]] = {
        "tabular": {"pretrain_epochs": 0},  # exact M-steps do not depend on where they start: all tables would be equal
        "mlp": {},
        "gru": {},
    }

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_clusters", "restarts", "iterations", "least_steps")
        check_at_least(self, 0, "bias_epochs", "pretrain_epochs", "tolerance", "patience")
        check_share(self, "momentum")
        check_one_of("policy", self.policy, self.DEFAULTS)

    @property
    def initial_clusters(self) -> int:
        """K."""
        return self.num_clusters

    def phases(self) -> tuple[Phase, ...]:
        """Bias, pretrain, EM; phases without epochs are left out, and the first of the others starts the run."""
        bias = Phase("bias", self._start, self._train, self.bias_epochs, light_start=True)
        pretrain = Phase("pretrain", self._spread, self._train, self.pretrain_epochs, light_start=True)
        em = Phase("em", self._first_e_step, self._em_step, self.iterations)
        return tuple(phase for phase in (bias, pretrain, em) if phase.budget)

    def _start(self, key: jax.Array, prepared: Prepared, previous: None) -> tuple[EmpoState, Info]:
        """Random groups, fresh policies and classifiers."""
        state, info = super()._start(key, prepared, previous)
        classifier, policies = None, prepared.policies
        if isinstance(policies, NetworkPolicy) and isinstance(prepared.data, CountedData | CodedData | DenseData):

            def init(key):
                params = self._classifier.init(key, prepared.data.example)
                return Member(params, policies.optimizer.init(params))

            keys = member_keys(jax.random.fold_in(state.key, _CLASSIFIER), self.restarts)
            classifier = ensemblize(init, 1)(keys)
        fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(State)}
        fields["assignments"] = membership(state.assignments, self.num_clusters)
        return EmpoState(**fields, classifier=classifier), info

    def _spread(self, key: jax.Array, prepared: Prepared, previous: EmpoState | None) -> tuple[EmpoState, Info]:
        """Q = 1 / K (Eq. 7)."""
        state = self._start(key, prepared, None)[0] if previous is None else previous.replace(key=key)
        state = state.replace(assignments=jnp.full_like(state.assignments, 1 / self.num_clusters))
        return state, self._info(state, prepared.data)

    def _first_e_step(self, key: jax.Array, prepared: Prepared, previous: EmpoState | None) -> tuple[EmpoState, Info]:
        """Q^(1), from the policies so far and Q^(0) = 1 / K."""
        state = self._spread(key, prepared, previous)[0]
        scored = self._seen(prepared, state.key, self.iterations)  # an iteration that there will not be
        shift = self._mean_step(state.members, scored) if self.centred else None
        objective, posterior = self._soft_e_step(state.members, scored, shift=shift)
        state = state.replace(objective=objective, assignments=self._averaged(posterior, state.assignments))
        return state, self._info(state, prepared.data)

    def _train(self, state: EmpoState, prepared: Prepared, iteration: jax.Array) -> tuple[EmpoState, Info]:
        """An epoch of M-steps weighted by an unchanged Q."""
        state = self._epoch(state, prepared, iteration)
        return state, self._info(state, prepared.data)

    def _em_step(self, state: EmpoState, prepared: Prepared, iteration: jax.Array) -> tuple[EmpoState, Info]:
        """An epoch of M-steps weighted by Q, then the E-step for the next epoch."""
        trained = self._epoch(state, prepared, iteration)
        return self._iterate(
            state.replace(classifier=trained.classifier), prepared, iteration, trained.members, before=state.assignments
        )

    def _e_step(
        self, members: Member, prepared: Prepared, before: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The mixture's log-likelihood `[R]` (tabular: plus the log prior), and posteriors `[R, N', K]` (Eq. 3),
        averaged with those `before`."""
        objective, posterior = self._soft_e_step(members, prepared)
        return objective, posterior if before is None else self._averaged(posterior, before)

    def _averaged(self, posterior: jax.Array, before: jax.Array) -> jax.Array:
        """`[R, N', K]`: Eq. 5."""
        return self.momentum * before + (1 - self.momentum) * posterior

    def _epoch(self, state: EmpoState, prepared: Prepared, iteration: jax.Array) -> EmpoState:
        """Policies and classifiers after as many gradient steps as an epoch has."""
        data, policies, counts = prepared.data, prepared.policies, None
        steps = jnp.maximum(policies.epoch(data), self.least_steps)
        if isinstance(data, CountedData):  # once, for policies and classifiers
            count = lambda soft: policies.counts(soft, self.num_clusters, data)
            counts = ensemblize_wide(count, 1)(state.assignments)  # [R, U * A, K]
        members = self._m_step(state, prepared, iteration, steps, counts=counts)
        state = state.replace(members=members)
        if state.classifier is None:
            return state
        key = jax.random.fold_in(jax.random.fold_in(state.key, _CLASSIFIER), iteration)
        keys = member_keys(key, self.restarts)
        train = lambda settled, *args: self._classify(*args, prepared, jnp.where(settled, 0, steps))
        given = state.assignments if counts is None else counts
        classifier = ensemblize_wide(train, 1)(state.settled, state.classifier, given, keys)
        return state.replace(classifier=classifier)

    # --- the classifier -------------------------------------------------------------------------------

    @property
    def _classifier(self) -> PolicyNetwork:
        """q(z | s): a network of the policies' size."""
        features = dict(self.policy_settings).get("features", NetworkPolicy.features)
        return PolicyNetwork(self.num_clusters, discrete=True, features=tuple(features))

    @functools.partial(jax.jit, static_argnums=0)
    def classify(self, classifier: Any, inputs: jax.Array) -> jax.Array:
        """`[B, K]` float32: q(z | s) of network inputs `[B, D]`, by one run's parameters (`Clustering.classifier`)."""
        one = lambda row: self._classifier.apply(classifier, row[None]).probs[0]
        return jax.lax.map(one, inputs, batch_size=CLASSIFIED_AT_ONCE)

    def _classify(
        self, member: Member, given: jax.Array, key: jax.Array, prepared: Prepared, num_steps: jax.Array
    ) -> Member:
        """One classifier after `num_steps` Adam steps on KL(Q || q), the mean over transitions.

        `given` is Q `[N', K]`; of data that are counts, those that Q gives the clusters, `[U * A, K]`.
        """
        loss = self._counted_loss if isinstance(prepared.data, CountedData) else self._drawn_loss
        loss = loss(given, prepared)

        def step(i, member):
            return prepared.policies.update(loss(jax.random.fold_in(key, i)), member, jnp.bool_(True))

        return jax.lax.fori_loop(0, num_steps, step, member)

    def _counted_loss(self, counts: jax.Array, prepared: Prepared) -> Callable[[jax.Array], Loss]:
        """Of all transitions, by how often each cluster's have been at each row of the codebook."""
        visits = counts.reshape(-1, prepared.data.action_size, self.num_clusters).sum(1)  # [U, K]
        share = visits / visits.sum()

        def loss(params):  # KL but for Q's entropy, which is no function of them
            return -(share * jax.nn.log_softmax(self._classifier.apply(params, prepared.data.table).logits)).sum()

        return lambda key: loss

    def _drawn_loss(self, soft: jax.Array, prepared: Prepared) -> Callable[[jax.Array], Loss]:
        """Of transitions drawn uniformly by a key, which is consumed."""
        data = prepared.data
        order = jnp.arange(data.num_slots)
        ends = jnp.cumsum(data.lengths)

        def drawn(key):
            position = shared_rows(draw(key, (CLASSIFIED,), 0, ends[-1]))
            n, t = at_position(position, order, ends, data)
            inputs = data.inputs_at(n, t)
            return lambda params: kl_loss(self._classifier.apply(params, inputs).logits, soft[n])

        return drawn

    # --- the result -----------------------------------------------------------------------------------

    def result(self, state: EmpoState, prepared: Prepared) -> Clustering:
        """The restart with the highest objective, by the final policies' own posteriors on all steps."""
        objective, posterior = self._e_step(state.members, prepared)
        found = self._scored(state.members, objective, posterior, prepared)
        classifier = None if state.classifier is None else state.classifier.params
        return found.replace(classifier=jax.tree.map(lambda x: x[found.restart], classifier))


def kl_loss(logits: jax.Array, target: jax.Array) -> jax.Array:
    """`[]`: the mean of KL(target || softmax(logits)) over `[B, K]` each."""
    chex.assert_equal_shape([logits, target])
    entropy = jax.scipy.special.xlogy(target, target).sum(-1)
    return (entropy - (target * jax.nn.log_softmax(logits)).sum(-1)).mean()
