"""Markov networks on dense observations or continuous actions: minibatches of their cluster's transitions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from trajclust_jax.clustering.policies.data import CodedData, DenseData, StepChunks, StepData, prepare
from trajclust_jax.clustering.policies.member import Member, is_hard
from trajclust_jax.clustering.policies.network import NetworkPolicy, StepValue, draw, embedded, sorted_by_cluster
from trajclust_jax.clustering.preprocessing import Preprocessing
from trajclust_jax.data import Trajectories
from trajclust_jax.devices import shared_rows
from trajclust_jax.networks import ensemblize, ensemblize_wide, member_keys

_MANY_ROWS = 2000  # steps of a chunk from which members one by one are faster on a CPU; at 600 that is a tenth slower


class MarkovScorer:
    """The E-step of Markov networks from every step's observation (the dense path)."""

    def scorer(
        self, params: Any, data: StepData, of: StepValue = lambda log_prob: log_prob
    ) -> Callable[[StepChunks], jax.Array]:
        """Log-likelihoods `[R, K, n]` of a chunk."""
        network = self.network(data)

        def score(chunk: StepChunks) -> jax.Array:
            chunk = chunk.fetched()
            observed = data.observed_in(chunk)
            mask = jnp.arange(chunk.actions.shape[1]) < chunk.lengths[:, None]

            def member(params):
                distribution = network.apply(params, embedded(network, params, observed), method="read_out")
                log_probs = distribution.log_prob(chunk.actions)
                chex.assert_equal_shape([mask, log_probs])
                total = jnp.where(mask, of(log_probs), 0).sum(1)
                return total if chunk.scale is None else chunk.scale * total

            over_members = ensemblize_wide if mask.size >= _MANY_ROWS else ensemblize
            return over_members(member, 2)(params)

        return score


@dataclasses.dataclass(frozen=True)
class TransitionPolicy(MarkovScorer, NetworkPolicy):
    """An MLP on dense observations or continuous actions: minibatches of transitions."""

    batch_size: int = 256  # transitions a cluster and gradient step
    scored_steps: int = 0  # random steps of a trajectory, fresh ones in every E-step; 0: all

    def prepare(
        self, trajectories: Trajectories, num_members: int, preprocessing: Preprocessing | None = None
    ) -> CodedData | DenseData:
        """All steps, observations as network inputs."""
        horizon = int(np.asarray(trajectories.lengths).max())
        return prepare(trajectories, 4 * 300 * horizon * num_members, self.memory_budget, preprocessing)

    def epoch(self, data: CodedData | DenseData) -> jax.Array:
        """`[]` int32: the gradient steps that see as many transitions as the data holds."""
        return jnp.ceil(data.num_steps / self.batch_size).astype(jnp.int32)

    def fit(
        self,
        members: Member,
        assignments: jax.Array,
        data: CodedData | DenseData,
        key: jax.Array,
        num_steps: jax.Array,
        decay: jax.Array | float = 0.0,
    ) -> Member:
        """`num_steps` Adam steps of K members, each on transitions drawn uniformly from its own cluster."""
        num_clusters = jax.tree.leaves(members)[0].shape[0]
        lengths, network = data.lengths, self.network(data)
        order, first, sizes = sorted_by_cluster(assignments, num_clusters, lengths)
        ends = jnp.cumsum(lengths[order])  # transitions up to and including each trajectory, cluster by cluster
        starts = jnp.concatenate([jnp.zeros(1, ends.dtype), ends])
        begin, num_transitions = starts[first], starts[first + sizes] - starts[first]
        weights = None if is_hard(assignments) else assignments.T  # [K, N']

        def step(i, members):
            def one(member, key, begin, count, weight):
                drawn = shared_rows(draw(key, (self.batch_size,), begin, count))
                n, t = at_position(drawn, order, ends, data)
                inputs, actions = data.inputs_at(n, t), data.step(data.chunks.actions, n, t)

                def loss(params):
                    log_probs = network.apply(params, inputs).log_prob(actions)
                    chex.assert_shape(log_probs, n.shape)
                    return -(log_probs if weight is None else weight[n] * log_probs).mean()

                return self.update(loss, member, count > 0, 1 - decay * i / num_steps)

            keys = member_keys(jax.random.fold_in(key, i), num_clusters)
            return ensemblize(one, 1)(members, keys, begin, num_transitions, weights)

        return jax.lax.fori_loop(0, num_steps, step, members)


def at_position(
    position: jax.Array, order: jax.Array, ends: jax.Array, data: CodedData | DenseData
) -> tuple[jax.Array, jax.Array]:
    """Slot and step `[B]` of the transitions at `position [B]`, where slots are in `order` and `ends` counts
    transitions up to and including each."""
    lengths = data.lengths[order]
    place = jnp.searchsorted(ends, position, side="right")
    n = order[jnp.minimum(place, data.num_slots - 1)]
    return n, jnp.clip(position - (ends - lengths)[place], 0, data.longest - 1)
