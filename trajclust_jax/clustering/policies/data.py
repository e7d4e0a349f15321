"""Trajectories as the EM loop wants them: in order of length, in chunks.

What a chunk holds of a trajectory's steps depends on the family: the counts' cells (`counted`), or the steps in order
with rows of a codebook, dense inputs (both here) or places on maps (`maps`). The arrays that all chunks share, such as
the codebook, belong to the data.
"""

import abc
import dataclasses
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.clustering.preprocessing import Preprocessing
from trajclust_jax.data import Codebook, Observations, Trajectories
from trajclust_jax.data.transforms import ActionScaling
from trajclust_jax.devices import OnHost, fetched
from trajclust_jax.networks import Placed


@struct.dataclass
class Chunks:
    """Trajectories `[C, n]` in order of length; the last chunk is filled up with empty ones."""

    lengths: jax.Array  # [C, n] int32, 0 for a filler
    max_length: jax.Array  # [C] int32, the longest of each chunk

    STEPS: ClassVar[tuple[str, ...]] = ()  # the fields that have an axis of steps

    def on_host(self) -> Self:
        """The steps in the host's memory."""
        return self.replace(**{name: OnHost(getattr(self, name)) for name in self.STEPS})

    def fetched(self) -> Self:
        """One chunk, its steps on the device."""
        return self.replace(**{name: fetched(getattr(self, name)) for name in self.STEPS})

    @property
    def stand_for(self) -> jax.Array:
        """`[C, n]` float32: how many steps those held of each trajectory stand for."""
        return self.lengths * 1.0


@struct.dataclass
class StepChunks(Chunks):
    """Chunks that hold the steps in order; a subclass adds what was observed at each."""

    actions: jax.Array | OnHost  # [C, n, T] int32 or [C, n, T, A]
    scale: jax.Array | None  # [C, n] float32: how many steps each of these stands for; None: one

    STEPS: ClassVar[tuple[str, ...]] = ("actions",)

    @property
    def stand_for(self) -> jax.Array:
        """See `Chunks`."""
        return self.lengths * (1.0 if self.scale is None else self.scale)

    def selected(self, t: jax.Array, count: jax.Array, scale: jax.Array | None = None) -> "StepChunks":
        """The steps `t [C, n, H]` of each trajectory, the first `count [C, n]` of them real."""

        def take(x):
            if isinstance(x, OnHost):
                slots = jnp.arange(t.shape[0] * t.shape[1])[:, None]
                taken = fetched(x, lambda x, n, t: flat(x)[n, t], slots, t.reshape(len(slots), -1))
                return taken.reshape(*t.shape, *taken.shape[2:])
            return jnp.take_along_axis(x, t.reshape(*t.shape, *[1] * (x.ndim - 3)), axis=2)

        steps = {name: take(getattr(self, name)) for name in self.STEPS}
        return self.replace(lengths=count, max_length=count.max(1), scale=scale, **steps)


@struct.dataclass
class CodedChunks(StepChunks):
    """Steps whose observations are rows of a codebook."""

    ids: jax.Array | OnHost  # [C, n, T] int32

    STEPS: ClassVar[tuple[str, ...]] = ("actions", "ids")


@struct.dataclass
class DenseChunks(StepChunks):
    """Steps whose observations are network inputs."""

    inputs: jax.Array | OnHost  # [C, n, T, D]

    STEPS: ClassVar[tuple[str, ...]] = ("actions", "inputs")


@struct.dataclass
class MixtureData(abc.ABC):
    """What the EM loop works on: N trajectories in order of length, in N' slots with fillers."""

    chunks: Chunks
    order: jax.Array  # [N] int32: sorted position -> original trajectory
    rank: jax.Array  # [N] int32: original trajectory -> sorted position
    num_steps: jax.Array  # [] float32: real steps in all
    scaling: ActionScaling | None  # of continuous actions
    action_size: int = struct.field(pytree_node=False)  # of what policies model: constant dimensions do not count
    discrete: bool = struct.field(pytree_node=False)
    action_parts: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)  # see `Trajectories`

    @property
    @abc.abstractmethod
    def example(self) -> Any:
        """What a policy network's parameters are made for: one observation."""

    @property
    def num_trajectories(self) -> int:
        """N."""
        return self.order.shape[0]

    @property
    def num_slots(self) -> int:
        """N': trajectories with fillers."""
        return self.chunks.lengths.size

    @property
    def lengths(self) -> jax.Array:
        """`[N']` int32."""
        return self.chunks.lengths.reshape(-1)

    def on_host(self) -> Self:
        """The steps in the host's memory: see `devices.within`."""
        return self.replace(chunks=self.chunks.on_host())

    def in_data_unit(self, log_likelihood: jax.Array, steps: jax.Array) -> jax.Array:
        """A log-likelihood of scaled actions, over so many `steps`, converted to the data's unit."""
        return log_likelihood if self.scaling is None else log_likelihood - steps * self.scaling.log_volume

    def slots(self, values: jax.Array) -> jax.Array:
        """Values `[N, ...]` in the dataset's order as `[N', ...]` in order of length, 0 for fillers."""
        empty = jnp.zeros((self.num_slots, *values.shape[1:]), values.dtype)
        return empty.at[: self.num_trajectories].set(values[self.order])


def flat(values: jax.Array) -> jax.Array:
    """Values of chunks `[C, n, ...]` as values of slots, `[N', ...]`."""
    return values.reshape(-1, *values.shape[2:])


@struct.dataclass
class StepData(MixtureData):
    """Data whose chunks hold the steps in order."""

    chunks: StepChunks
    horizon: int = struct.field(pytree_node=False)  # H: steps of a trajectory that `TrajectoryPolicy` trains on

    @abc.abstractmethod
    def observed(self, positions: jax.Array, horizon: int, start: jax.Array | None = None) -> Observations | Placed:
        """What was observed at the `steps` of the slots `positions [n]`: `[n, H]`."""

    @abc.abstractmethod
    def observed_in(self, chunk: StepChunks) -> Observations | Placed:
        """What was observed at every step of a chunk: `[n, T]`."""

    @property
    def longest(self) -> int:
        """T: steps that there is room for."""
        return jax.tree.leaves(self.chunks.actions)[0].shape[2]

    def steps(
        self, values: jax.Array | OnHost, positions: jax.Array, horizon: int, start: jax.Array | None = None
    ) -> jax.Array:
        """`[n, H, ...]`: H = `horizon` steps of the slots `positions [n]`, from values of steps `[C, n, T, ...]`.

        They are the first steps, or those from `start [n]` on.
        """
        if start is None:
            if isinstance(values, OnHost):  # whose indices may not be mixed with ranges
                return fetched(values, lambda x, n: flat(x)[n][:, :horizon], positions)
            return flat(values)[positions, :horizon]
        return self.at(values, positions, jnp.minimum(start[:, None] + jnp.arange(horizon), self.longest - 1))

    def at(self, values: jax.Array | OnHost, positions: jax.Array, t: jax.Array) -> jax.Array:
        """`[n, H, ...]`: the steps `t [n, H]` of the slots `positions [n]`, from values of steps `[C, n, T, ...]`."""
        return self.step(values, positions[:, None], t)

    def step(self, values: jax.Array | OnHost, positions: jax.Array, t: jax.Array) -> jax.Array:
        """`[B, ...]`: the steps `t [B]` of the slots `positions [B]`, from values of steps."""
        return fetched(values, lambda x, n, t: flat(x)[n, t], positions, t)

    def sampled(self, key: jax.Array, num_steps: int) -> "StepData":
        """`num_steps` random steps of each trajectory, drawn with replacement, in place of all; the key is consumed.

        Their log-likelihood is the mean over them times the trajectory's length.
        """
        lengths = self.chunks.lengths
        t = (jax.random.uniform(key, (*lengths.shape, num_steps)) * lengths[..., None]).astype(jnp.int32)
        return self.selected(t, jnp.where(lengths > 0, num_steps, 0), lengths / num_steps)

    def selected(self, t: jax.Array, count: jax.Array, scale: jax.Array | None = None) -> "StepData":
        """The steps `t [C, n, H]` of each trajectory, the first `count [C, n]` of them real."""
        return self.replace(chunks=self.chunks.selected(t, count, scale))


@struct.dataclass
class CodedData(StepData):
    """Observations are rows of a codebook, whose network inputs are kept once."""

    chunks: CodedChunks
    table: jax.Array  # [U, D] float32

    @property
    def example(self) -> jax.Array:
        """See `MixtureData`."""
        return jnp.zeros((1, self.table.shape[-1]))

    def observed(self, positions: jax.Array, horizon: int, start: jax.Array | None = None) -> Codebook:
        """See `StepData`."""
        return Codebook(self.table, self.steps(self.chunks.ids, positions, horizon, start))

    def observed_at(self, positions: jax.Array, t: jax.Array) -> Codebook:
        """What was observed at the steps `t [n, H]` of the slots `positions [n]`."""
        return Codebook(self.table, self.at(self.chunks.ids, positions, t))

    def observed_in(self, chunk: CodedChunks) -> Codebook:
        """See `StepData`."""
        return Codebook(self.table, chunk.ids)

    def inputs_at(self, position: jax.Array, t: jax.Array) -> jax.Array:
        """`[B, D]`: network inputs of the steps `t [B]` of the slots `position [B]`."""
        return self.table[self.step(self.chunks.ids, position, t)]


@struct.dataclass
class DenseData(StepData):
    """Observations are network inputs, each step's its own."""

    chunks: DenseChunks

    @property
    def example(self) -> jax.Array:
        """See `MixtureData`."""
        return jnp.zeros((1, jax.tree.leaves(self.chunks.inputs)[0].shape[-1]))

    def observed(self, positions: jax.Array, horizon: int, start: jax.Array | None = None) -> jax.Array:
        """See `StepData`."""
        return self.steps(self.chunks.inputs, positions, horizon, start)

    def observed_at(self, positions: jax.Array, t: jax.Array) -> jax.Array:
        """What was observed at the steps `t [n, H]` of the slots `positions [n]`."""
        return self.at(self.chunks.inputs, positions, t)

    def observed_in(self, chunk: DenseChunks) -> jax.Array:
        """See `StepData`."""
        return chunk.inputs

    def inputs_at(self, position: jax.Array, t: jax.Array) -> jax.Array:
        """`[B, D]`: network inputs of the steps `t [B]` of the slots `position [B]`."""
        return self.step(self.chunks.inputs, position, t)


@dataclasses.dataclass(frozen=True)
class Arrangement:
    """Trajectories in order of length, cut into C chunks of n; what makes chunks and data (host-side)."""

    trajectories: Trajectories
    order: np.ndarray  # [N] int32
    num_chunks: int
    size: int
    scaling: ActionScaling | None

    @classmethod
    def of(
        cls,
        trajectories: Trajectories,
        scaling: ActionScaling | None,
        bytes_per_trajectory: int,
        memory_budget: int,
    ) -> "Arrangement":
        """Chunks of at most `memory_budget` bytes of E-step work."""
        lengths = np.asarray(trajectories.lengths)
        num_chunks = max(1, -(-len(lengths) * bytes_per_trajectory // memory_budget))
        size = -(-len(lengths) // num_chunks)
        num_chunks = -(-len(lengths) // size)
        order = np.argsort(lengths, kind="stable").astype(np.int32)
        return cls(trajectories, order, num_chunks, size, scaling)

    def chunked(self, values: np.ndarray) -> np.ndarray:
        """Values `[N, ...]` in the dataset's order as `[C, n, ...]`, 0 for fillers."""
        values = np.asarray(values)[self.order]
        fill = np.zeros((self.num_chunks * self.size - len(values), *values.shape[1:]), values.dtype)
        return np.concatenate([values, fill]).reshape(self.num_chunks, self.size, *values.shape[1:])

    def steps(self, values: np.ndarray) -> np.ndarray:
        """Values of steps `[N, T, ...]` as `[C, n, T', ...]`, T' the longest length; 0 in padding, which may be NaN."""
        mask = np.asarray(self.trajectories.mask)[:, : self.horizon]
        values = np.asarray(values)[:, : self.horizon]
        return self.chunked(np.where(mask.reshape(*mask.shape, *[1] * (values.ndim - 2)), values, 0))

    @property
    def horizon(self) -> int:
        """T': the length of the longest trajectory."""
        return int(np.asarray(self.trajectories.lengths).max())

    @property
    def actions(self) -> np.ndarray:
        """`[C, n, T']` int32 or `[C, n, T', A]`, scaled."""
        actions = np.asarray(self.trajectories.actions)[:, : self.horizon]
        return self.steps(actions if self.scaling is None else self.scaling(actions))

    @property
    def chunk_fields(self) -> dict[str, np.ndarray]:
        """The fields of `Chunks`."""
        lengths = self.chunked(self.trajectories.lengths)
        return {"lengths": lengths, "max_length": lengths.max(1)}

    @property
    def data_fields(self) -> dict[str, Any]:
        """The fields of `MixtureData` but its chunks."""
        trajectories, scaling = self.trajectories, self.scaling
        return {
            "order": self.order,
            "rank": np.argsort(self.order).astype(np.int32),
            "num_steps": np.float32(np.asarray(trajectories.lengths).sum()),
            "scaling": scaling,
            "action_size": trajectories.action_size if scaling is None else len(scaling.columns),
            "discrete": trajectories.discrete,
            "action_parts": trajectories.action_parts,
        }


def prepare(
    trajectories: Trajectories,
    bytes_per_trajectory: int,
    memory_budget: int,
    preprocessing: Preprocessing | None = None,
) -> CodedData | DenseData:
    """All steps in chunks of at most `memory_budget` bytes of E-step work, observations as network inputs.

    Inputs are made by a given `preprocessing`, or by one fitted to these trajectories.
    """
    fitted = Preprocessing.of(trajectories) if preprocessing is None else preprocessing
    arranged = Arrangement.of(trajectories, fitted.actions, bytes_per_trajectory, memory_budget)
    observations, shared = trajectories.observations, {"horizon": arranged.horizon, **arranged.data_fields}
    chunk = {**arranged.chunk_fields, "actions": arranged.actions, "scale": None}
    if isinstance(observations, Codebook):
        chunks = CodedChunks(**chunk, ids=arranged.steps(observations.ids))
        return CodedData(chunks=chunks, table=fitted.inputs(np.asarray(observations.table)), **shared)
    cropped = np.asarray(observations)[:, : arranged.horizon]
    inputs = fitted.inputs(cropped.reshape(-1, *cropped.shape[2:])).reshape(*cropped.shape[:2], -1)
    return DenseData(chunks=DenseChunks(**chunk, inputs=arranged.steps(inputs)), **shared)
