"""The policy classes of a mixture: how a cluster's policy is trained (M-step) and how it scores (E-step).

Three classes share one interface, so that the EM loop in `policy_mixture` is written once:

- `CountedPolicy`: a Markov policy on discrete actions over a codebook. A trajectory is its counts of
  (observation, action) pairs; both steps are exact sums over the U x A table, whatever N and T are.
  Its policy is a network, or a table with a closed-form M-step.
- `TransitionPolicy`: any other Markov policy, trained on minibatches of its own cluster's transitions.
- `HistoryPolicy`: a GRU over the observations so far, trained on minibatches of its cluster's trajectories.

`maps` has more, for observations that are maps.

    check(trajectories)                               ValueError for data that the class can't model
    prepare(trajectories, num_members) -> data        host-side, once
    init(key, data) -> Member                         one member, unbatched
    fit(members, assignments, data, key, num_steps, decay)   M-step of one restart's K members
    scorer(params, data) -> (chunk -> [R, K, n])      E-step on one chunk of trajectories

The learning rate of an M-step's gradient steps falls linearly to `1 - decay` of itself.
An M-step's `assignments` are hard, `[N']` int32 (K itself: in no cluster, not trained on), or soft, `[N', K]` float32:
how much each trajectory counts in each cluster. An E-step sums log-probabilities over steps; `scorer(params, data, of)`
sums `of(log_prob)` instead.

Trajectories are held in order of length, in C chunks of n, so that the memory of an E-step is bounded by
`memory_budget`, not by N. Counted and history policies run a chunk to its own longest trajectory.
"""

import abc
import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from trajclust_jax.clustering.images import ImageInputs, fitted_inputs
from trajclust_jax.data import Codebook, Observations, Trajectories, apply
from trajclust_jax.data.transforms import ActionScaling, Inputs, action_scaling
from trajclust_jax.networks import Placed, PolicyNetwork, ensemblize, gru_step, member_keys

StepValue = Callable[[jax.Array], jax.Array]  # of a step's log-probability: what an E-step sums
_START = 0x73746172  # the key of a window's start is folded from it


@struct.dataclass
class Chunks:
    """Trajectories `[C, n]` in order of length; the last chunk is filled up with empty ones."""

    lengths: jax.Array  # [C, n] int32, 0 for a filler
    max_length: jax.Array  # [C] int32, the longest of each chunk
    actions: jax.Array  # [C, n, T] int32 or [C, n, T, A]
    ids: jax.Array | None  # [C, n, T] int32 rows of the codebook, or None
    inputs: jax.Array | None  # [C, n, T, D] dense inputs, or None
    scale: jax.Array | None = None  # [C, n] float32: steps that each of these stands for; None: itself

    @property
    def stand_for(self) -> jax.Array:
        """`[C, n]` float32: the steps of the trajectories that these are, or were drawn from."""
        return self.lengths * (1.0 if self.scale is None else self.scale)


@struct.dataclass
class MixtureData:
    """What the EM loop works on: trajectories in order of length, and the codebook as network inputs."""

    chunks: Chunks
    order: jax.Array  # [N] int32: sorted position -> original trajectory
    rank: jax.Array  # [N] int32: original trajectory -> sorted position
    num_steps: jax.Array  # [] float32: real steps in all
    table: jax.Array | None  # [U, D], or None
    inputs: Inputs | ImageInputs
    scaling: ActionScaling | None  # of continuous actions
    action_size: int = struct.field(pytree_node=False)  # of what policies model: constant dimensions do not count
    discrete: bool = struct.field(pytree_node=False)
    horizon: int = struct.field(pytree_node=False)  # steps of a trajectory that `HistoryPolicy` trains on
    action_parts: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)  # see `Trajectories`

    @property
    def num_trajectories(self) -> int:
        return self.order.shape[0]

    @property
    def num_slots(self) -> int:
        """N': trajectories with fillers."""
        return self.chunks.lengths.size

    @property
    def lengths(self) -> jax.Array:  # [N'] int32
        return self.chunks.lengths.reshape(-1)

    @property
    def coded(self) -> bool:
        """Whether observations are rows of `table`, as network inputs."""
        return self.table is not None

    @property
    def example(self) -> Any:
        """What a policy network's parameters are made for: one observation."""
        return jnp.zeros((1, self.inputs.size))

    def in_data_unit(self, log_likelihood: jax.Array, steps: jax.Array) -> jax.Array:
        """A log-likelihood of scaled actions, of so many steps, as that of the actions in the data's unit."""
        return log_likelihood if self.scaling is None else log_likelihood - steps * self.scaling.log_volume

    def slots(self, values: jax.Array) -> jax.Array:
        """Values `[N, ...]` in the dataset's order as `[N', ...]` in order of length, 0 for fillers."""
        empty = jnp.zeros((self.num_slots, *values.shape[1:]), values.dtype)
        return empty.at[: self.num_trajectories].set(values[self.order])

    def steps(self, values: jax.Array, positions: jax.Array, horizon: int, start: jax.Array | None = None) -> jax.Array:
        """Of values of steps `[C, n, T, ...]`, H = `horizon` of the slots `positions [n]`: `[n, H, ...]`.

        They are the first ones, or those from `start [n]` on.
        """
        if start is None:
            return values.reshape(self.num_slots, *values.shape[2:])[positions, :horizon]
        return self.at(values, positions, jnp.minimum(start[:, None] + jnp.arange(horizon), values.shape[2] - 1))

    def at(self, values: jax.Array, positions: jax.Array, t: jax.Array) -> jax.Array:
        """Of values of steps `[C, n, T, ...]`, the steps `t [n, H]` of the slots `positions [n]`: `[n, H, ...]`."""
        return values.reshape(self.num_slots, *values.shape[2:])[positions[:, None], t]

    def observed(self, positions: jax.Array, horizon: int, start: jax.Array | None = None) -> Observations | Placed:
        """Inputs of `steps` of the slots `positions [n]`."""
        source = self.steps(self.chunks.ids if self.coded else self.chunks.inputs, positions, horizon, start)
        return Codebook(self.table, source) if self.coded else source

    def sampled(self, key: jax.Array, num_steps: int) -> "MixtureData":
        """`num_steps` random steps of each trajectory, with repetition, in place of all; the key is consumed.

        A log-likelihood of them is its mean over them times the trajectory's length.
        """
        lengths = self.chunks.lengths
        t = (jax.random.uniform(key, (*lengths.shape, num_steps)) * lengths[..., None]).astype(jnp.int32)
        return self.selected(t, jnp.where(lengths > 0, num_steps, 0), lengths / num_steps)

    def selected(self, t: jax.Array, count: jax.Array, scale: jax.Array | None = None) -> "MixtureData":
        """The steps `t [C, n, H]` of each trajectory, the first `count [C, n]` of them real."""

        def take(x):
            return None if x is None else jnp.take_along_axis(x, t.reshape(*t.shape, *[1] * (x.ndim - 3)), axis=2)

        arrays = take(self.chunks.actions), take(self.chunks.ids), take(self.chunks.inputs)
        return self.replace(chunks=Chunks(count, count.max(1), *arrays, scale))

    def observed_in(self, chunk: Chunks) -> Observations | Placed:
        """Inputs of every step of a chunk."""
        return Codebook(self.table, chunk.ids) if self.coded else chunk.inputs


def is_countable(trajectories: Trajectories) -> bool:
    """Whether (observation, action) pairs can be counted: discrete actions over a codebook."""
    return trajectories.discrete and isinstance(trajectories.observations, Codebook)


def is_hard(assignments: jax.Array) -> bool:
    """Whether assignments name clusters, rather than weigh them."""
    return jnp.issubdtype(assignments.dtype, jnp.integer)


def membership(assignments: jax.Array, num_clusters: int) -> jax.Array:
    """`[..., K]` float32: how much each trajectory counts in each cluster."""
    return jax.nn.one_hot(assignments, num_clusters) if is_hard(assignments) else assignments


def harden(assignments: jax.Array) -> jax.Array:
    """`[...]` int32: the cluster in which each trajectory counts most."""
    return assignments if is_hard(assignments) else assignments.argmax(-1).astype(jnp.int32)


@struct.dataclass
class Member:
    """One policy with its optimiser; `[R, K, ...]` in a mixture's state."""

    params: Any
    optimizer: Any


def prepare(trajectories: Trajectories, bytes_per_trajectory: int, memory_budget: int) -> MixtureData:
    """Sorts trajectories by length and cuts them into chunks of at most `memory_budget` bytes of E-step work."""
    lengths = np.asarray(trajectories.lengths)
    count, horizon = len(lengths), int(lengths.max())
    num_chunks = max(1, -(-count * bytes_per_trajectory // memory_budget))
    size = -(-count // num_chunks)
    num_chunks = -(-count // size)
    order = np.argsort(lengths, kind="stable").astype(np.int32)

    def chunked(array):
        array = np.asarray(array)[order]
        fill = np.zeros((num_chunks * size - count, *array.shape[1:]), array.dtype)
        return np.concatenate([array, fill]).reshape(num_chunks, size, *array.shape[1:])

    transform, scaling = fitted_inputs(trajectories), action_scaling(trajectories)
    observations, codebook = trajectories.observations, isinstance(trajectories.observations, Codebook)
    mask = np.asarray(trajectories.mask)[:, :horizon]
    actions = np.asarray(trajectories.actions)[:, :horizon]
    actions = actions if scaling is None else scaling(actions)
    actions = np.where(mask.reshape(*mask.shape, *[1] * (actions.ndim - 2)), actions, 0)  # padding may hold NaN
    inputs = ids = table = None
    if codebook:
        ids = chunked(np.where(mask, np.asarray(observations.ids)[:, :horizon], 0))
        table = transform(np.asarray(observations.table))
    else:
        cropped = np.asarray(observations)[:, :horizon]
        inputs = transform(cropped.reshape(-1, *cropped.shape[2:])).reshape(count, horizon, -1)
        inputs = chunked(np.where(mask[..., None], inputs, 0))
    lengths = chunked(lengths)
    return MixtureData(
        chunks=Chunks(lengths, lengths.max(1), chunked(actions), ids, inputs),
        order=order,
        rank=np.argsort(order).astype(np.int32),
        num_steps=np.float32(lengths.sum()),
        table=table,
        inputs=transform,
        scaling=scaling,
        action_size=trajectories.action_size if scaling is None else len(scaling.columns),
        discrete=trajectories.discrete,
        horizon=horizon,
        action_parts=trajectories.action_parts,
    )


@dataclasses.dataclass(frozen=True)
class NetworkPolicy:
    """What the network policies share: the network, its optimiser, a gradient step."""

    learning_rate: float = 1e-3  # Adam (B.6)
    memory_budget: int = 128 * 2**20  # bytes of working memory of one E-step chunk

    recurrent = False
    extractor = None
    scored_steps = 0  # random steps of a trajectory that an E-step looks at; 0: all

    def network(self, data: MixtureData) -> PolicyNetwork:
        sizes = data.action_size, data.discrete, self.recurrent
        return PolicyNetwork(*sizes, extractor=self.extractor, action_parts=data.action_parts)

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError for data that the class can't model: none here."""
        del trajectories

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)

    def init(self, key: jax.Array, data: MixtureData) -> Member:
        """A fresh policy and its optimiser (unbatched); the key is consumed."""
        params = self.network(data).init(key, data.example)
        return Member(params, self.optimizer.init(params))

    def log_prior(self, params: Any) -> jax.Array:
        """Penalty added to the objective: none for a network."""
        del params
        return jnp.float32(0.0)

    def update(
        self, loss: Callable[[Any], jax.Array], member: Member, trains: jax.Array, scale: jax.Array | float = 1.0
    ) -> Member:
        """One Adam step on `loss(params)`, `scale` times as long as the learning rate says.

        Where `trains` is False (an empty cluster) the policy stays, whatever the loss; Adam's moments decay.
        """
        gradients = jax.tree.map(lambda g: jnp.where(trains, g, 0), jax.grad(loss)(member.params))
        updates, optimizer = self.optimizer.update(gradients, member.optimizer, member.params)
        updates = jax.tree.map(lambda u: jnp.where(trains, scale * u, 0), updates)
        return Member(optax.apply_updates(member.params, updates), optimizer)


# --- Markov, discrete, codebook: sufficient statistics --------------------------------------------------


class _Counted:
    """The E-step and the statistics that tables and networks over (observation, action) counts share."""

    scored_steps = 0

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError for dense observations or continuous actions."""
        if not is_countable(trajectories):
            raise ValueError("a tabular policy needs discrete actions and repeated observations: use 'mlp' or 'gru'")

    def prepare(self, trajectories: Trajectories, num_members: int) -> MixtureData:
        data = prepare(trajectories, 8 * num_members, self.memory_budget)
        cell = data.chunks.ids * data.action_size + data.chunks.actions  # [C, n, T], row of the U x A table
        padding = np.arange(cell.shape[-1]) >= data.chunks.lengths[..., None]
        cell = np.where(padding, len(data.table) * data.action_size, cell).astype(np.int32)
        if np.bincount(cell[~padding]).max() >= 2**24:
            raise ValueError(
                "an (observation, action) pair occurs 2^24 times or more: float32 counts would not be exact"
            )
        return data.replace(chunks=data.chunks.replace(ids=np.moveaxis(cell, 1, 2), actions=None))  # ids: [C, T, n]

    def counts(self, assignments: jax.Array, num_clusters: int, data: MixtureData) -> jax.Array:
        """`[K, U, A]` float32: how often each cluster's trajectories pair an observation with an action.

        Exact for hard assignments: `prepare` refuses data in which a count could reach 2^24.
        """
        num_cells = data.table.shape[0] * data.action_size

        def add_chunk(counts, chunk):
            cells, longest, assigned = chunk
            member = membership(assigned, num_clusters)  # [n, K]
            return jax.lax.fori_loop(0, longest, lambda t, c: c.at[cells[t]].add(member), counts), None

        chunks = data.chunks
        assigned = assignments.reshape(*chunks.lengths.shape, *assignments.shape[1:])
        counts = jnp.zeros((num_cells + 1, num_clusters))  # the last row collects padding
        counts, _ = jax.lax.scan(add_chunk, counts, (chunks.ids, chunks.max_length, assigned))
        return counts[:-1].T.reshape(num_clusters, data.table.shape[0], data.action_size)

    def scorer(
        self, params: Any, data: MixtureData, of: StepValue = lambda log_prob: log_prob
    ) -> Callable[[Chunks], jax.Array]:
        """Log-likelihoods `[R, K, n]` of a chunk: `counts @ log_pi`, as a sum of table rows.

        The table is `[U * A + 1, R * K]`: one row lookup serves all members, and nothing of size N x U exists.
        """
        log_pi = of(ensemblize(self.log_pi, 2, (0, None))(params, data))  # [R, K, U, A]
        num_restarts, num_clusters = log_pi.shape[:2]
        table = log_pi.reshape(num_restarts * num_clusters, -1).T
        table = jnp.concatenate([table, jnp.zeros((1, table.shape[1]))])

        def score(chunk: Chunks) -> jax.Array:
            total = jnp.zeros((chunk.lengths.shape[0], table.shape[1]))
            total = jax.lax.fori_loop(0, chunk.max_length, lambda t, acc: acc + table[chunk.ids[t]], total)
            return total.T.reshape(num_restarts, num_clusters, -1)

        return score


@dataclasses.dataclass(frozen=True)
class TabularPolicy(_Counted):
    """One probability for each (observation, action): smoothed counts, the maximiser of J + log_prior.

    With it Theorem 5.1 holds to the letter: neither step lowers the objective, and assignments can't cycle.
    """

    smoothing: float = 1e-2  # pseudo-counts added to every cell
    memory_budget: int = 128 * 2**20

    def init(self, key: jax.Array, data: MixtureData) -> Member:
        """The uniform policy; the key is not needed."""
        del key
        shape = (data.table.shape[0], data.action_size)
        return Member(jnp.full(shape, -jnp.log(data.action_size)), ())

    def log_pi(self, params: jax.Array, data: MixtureData) -> jax.Array:
        """`[U, A]` log-probabilities: the parameters themselves."""
        del data
        return params

    def log_prior(self, params: jax.Array) -> jax.Array:
        """`smoothing * sum(log_pi)`: what makes smoothed counts the exact maximiser."""
        return self.smoothing * params.sum()

    def fit(
        self,
        members: Member,
        assignments: jax.Array,
        data: MixtureData,
        key: jax.Array,
        num_steps: jax.Array,
        decay: jax.Array | float = 0.0,
    ) -> Member:
        """The closed-form M-step of K members (unbatched over restarts); an empty cluster's policy stays."""
        del key, num_steps, decay
        counts = self.counts(assignments, members.params.shape[0], data)
        smoothed = counts + self.smoothing
        log_pi = jnp.log(smoothed) - jnp.log(smoothed.sum(-1, keepdims=True))
        occupied = counts.sum((1, 2), keepdims=True) > 0
        return members.replace(params=jnp.where(occupied, log_pi, members.params))


@dataclasses.dataclass(frozen=True)
class CountedPolicy(_Counted, NetworkPolicy):
    """An MLP over a codebook: full-batch gradient steps on the (observation, action) counts."""

    def log_pi(self, params: Any, data: MixtureData) -> jax.Array:
        """`[U, A]` log-probabilities of one member."""
        return self.network(data).apply(params, data.table).logits

    def fit(
        self,
        members: Member,
        assignments: jax.Array,
        data: MixtureData,
        key: jax.Array,
        num_steps: jax.Array,
        decay: jax.Array | float = 0.0,
    ) -> Member:
        """`num_steps` Adam steps of K members on Eq. 3's inner sum, over all transitions of their clusters."""
        del key
        counts = self.counts(assignments, jax.tree.leaves(members)[0].shape[0], data)
        total = counts.sum((1, 2))
        weights = counts / jnp.maximum(total, 1)[:, None, None]  # a sum over steps, scaled for Adam's epsilon

        def step(i, members):
            def one(member, weight, trains):
                loss = lambda params: -(weight * self.log_pi(params, data)).sum()
                return self.update(loss, member, trains, 1 - decay * i / num_steps)

            return ensemblize(one, 1)(members, weights, total > 0)

        return jax.lax.fori_loop(0, num_steps, step, members)


# --- everything else: minibatches drawn from each member's own cluster -----------------------------------


def sorted_by_cluster(
    assignments: jax.Array, num_clusters: int, lengths: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Trajectories grouped by cluster, fillers last: order `[N']`, first position and size of each cluster `[K]`.

    Soft assignments make one group of all trajectories, which every cluster draws from.
    """
    if not is_hard(assignments):
        count = jnp.full(num_clusters, (lengths > 0).sum(dtype=jnp.int32))
        return jnp.argsort(lengths == 0, stable=True), jnp.zeros_like(count), count
    assigned = jnp.where(lengths > 0, assignments, num_clusters)
    sizes = jnp.zeros(num_clusters + 1, jnp.int32).at[assigned].add(1)[:num_clusters]
    return jnp.argsort(assigned, stable=True), jnp.cumsum(sizes) - sizes, sizes


def draw(key: jax.Array, shape: tuple[int, ...], first: jax.Array, size: jax.Array) -> jax.Array:
    """Uniform int32 in `[first, first + size)`; `first` where the range is empty (clamped). Key consumed."""
    offset = jax.random.randint(key, shape, 0, jnp.maximum(size, 1))
    return first + offset


def embedded(network: PolicyNetwork, params: Any, observed: Observations | Placed) -> jax.Array:
    """`[n, T, E]`: the network's embeddings of observations; of a codebook, once for each row."""
    embed = lambda x: network.apply(params, x, method="embed")
    return embed(observed) if isinstance(observed, Placed) else apply(embed, observed)


class MarkovScorer:
    """The E-step of Markov networks from every step's observation (the dense path)."""

    def scorer(
        self, params: Any, data: MixtureData, of: StepValue = lambda log_prob: log_prob
    ) -> Callable[[Chunks], jax.Array]:
        """Log-likelihoods `[R, K, n]` of a chunk."""
        network = self.network(data)

        def score(chunk: Chunks) -> jax.Array:
            observed = data.observed_in(chunk)
            mask = jnp.arange(chunk.actions.shape[1]) < chunk.lengths[:, None]

            def member(params):
                distribution = network.apply(params, embedded(network, params, observed), method="read_out")
                total = jnp.where(mask, of(distribution.log_prob(chunk.actions)), 0).sum(1)
                return total if chunk.scale is None else chunk.scale * total

            return ensemblize(member, 2)(params)

        return score


@dataclasses.dataclass(frozen=True)
class TransitionPolicy(MarkovScorer, NetworkPolicy):
    """An MLP on dense observations or continuous actions: minibatches of transitions."""

    batch_size: int = 256  # transitions a cluster and gradient step
    scored_steps: int = 0  # random steps of a trajectory, fresh ones in every E-step; 0: all

    def prepare(self, trajectories: Trajectories, num_members: int) -> MixtureData:
        horizon = int(np.asarray(trajectories.lengths).max())
        return prepare(trajectories, 4 * 300 * horizon * num_members, self.memory_budget)

    def fit(
        self,
        members: Member,
        assignments: jax.Array,
        data: MixtureData,
        key: jax.Array,
        num_steps: jax.Array,
        decay: jax.Array | float = 0.0,
    ) -> Member:
        """`num_steps` Adam steps of K members, each on transitions drawn uniformly from its own cluster."""
        num_clusters = jax.tree.leaves(members)[0].shape[0]
        lengths, chunks, network = data.lengths, data.chunks, self.network(data)
        order, first, sizes = sorted_by_cluster(assignments, num_clusters, lengths)
        ends = jnp.cumsum(lengths[order])  # transitions up to and with each trajectory, clusters in turn
        starts = jnp.concatenate([jnp.zeros(1, ends.dtype), ends])
        begin, num_transitions = starts[first], starts[first + sizes] - starts[first]
        weights = None if is_hard(assignments) else assignments.T  # [K, N']
        actions = chunks.actions.reshape(data.num_slots, *chunks.actions.shape[2:])
        source = chunks.ids if data.coded else chunks.inputs
        source = source.reshape(data.num_slots, *source.shape[2:])

        def step(i, members):
            def one(member, key, begin, count, weight):
                position = draw(key, (self.batch_size,), begin, count)
                place = jnp.searchsorted(ends, position, side="right")
                n = order[jnp.minimum(place, data.num_slots - 1)]
                t = jnp.clip(position - (ends - lengths[order])[place], 0, actions.shape[1] - 1)
                inputs = data.table[source[n, t]] if data.coded else source[n, t]

                def loss(params):
                    log_probs = network.apply(params, inputs).log_prob(actions[n, t])
                    return -(log_probs if weight is None else weight[n] * log_probs).mean()

                return self.update(loss, member, count > 0, 1 - decay * i / num_steps)

            keys = member_keys(jax.random.fold_in(key, i), num_clusters)
            return ensemblize(one, 1)(members, keys, begin, num_transitions, weights)

        return jax.lax.fori_loop(0, num_steps, step, members)


@dataclasses.dataclass(frozen=True)
class TrajectoryPolicy(NetworkPolicy, abc.ABC):
    """What policies share that train on whole trajectories: the M-step. They give `log_probs`."""

    batch_size: int = 32  # trajectories a cluster and gradient step

    @abc.abstractmethod
    def log_probs(
        self, params: Any, positions: jax.Array, data: MixtureData, start: jax.Array | None = None
    ) -> jax.Array:
        """`[n, H]`: log-probabilities of the H actions from the first, or `start [n]`, on of the trajectories at
        `positions [n]`."""

    def starts(self, key: jax.Array, lengths: jax.Array) -> jax.Array | None:
        """Where a gradient step's H steps of trajectories begin, `[n]`; None: with the first. The key is consumed."""
        del key, lengths

    def fit(
        self,
        members: Member,
        assignments: jax.Array,
        data: MixtureData,
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
                n = order[jnp.minimum(draw(key, (self.batch_size,), first, size), data.num_slots - 1)]
                start = self.starts(jax.random.fold_in(key, _START), data.lengths[n])
                t = jnp.arange(data.horizon) + (0 if start is None else start[:, None])
                mask = t < data.lengths[n][:, None]

                def loss(params):
                    log_probs = self.log_probs(params, n, data, start)
                    log_probs = log_probs if weight is None else weight[n][:, None] * log_probs
                    return -jnp.where(mask, log_probs, 0).sum() / jnp.maximum(mask.sum(), 1)

                return self.update(loss, member, size > 0, 1 - decay * i / num_steps)

            keys = member_keys(jax.random.fold_in(key, i), num_clusters)
            return ensemblize(one, 1)(members, keys, first, sizes, weights)

        return jax.lax.fori_loop(0, num_steps, step, members)


def training_horizon(trajectories: Trajectories, quantile: float) -> int:
    """Steps of a trajectory that a recurrent policy trains on: this quantile of the lengths.

    A few long trajectories would make every batch long: gradients leave out their ends, the E-step doesn't.
    """
    return int(np.quantile(np.asarray(trajectories.lengths), quantile, method="higher"))


@dataclasses.dataclass(frozen=True)
class HistoryPolicy(TrajectoryPolicy):
    """A GRU over the observations so far. What depends on one observation is computed on the codebook."""

    horizon_quantile: float = 0.98  # gradient steps see a trajectory's first H steps, H this quantile of the lengths
    window: int = 0  # W: the policy sees the last steps since a multiple of W alone; 0: all so far

    recurrent = True

    def prepare(self, trajectories: Trajectories, num_members: int) -> MixtureData:
        floats = 700  # hidden state, gates and the read-out's layers of one trajectory at one step
        if not isinstance(trajectories.observations, Codebook):
            floats += 450 * int(np.asarray(trajectories.lengths).max())  # embeddings of every step
        data = prepare(trajectories, 4 * floats * num_members, self.memory_budget)
        horizon = training_horizon(trajectories, self.horizon_quantile)
        return data.replace(horizon=min(horizon, self.window) if self.window else horizon)

    def starts(self, key: jax.Array, lengths: jax.Array) -> jax.Array | None:
        """The first step of a random window of each trajectory."""
        if not self.window:
            return None
        return self.window * jax.random.randint(key, lengths.shape, 0, jnp.maximum(-(-lengths // self.window), 1))

    def log_probs(
        self, params: Any, positions: jax.Array, data: MixtureData, start: jax.Array | None = None
    ) -> jax.Array:
        """See `TrajectoryPolicy`."""
        network = self.network(data)
        gates = embedded(network, params, data.observed(positions, data.horizon, start))
        along = lambda gates, actions: network.apply(params, gates, method="along").log_prob(actions)
        return jax.vmap(along)(gates, data.steps(data.chunks.actions, positions, data.horizon, start))

    def scorer(
        self, params: Any, data: MixtureData, of: StepValue = lambda log_prob: log_prob
    ) -> Callable[[Chunks], jax.Array]:
        """Log-likelihoods `[R, K, n]` of a chunk, stepping all its trajectories up to its longest."""
        network, of_rows = self.network(data), None
        if data.coded:  # input gates [R, K, U, 3H] of the codebook's observations
            embed = lambda params: network.apply(params, data.table, method="embed")
            of_rows = ensemblize(embed, 2)(params)

        def score(chunk: Chunks) -> jax.Array:
            def member(params, of_rows):
                cell = params["params"]["gru"]
                gates = embedded(network, params, data.observed_in(chunk)) if of_rows is None else of_rows

                def step(t, carry):
                    hidden, total = carry
                    hidden = jnp.where(t % self.window == 0, 0, hidden) if self.window else hidden
                    gate = gates[:, t] if of_rows is None else gates[chunk.ids[:, t]]
                    # Kept apart from the cell: a lookup fused into it stops XLA's CPU backend from
                    # vectorising the nonlinearities (2.8 times slower).
                    gate = jax.lax.optimization_barrier(gate)
                    hidden = gru_step(cell["recurrent_kernel"], cell["recurrent_bias"], hidden, gate)
                    log_prob = network.apply(params, hidden, method="read_out").log_prob(chunk.actions[:, t])
                    return hidden, total + jnp.where(t < chunk.lengths, of(log_prob), 0)

                num = chunk.lengths.shape[0]
                start = (jnp.zeros((num, network.hidden_size)), jnp.zeros(num))
                return jax.lax.fori_loop(0, chunk.max_length, step, start)[1]

            return ensemblize(member, 2)(params, of_rows)

        return score
