"""Policies that are trained on whole trajectories: what they share, and a GRU over the observations so far."""

import abc
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
from trajclust_jax.data import Codebook, Trajectories
from trajclust_jax.devices import shared_rows
from trajclust_jax.networks import ensemblize, ensemblize_wide, gru_step, member_keys

_START = 0x73746172  # the key of a window's start is folded from it


@dataclasses.dataclass(frozen=True)
class TrajectoryPolicy(NetworkPolicy, abc.ABC):
    """The M-step of policies that train on whole trajectories; subclasses define `log_probs`."""

    batch_size: int = 32  # trajectories a cluster and gradient step

    @abc.abstractmethod
    def log_probs(self, params: Any, positions: jax.Array, data: StepData, start: jax.Array | None = None) -> jax.Array:
        """`[n, H]`: log-probabilities of H actions of the trajectories at `positions [n]`, from the first one or from
        `start [n]` on."""

    def starts(self, key: jax.Array, lengths: jax.Array) -> jax.Array | None:
        """`[n]`: where the H steps of trajectories begin that a gradient step sees; None: at 0. The key is consumed."""
        del key, lengths

    def epoch(self, data: StepData) -> jax.Array:
        """`[]` int32: the gradient steps that see as many trajectories as the data holds."""
        return jnp.int32(-(-data.num_trajectories // self.batch_size))

    def fit(
        self,
        members: Member,
        assignments: jax.Array,
        data: StepData,
        key: jax.Array,
        num_steps: jax.Array,
        decay: jax.Array | float = 0.0,
    ) -> Member:
        """`num_steps` Adam steps of K members, each on trajectories (H steps of them) of its own cluster.

        The loss is the sum over the batch's steps divided by their number: long trajectories count more, as
        in Eq. 3.
        """
        num_clusters = jax.tree.leaves(members)[0].shape[0]
        order, first, sizes = sorted_by_cluster(assignments, num_clusters, data.lengths)
        weights = None if is_hard(assignments) else assignments.T  # [K, N']

        def step(i, members):
            def one(member, key, first, size, weight):
                drawn = shared_rows(draw(key, (self.batch_size,), first, size), data.horizon)
                n = order[jnp.minimum(drawn, data.num_slots - 1)]
                start = self.starts(jax.random.fold_in(key, _START), data.lengths[n])
                t = jnp.arange(data.horizon) + (0 if start is None else start[:, None])
                mask = t < data.lengths[n][:, None]

                def loss(params):
                    log_probs = self.log_probs(params, n, data, start)
                    chex.assert_equal_shape([mask, log_probs])
                    log_probs = log_probs if weight is None else weight[n][:, None] * log_probs
                    return -jnp.where(mask, log_probs, 0).sum() / jnp.maximum(mask.sum(), 1)

                return self.update(loss, member, size > 0, 1 - decay * i / num_steps)

            keys = member_keys(jax.random.fold_in(key, i), num_clusters)
            return ensemblize(one, 1)(members, keys, first, sizes, weights)

        return jax.lax.fori_loop(0, num_steps, step, members)


def training_horizon(trajectories: Trajectories, quantile: float) -> int:
    """Steps of a trajectory that a recurrent policy trains on: this quantile of the lengths.

    A few long trajectories would make every batch long: gradients leave out their ends, the E-step does not.
    """
    return int(np.quantile(np.asarray(trajectories.lengths), quantile, method="higher"))


@dataclasses.dataclass(frozen=True)
class HistoryPolicy(TrajectoryPolicy):
    """A GRU over the observations so far. What depends on one observation is computed on the codebook."""

    horizon_quantile: float = 0.98  # gradient steps see a trajectory's first H steps, H this quantile of the lengths
    window: int = 0  # W: the policy sees only the steps since the last multiple of W; 0: all so far

    recurrent = True

    def prepare(
        self, trajectories: Trajectories, num_members: int, preprocessing: Preprocessing | None = None
    ) -> CodedData | DenseData:
        """All steps, observations as network inputs, and the horizon of gradient steps."""
        floats = 700  # hidden state, gates and the read-out's layers of one trajectory at one step
        if not isinstance(trajectories.observations, Codebook):
            floats += 450 * int(np.asarray(trajectories.lengths).max())  # embeddings of every step
        data = prepare(trajectories, 4 * floats * num_members, self.memory_budget, preprocessing)
        horizon = training_horizon(trajectories, self.horizon_quantile)
        return data.replace(horizon=min(horizon, self.window) if self.window else horizon)

    def starts(self, key: jax.Array, lengths: jax.Array) -> jax.Array | None:
        """The first step of a random window of each trajectory."""
        if not self.window:
            return None
        return self.window * jax.random.randint(key, lengths.shape, 0, jnp.maximum(-(-lengths // self.window), 1))

    def log_probs(self, params: Any, positions: jax.Array, data: StepData, start: jax.Array | None = None) -> jax.Array:
        """See `TrajectoryPolicy`."""
        network = self.network(data)
        gates = embedded(network, params, data.observed(positions, data.horizon, start))
        along = lambda gates, actions: network.apply(params, gates, method="along").log_prob(actions)
        return jax.vmap(along)(gates, data.steps(data.chunks.actions, positions, data.horizon, start))

    def scorer(
        self, params: Any, data: StepData, of: StepValue = lambda log_prob: log_prob
    ) -> Callable[[StepChunks], jax.Array]:
        """Log-likelihoods `[R, K, n]` of a chunk, stepping all its trajectories up to its longest."""
        network, of_rows = self.network(data), None
        if isinstance(data, CodedData):  # input gates [R, K, U, 3H] of the codebook's observations
            embed = lambda params: network.apply(params, data.table, method="embed")
            of_rows = ensemblize(embed, 2)(params)

        def score(chunk: StepChunks) -> jax.Array:
            chunk = chunk.fetched()

            def member(params, of_rows):
                kernel, bias = network.recurrence(params)
                gates = embedded(network, params, data.observed_in(chunk)) if of_rows is None else of_rows

                def step(t, carry):
                    hidden, total = carry
                    hidden = jnp.where(t % self.window == 0, 0, hidden) if self.window else hidden
                    gate = gates[:, t] if of_rows is None else gates[chunk.ids[:, t]]
                    # Kept apart from the cell: a lookup fused into it stops XLA's CPU backend from
                    # vectorising the nonlinearities (2.8 times slower).
                    gate = jax.lax.optimization_barrier(gate)
                    hidden = gru_step(kernel, bias, hidden, gate)
                    log_prob = network.apply(params, hidden, method="read_out").log_prob(chunk.actions[:, t])
                    chex.assert_equal_shape([log_prob, chunk.lengths])
                    return hidden, total + jnp.where(t < chunk.lengths, of(log_prob), 0)

                num = chunk.lengths.shape[0]
                start = (jnp.zeros((num, network.hidden_size)), jnp.zeros(num))
                return jax.lax.fori_loop(0, chunk.max_length, step, start)[1]

            return ensemblize_wide(member, 2)(params, of_rows)

        return score
