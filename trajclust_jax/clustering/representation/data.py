"""Trajectories as an encoder sees them: buckets of similar length, windows of long ones."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from trajclust_jax.clustering.policies import StepData
from trajclust_jax.data import Observations
from trajclust_jax.devices import BATCH, shared
from trajclust_jax.networks import Placed

_BUCKETS = 0x6275636B  # the key from which every run draws the bucket of a gradient step


class Steps(NamedTuple):
    """Steps of n trajectories, of which the first `lengths` are real."""

    observations: Observations | Placed  # [n, T]
    actions: jax.Array  # [n, T] or [n, T, A]
    lengths: jax.Array  # [n] int32, 0 for a filler


class Batch(NamedTuple):
    """n trajectories, cropped to T steps, or a window of T steps of each."""

    position: jax.Array  # [n] int32 place in order of length
    observations: Observations | Placed  # [n, T]
    actions: jax.Array  # [n, T] or [n, T, A]
    lengths: jax.Array  # [n] int32, 0 for a filler
    decoded: Steps | None = None  # what the decoder sees, if not the same


class Bucket(NamedTuple):
    """Trajectories of similar length: a range in order of length, and its longest."""

    first: int
    size: int
    horizon: int


@struct.dataclass
class EncoderData:
    """Trajectories in order of length, in chunks for what is done on all of them and in buckets for training."""

    data: StepData
    buckets: tuple[Bucket, ...] = struct.field(pytree_node=False)
    window: int = struct.field(pytree_node=False, default=0)  # W; 0: whole trajectories
    windows: int = struct.field(pytree_node=False, default=1)  # of a trajectory, for its latent

    def on_host(self) -> "EncoderData":
        """The steps in the host's memory: see `devices.within`."""
        return self.replace(data=self.data.on_host())

    def batch(self, positions: jax.Array, horizon: int) -> Batch:
        """The first `horizon` steps of the trajectories at `positions [n]` in order of length."""
        data = self.data
        actions = data.steps(data.chunks.actions, positions, horizon)
        return Batch(positions, data.observed(positions, horizon), actions, data.lengths[positions])

    def at(self, positions: jax.Array, t: jax.Array, lengths: jax.Array) -> Steps:
        """The steps `t [n, W]` of the trajectories at `positions [n]`, `lengths [n]` of them real."""
        data = self.data
        return Steps(data.observed_at(positions, t), data.at(data.chunks.actions, positions, t), lengths)

    def windowed(self, positions: jax.Array, share: jax.Array) -> Steps:
        """One window of each trajectory, `share [n]` (0 to 1) of the way from its first to its last one."""
        lengths = self.data.lengths[positions]
        first = (share * jnp.maximum(lengths - self.window, 0)).round().astype(jnp.int32)
        t = jnp.minimum(first[:, None] + jnp.arange(self.window), self.data.longest - 1)
        return self.at(positions, t, jnp.minimum(lengths, self.window))

    def draw(self, key: jax.Array, positions: jax.Array, horizon: int) -> Batch:
        """What a gradient step sees of the trajectories at `positions [n]`; the key is consumed."""
        if not self.window:
            return self.batch(positions, horizon)
        key_window, key_decoded = jax.random.split(key)
        window = self.windowed(positions, jax.random.uniform(key_window, positions.shape))
        lengths = self.data.lengths[positions]
        t = (jax.random.uniform(key_decoded, (len(positions), self.window)) * lengths[:, None]).astype(jnp.int32)
        return Batch(positions, *window, self.at(positions, t, jnp.minimum(lengths, self.window)))

    @property
    def num_trajectories(self) -> int:
        return self.data.num_trajectories

    def bucket_of(self, position: jax.Array) -> jax.Array:
        """The index of the bucket that holds a place in order of length; fillers belong to the last one."""
        ends = jnp.array([bucket.first + bucket.size for bucket in self.buckets[:-1]], jnp.int32)
        return jnp.searchsorted(ends, position, side="right")

    def draw_bucket(self, number: jax.Array) -> jax.Array:
        """The index of a gradient step's bucket: the bucket of a random trajectory.

        The same draw for all seeds: mapped over them, a switch on it stays a switch and does not run every branch.
        """
        key = jax.random.fold_in(jax.random.key(_BUCKETS), number)
        return self.bucket_of(jax.random.randint(key, (), 0, self.num_trajectories))

    def map_all(self, fn: Callable[[Batch], Any]) -> Any:
        """`fn(batch) -> [n, ...]` of all trajectories, chunk by chunk: `[N, ...]` in the dataset's order."""
        num_chunks, size = self.data.chunks.lengths.shape
        branches = [partial(self.batch, horizon=bucket.horizon) for bucket in self.buckets]

        def one(chunk):
            positions = chunk * size + shared(jnp.arange(size), BATCH)
            bucket = self.bucket_of(chunk * size + size - 1)
            return jax.lax.switch(bucket, [lambda p, take=take: fn(take(p)) for take in branches], positions)

        out = jax.lax.map(one, jnp.arange(num_chunks))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[self.data.rank], out)
