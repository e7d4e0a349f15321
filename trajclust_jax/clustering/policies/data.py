"""Trajectories as the EM loop wants them: in order of length, in chunks, observations as network inputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.clustering.images import ImageInputs, fitted_inputs
from trajclust_jax.data import Codebook, Observations, Trajectories
from trajclust_jax.data.transforms import ActionScaling, Inputs, action_scaling
from trajclust_jax.networks import Placed


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
