"""Do the data support a clustering? Held-out actions under its policies, under ONE policy, and under random clusters.

J of the trajectories that policies were trained on cannot tell: it grows with K even where one policy made everything,
and with clusters by region or by chance. A clustering that is right predicts better on trajectories that its policies
have not seen, too, and on steps by which the trajectory's cluster was not chosen:

    split the trajectories in two folds, and each trajectory's steps in two halves (its quarters in turn)
    for each fold:  train ONE policy on the other fold, until it predicts best              phase "one"
                    from it, until they predict best: a policy for each cluster, one for    phase "compare"
                    each random cluster of the same size, and the one policy itself
    gain: log-likelihood of each half under the clusters' policies, weighted by how they explain the OTHER half, minus
        that under one policy
    agreement: NMI of the clustering and of the clusters that explain the trajectories of the other fold best

No labels. Policies are Markov networks, whatever the method's were.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.clustering.clusterer import Clusterer, SupportPolicies
from trajclust_jax.clustering.policies import Member, StepData, TransitionPolicy
from trajclust_jax.clustering.policies.data import StepChunks
from trajclust_jax.clustering.types import Clustering
from trajclust_jax.data import Trajectories
from trajclust_jax.metrics import nmi
from trajclust_jax.networks import ensemblize, ensemblize_wide, member_keys
from trajclust_jax.training import Callback, Info, Phase, fit

SUPPORT_VERSION = 3  # raise it when what is warned of changes
ERRORS = 3.0  # standard errors that a gain must exceed
AGREEMENT = 0.9  # below it some trajectories are likely in a wrong cluster
LEAST = 4  # trajectories of which some can be held out
UNTOLD = f"not checked against the data: of fewer than {LEAST} trajectories none can be held out"
_PARTS = 4  # parts of a trajectory, which belong to its two halves in turn
FOUND, ONE, RANDOM = range(3)


@dataclasses.dataclass(frozen=True)
class Support:
    """Gains in nats a step, with their standard errors over trajectories, and how well clusters can be told apart."""

    over_one: float  # of the clusters' policies over one policy
    over_one_error: float
    over_random: float  # and over the policies of random clusters
    over_random_error: float
    agreement: float  # NMI in [0, 1] of the clustering and the assignment by policies that did not see the trajectory

    @property
    def supported(self) -> bool:
        """Whether the clusters' policies predict better than both, beyond chance."""
        return self.over_one > ERRORS * self.over_one_error and self.over_random > ERRORS * self.over_random_error

    @property
    def warning(self) -> str | None:
        """One line where the clustering is not supported, or where it is and trajectories are hard to tell apart."""
        if self.supported and self.agreement >= AGREEMENT:
            return None
        if self.supported:
            return (
                "some trajectories may be in a wrong cluster: policies that did not see them put them in these "
                f"clusters with an NMI of {self.agreement:.3f}; more or longer trajectories would tell"
            )
        if self.over_one == self.over_one_error == 0:  # nothing was kept that training the clusters' policies changed
            return (
                "not supported by the data: policies for the clusters predict held-out actions no better at any time "
                "than the one policy that they begin as; if the clusters are right, more or longer trajectories would "
                "show it"
            )
        worse_than_one = not self.over_one > ERRORS * self.over_one_error
        beside = "under one policy" if worse_than_one else "under those of random clusters"
        gain = (self.over_one, self.over_one_error) if worse_than_one else (self.over_random, self.over_random_error)
        return (
            "not supported by the data: held-out actions are not clearly likelier under the clusters' policies than {} "
            "({:+.3f} ± {:.3f} nats a step)".format(beside, *gain)
        )


@struct.dataclass
class HeldOut:
    """Each fold's trajectories, every one as its two halves: F = 2 folds of M slots, in C chunks of n."""

    chunks: StepChunks  # [F, 2, C, n, ...]
    slots: jax.Array  # [F, M] int32: where they stand in `MixtureData`'s order; N' for fillers


@struct.dataclass
class Prepared:
    """The data, what is held out, and who belongs where."""

    data: StepData
    held_out: HeldOut
    fold: jax.Array  # [N'] int32: 0 or 1; 2 for fillers
    groups: jax.Array  # [3, N'] int32: clusters found; one for all; random ones of the sizes of those found
    policies: Any = struct.field(pytree_node=False)


@struct.dataclass
class State:
    """State of one run: F = 2 folds, G groups: one policy for all, later `FOUND`, `ONE` and `RANDOM`."""

    members: Member  # [F * G, K, ...]
    best: Member  # as they were when they predicted best
    explained: jax.Array  # [G, N'] float32: log-likelihood of each held-out trajectory then
    told: jax.Array  # [G, N'] int32: the group's policy that each held-out trajectory was likeliest under then
    converged: jax.Array  # [] bool: only the budget ends a phase
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The method that `training.fit` trains; call `support`."""

    assignments: np.ndarray  # [N] int32
    num_clusters: int
    policies: Any  # a policy class
    steps: tuple[int, ...] = (8, 12, 20, 40, 80, 140)
    """Gradient steps of each iteration of the two phases, after which the prediction of held-out actions is scored:
    few at first, as on little data policies predict best soon."""

    def prepare(self, trajectories: Trajectories, num_seeds: int = 1) -> Prepared:
        """Folds and random clusters are drawn by a fixed generator (host-side)."""
        data = self.policies.prepare(trajectories, num_seeds * 6 * self.num_clusters)
        rng, count = np.random.default_rng(0), trajectories.num_trajectories
        fold, drawn = np.zeros(count, np.int32), rng.permutation(count)
        drawn = drawn[np.argsort(self.assignments[drawn], kind="stable")]  # both folds have half of every cluster
        fold[drawn[1::2]] = 1
        groups = [self.assignments, np.zeros(count), rng.permutation(self.assignments)]
        in_order = lambda values: np.asarray(data.slots(jnp.asarray(values, jnp.int32)))
        fold = np.where(np.asarray(data.lengths) > 0, in_order(fold), 2)
        return Prepared(data, _held_out(data, fold), fold, np.stack(list(map(in_order, groups))), self.policies)

    def phases(self) -> tuple[Phase, ...]:
        """One policy for each fold; then clusters' policies, which begin as that one."""
        one = Phase("one", self._start, self._step, len(self.steps), light_start=True)
        return one, Phase("compare", self._branch, self._step, len(self.steps), light_start=True)

    def result(self, state: State, prepared: Prepared) -> tuple[jax.Array, jax.Array]:
        """`[3, N]`: each trajectory's log-likelihood under policies that did not see it; `[N]`: its cluster by them."""
        return state.explained[:, prepared.data.rank], state.told[FOUND, prepared.data.rank]

    def _start(self, key: jax.Array, prepared: Prepared, previous: None) -> tuple[State, Info]:
        del previous
        key, key_members = jax.random.split(key)
        init = lambda key: prepared.policies.init(key, prepared.data)
        members = ensemblize(init, 2)(member_keys(key_members, 2, 1))
        nothing = jnp.full((1, prepared.data.num_slots), -jnp.inf)
        return State(members, members, nothing, jnp.zeros(nothing.shape, jnp.int32), jnp.bool_(False), key), {}

    def _branch(self, key: jax.Array, prepared: Prepared, previous: State) -> tuple[State, Info]:
        del prepared
        spread = lambda x: jnp.repeat(jnp.repeat(x, 3, 0), self.num_clusters, 1)
        members = jax.tree.map(spread, previous.best)
        explained, told = jnp.repeat(previous.explained, 3, 0), jnp.repeat(previous.told, 3, 0)
        return State(members, members, explained, told, jnp.bool_(False), key), {}

    def _step(self, state: State, prepared: Prepared, iteration: jax.Array) -> tuple[State, Info]:
        data, policies = prepared.data, prepared.policies
        num_groups, num_clusters = len(state.explained), jax.tree.leaves(state.members)[0].shape[1]
        groups = prepared.groups if num_groups > 1 else prepared.groups[ONE, None]
        given = jnp.where(prepared.fold == jnp.arange(2)[:, None, None], num_clusters, groups)  # held out: in none
        given = given.reshape(2 * num_groups, data.num_slots)
        keys = jnp.broadcast_to(jax.random.fold_in(state.key, iteration), len(given))
        steps = jnp.array(self.steps)[iteration]
        m_step = lambda members, given, key: policies.fit(members, given, data, key, steps)
        members = ensemblize_wide(m_step, 1)(state.members, given, keys)

        explained, told = self._explained(members, num_groups, prepared)
        better = explained.sum(1) > state.explained.sum(1)  # [G]

        def keep(new, old):
            return jnp.where(jnp.tile(better, 2).reshape(-1, *[1] * (new.ndim - 1)), new, old)

        best = jax.tree.map(keep, members, state.best)
        explained = jnp.where(better[:, None], explained, state.explained)
        told = jnp.where(better[:, None], told, state.told)
        return state.replace(members=members, best=best, explained=explained, told=told), {}

    def _explained(self, members: Member, num_groups: int, prepared: Prepared) -> tuple[jax.Array, jax.Array]:
        """By policies trained on the other fold: each trajectory's halves, predicted from its other half `[G, N']`; the
        policy that explains both best `[G, N']`."""

        num_clusters = jax.tree.leaves(members)[0].shape[1]
        params = jax.tree.map(lambda x: x.reshape(2, num_groups, *x.shape[1:]), members.params)

        def of_fold(inputs):
            params, held_out = inputs
            score = prepared.policies.scorer(params, prepared.data)
            chunks = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), held_out.chunks)  # [2 * C, ...]
            scores = jnp.moveaxis(jax.lax.map(score, chunks), 0, 2)  # [G, K, 2 * C, n]
            return scores.reshape(num_groups, num_clusters, 2, -1)

        scores = jax.lax.map(of_fold, (params, prepared.held_out))  # [F, G, K, 2, M]
        halves = jnp.zeros((2, num_groups, num_clusters, prepared.data.num_slots))
        for slots, values in zip(prepared.held_out.slots, scores, strict=True):
            halves = halves.at[..., slots].set(jnp.moveaxis(values, 2, 0), mode="drop")
        one = jnp.arange(num_groups) == min(ONE, num_groups - 1)  # has one policy that is trained, the first
        untrained = one[:, None] & (jnp.arange(halves.shape[2]) > 0)
        halves = jnp.where(untrained[..., None], -jnp.inf, halves)
        predicted = jax.nn.logsumexp(jax.nn.log_softmax(halves[::-1], axis=2) + halves, axis=2)
        return predicted.sum(0), halves.sum(0).argmax(1).astype(jnp.int32)


def support(
    trajectories: Trajectories,
    assignments: np.ndarray,
    *,
    policies: SupportPolicies | None = None,
    **fit_settings: Any,
) -> Support | None:
    """Whether held-out actions are likelier under the clusters' policies than under one policy and random clusters'.

    Args:
        trajectories: the data, N of them.
        assignments: `[N]` int, the clustering.
        policies: what predicts actions, a clusterer's `support_policies`; None: a network on the observation.
        fit_settings: of `training.fit`: callbacks, checkpoints.

    Returns:
        Gains and agreement, or None where one cluster alone is used, or fewer than four trajectories can be split.
    """
    used, assignments = np.unique(np.asarray(assignments), return_inverse=True)
    if len(used) < 2 or len(assignments) < LEAST:
        return None
    method = Comparison(assignments.astype(np.int32), len(used), policies or TransitionPolicy())
    explained, told = (np.asarray(found[0]) for found in fit(method, trajectories, 1, **fit_settings).result)
    gains = explained[FOUND].astype(np.float64) - explained[[ONE, RANDOM]]  # [2, N]
    steps = np.asarray(trajectories.lengths).sum()
    mean, error = gains.sum(1) / steps, gains.std(1) * np.sqrt(gains.shape[1]) / steps
    compared = (float(value) for pair in zip(mean, error, strict=True) for value in pair)
    return Support(*compared, agreement=nmi(assignments, told))


def support_of(
    method: Clusterer, trajectories: Trajectories, clustering: Clustering, callbacks: Sequence[Callback] = ()
) -> Support | None:
    """Whether held-out actions support a method's clusters; None if it diverged, or does not model policies."""
    policies = method.support_policies()
    if policies is None or not np.isfinite(clustering.objective):
        return None
    return support(trajectories, clustering.assignments, policies=policies, callbacks=callbacks)


def _held_out(data: StepData, fold: np.ndarray) -> HeldOut:
    """Each fold's trajectories in their order; of their steps every second quarter is a half."""
    lengths = np.asarray(data.chunks.lengths)[..., None]
    t = np.arange(np.asarray(data.chunks.actions).shape[2])
    mine = [(_PARTS * t // np.maximum(lengths, 1) % 2 == which) & (t < lengths) for which in range(2)]
    counts = [steps.sum(-1).astype(np.int32) for steps in mine]
    longest = max(1, *(count.max() for count in counts))
    slots = [np.flatnonzero(fold == f) for f in range(2)]
    num_chunks = -(-len(lengths) // 2)
    size = -(-max(map(len, slots)) // num_chunks)
    slots = np.stack([np.pad(s, (0, num_chunks * size - len(s)), constant_values=len(fold)) for s in slots])

    def cut(half: StepData) -> StepChunks:
        def fields(x):
            flat = np.asarray(x).reshape(len(fold), *np.shape(x)[2:])
            flat = np.concatenate([flat, np.zeros_like(flat[:1])])  # a filler
            return flat[slots].reshape(2, num_chunks, size, *flat.shape[1:])

        chunks = jax.tree.map(fields, half.chunks.replace(max_length=None))
        return chunks.replace(max_length=chunks.lengths.max(-1))

    halves = []
    for steps, count in zip(mine, counts, strict=True):
        first = np.argsort(~steps, axis=-1, kind="stable")[..., :longest]
        halves.append(cut(data.selected(first, count)))
    return HeldOut(jax.tree.map(lambda *x: np.stack(x, 1), *halves), slots.astype(np.int32))
