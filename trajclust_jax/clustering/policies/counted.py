"""Markov policies on discrete actions over a codebook, by their sufficient statistics.

A trajectory is its counts of (observation, action) pairs; both steps of EM are exact sums over the U x A table,
whatever N and T are. The policy is a network, or a table with a closed-form M-step.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.clustering.policies.data import Arrangement, Chunks, MixtureData
from trajclust_jax.clustering.policies.member import Member, membership
from trajclust_jax.clustering.policies.network import NetworkPolicy, StepValue
from trajclust_jax.clustering.preprocessing import Preprocessing
from trajclust_jax.data import Codebook, Trajectories
from trajclust_jax.data.codebook import recoded
from trajclust_jax.devices import OnHost, fetched, on_cpu
from trajclust_jax.networks import ensemblize

# An accelerator counts and looks up by products with each trajectory's own counts, [n, U * A], up to so many cells: its
# scattered sums and lookups of rows take many times as long, and add in no fixed order (docs/scale.md).
_MOST_CELLS = 4096


@struct.dataclass
class CountedChunks(Chunks):
    """Trajectories as the (observation, action) pairs that they are made of."""

    cells: jax.Array | OnHost  # [C, T, n] int32 rows of the U x A table; U * A in padding

    STEPS: ClassVar[tuple[str, ...]] = ("cells",)


@struct.dataclass
class CountedData(MixtureData):
    """Data whose steps are pairs of a codebook's row and an action."""

    chunks: CountedChunks
    table: jax.Array  # [U, D] float32: the codebook as network inputs

    @property
    def example(self) -> jax.Array:
        """See `MixtureData`."""
        return jnp.zeros((1, self.table.shape[-1]))


def is_countable(trajectories: Trajectories) -> bool:
    """Whether (observation, action) pairs can be counted: discrete actions over a codebook."""
    return trajectories.discrete and isinstance(trajectories.observations, Codebook)


def _by_products(num_cells: int) -> bool:
    return not on_cpu() and num_cells <= _MOST_CELLS


def _occurrences(cells: jax.Array, longest: jax.Array, num_cells: int) -> jax.Array:
    """`[n, U * A]` float32: how often each trajectory has each of a chunk's cells `[T, n]`."""
    rows = jnp.arange(cells.shape[1])
    counts = jnp.zeros((cells.shape[1], num_cells + 1))  # the last column collects padding
    return jax.lax.fori_loop(0, longest, lambda t, c: c.at[rows, cells[t]].add(1), counts)[:, :-1]


class _Counted(abc.ABC):
    """The E-step and the statistics that tables and networks over (observation, action) counts share."""

    scored_steps = 0

    def epoch(self, data: CountedData) -> jax.Array:
        """`[]` int32: the gradient steps of an epoch, 1: each sees all the data."""
        del data
        return jnp.int32(1)

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError for dense observations or continuous actions."""
        if not is_countable(trajectories):
            raise ValueError("a tabular policy needs discrete actions and repeated observations: use 'mlp' or 'gru'")

    def prepare(
        self, trajectories: Trajectories, num_members: int, preprocessing: Preprocessing | None = None
    ) -> CountedData:
        """The cells of every step; the codebook begins with the rows that `preprocessing` has.

        Raises:
            ValueError: a cell occurs too often to be counted in float32.
        """
        fitted = Preprocessing.of(trajectories) if preprocessing is None else preprocessing
        if fitted.observations is not None:
            trajectories = recoded(trajectories, fitted.observations)
        observations = trajectories.observations
        num_cells = len(observations.table) * trajectories.action_size
        bytes_per_trajectory = max(8 * num_members, 4 * num_cells if _by_products(num_cells) else 0)
        arranged = Arrangement.of(trajectories, None, bytes_per_trajectory, self.memory_budget)
        chunk, shared = arranged.chunk_fields, arranged.data_fields
        cells = arranged.steps(observations.ids) * shared["action_size"] + arranged.actions  # [C, n, T]
        padding = np.arange(cells.shape[-1]) >= chunk["lengths"][..., None]
        cells = np.where(padding, num_cells, cells).astype(np.int32)
        if np.bincount(cells[~padding]).max() >= 2**24:
            raise ValueError(
                "an (observation, action) pair occurs 2^24 times or more: float32 counts would not be exact"
            )
        table = fitted.inputs(np.asarray(observations.table))
        chunks = CountedChunks(**chunk, cells=np.moveaxis(cells, 1, 2))
        return CountedData(chunks=chunks, table=table, **shared)

    def counts(self, assignments: jax.Array, num_clusters: int, data: CountedData) -> jax.Array:
        """`[U * A, K]` float32: how often each cluster's trajectories pair an observation with an action.

        Row `u * A + a`, as in the chunks' cells. Exact for hard assignments: `prepare` refuses data in which a count
        could reach 2^24.
        """
        num_cells = data.table.shape[0] * data.action_size

        def add_chunk(counts, chunk):
            cells, longest, assigned = chunk
            cells = fetched(cells)
            member = membership(assigned, num_clusters)  # [n, K]
            if _by_products(num_cells):
                own = _occurrences(cells, longest, num_cells)
                return counts.at[:-1].add(jnp.matmul(own.T, member, precision="highest")), None
            return jax.lax.fori_loop(0, longest, lambda t, c: c.at[cells[t]].add(member), counts), None

        chunks = data.chunks
        assigned = assignments.reshape(*chunks.lengths.shape, *assignments.shape[1:])
        counts = jnp.zeros((num_cells + 1, num_clusters))  # the last row collects padding
        counts, _ = jax.lax.scan(add_chunk, counts, (chunks.cells, chunks.max_length, assigned))
        return counts[:-1]

    def fit(
        self,
        members: Member,
        assignments: jax.Array,
        data: CountedData,
        key: jax.Array,
        num_steps: jax.Array,
        decay: jax.Array | float = 0.0,
    ) -> Member:
        """The M-step of K members (unbatched over restarts), by the counts of their clusters; nothing is drawn."""
        del key
        num_clusters = jax.tree.leaves(members)[0].shape[0]
        return self.fit_counts(members, self.counts(assignments, num_clusters, data), data, num_steps, decay)

    @abc.abstractmethod
    def fit_counts(
        self, members: Member, counts: jax.Array, data: CountedData, num_steps: jax.Array, decay: jax.Array | float
    ) -> Member:
        """`fit` by `counts [U * A, K]`, as `counts` gives them."""

    def scorer(
        self, params: Any, data: CountedData, of: StepValue = lambda log_prob: log_prob
    ) -> Callable[[CountedChunks], jax.Array]:
        """Log-likelihoods `[R, K, n]` of a chunk: `counts @ log_pi`, as a sum of table rows.

        The table is `[U * A + 1, R * K]`: one row lookup serves all members, and nothing of size N x U exists; a
        product with a chunk's counts where an accelerator is faster so.
        """
        log_pi = of(ensemblize(self.log_pi, 2, (0, None))(params, data))  # [R, K, U, A]
        chex.assert_shape(log_pi, (None, None, data.table.shape[0], data.action_size))
        num_restarts, num_clusters = log_pi.shape[:2]
        table = log_pi.reshape(num_restarts * num_clusters, -1).T
        table = jnp.concatenate([table, jnp.zeros((1, table.shape[1]))])

        def score(chunk: CountedChunks) -> jax.Array:
            chunk = chunk.fetched()
            if _by_products(len(table) - 1):
                own = _occurrences(chunk.cells, chunk.max_length, len(table) - 1)
                total = jnp.matmul(own, table[:-1], precision="highest")
                return total.T.reshape(num_restarts, num_clusters, -1)
            total = jnp.zeros((chunk.lengths.shape[0], table.shape[1]))
            total = jax.lax.fori_loop(0, chunk.max_length, lambda t, acc: acc + table[chunk.cells[t]], total)
            return total.T.reshape(num_restarts, num_clusters, -1)

        return score


@dataclasses.dataclass(frozen=True)
class TabularPolicy(_Counted):
    """One probability for each (observation, action): smoothed counts, the maximiser of J + log_prior.

    With it Theorem 5.1 holds to the letter: neither step lowers the objective, and assignments can't cycle.
    """

    smoothing: float = 1e-2  # pseudo-counts added to every cell
    memory_budget: int = 128 * 2**20

    def __post_init__(self) -> None:
        if not self.smoothing > 0:
            raise ValueError(f"smoothing is {self.smoothing}: it must be above 0, or unseen actions have no logarithm")

    def preprocessing(self, trajectories: Trajectories) -> Preprocessing:
        """How trajectories become its inputs, fitted to these: its parameters belong to the rows of their codebook."""
        return Preprocessing.of(trajectories).replace(observations=np.asarray(trajectories.observations.table))

    def known(self, params: jax.Array, data: CountedData) -> jax.Array:
        """Trained log-probabilities `[K, U, A]`; uniform for observations that were not among those trained on."""
        new = data.table.shape[0] - params.shape[1]
        return jnp.pad(params, ((0, 0), (0, new), (0, 0)), constant_values=-jnp.log(data.action_size))

    def init(self, key: jax.Array, data: CountedData) -> Member:
        """The uniform policy; the key is not needed."""
        del key
        shape = (data.table.shape[0], data.action_size)
        return Member(jnp.full(shape, -jnp.log(data.action_size)), ())

    def log_pi(self, params: jax.Array, data: CountedData) -> jax.Array:
        """`[U, A]` log-probabilities: the parameters themselves."""
        del data
        return params

    def log_prior(self, params: jax.Array) -> jax.Array:
        """`smoothing * sum(log_pi)`: what makes smoothed counts the exact maximiser."""
        return self.smoothing * params.sum()

    def fit_counts(
        self, members: Member, counts: jax.Array, data: CountedData, num_steps: jax.Array, decay: jax.Array | float
    ) -> Member:
        """The closed-form M-step of K members (unbatched over restarts); an empty cluster's policy stays."""
        del num_steps, decay
        counts = counts.T.reshape(-1, data.table.shape[0], data.action_size)
        smoothed = counts + self.smoothing
        log_pi = jnp.log(smoothed) - jnp.log(smoothed.sum(-1, keepdims=True))
        occupied = counts.sum((1, 2), keepdims=True) > 0
        return members.replace(params=jnp.where(occupied, log_pi, members.params))


@dataclasses.dataclass(frozen=True)
class CountedPolicy(_Counted, NetworkPolicy):
    """An MLP over a codebook: full-batch gradient steps on the (observation, action) counts."""

    def log_pi(self, params: Any, data: CountedData) -> jax.Array:
        """`[U, A]` log-probabilities of one member."""
        return self.network(data).apply(params, data.table).logits

    def fit_counts(
        self, members: Member, counts: jax.Array, data: CountedData, num_steps: jax.Array, decay: jax.Array | float
    ) -> Member:
        """`num_steps` Adam steps of K members on Eq. 3's inner sum, over all transitions of their clusters."""
        counts = counts.T.reshape(-1, data.table.shape[0], data.action_size)
        total = counts.sum((1, 2))
        weights = counts / jnp.maximum(total, 1)[:, None, None]  # a sum over steps, scaled for Adam's epsilon

        def step(i, members):
            def one(member, weight, trains):
                def loss(params):
                    log_pi = self.log_pi(params, data)
                    chex.assert_equal_shape([weight, log_pi])  # [U, A]
                    return -(weight * log_pi).sum()

                return self.update(loss, member, trains, 1 - decay * i / num_steps)

            return ensemblize(one, 1)(members, weights, total > 0)

        return jax.lax.fori_loop(0, num_steps, step, members)
