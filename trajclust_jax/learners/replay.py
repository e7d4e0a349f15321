"""The latest transitions of online experience, on the device."""

import jax
import jax.numpy as jnp
from flax import struct

from trajclust_jax.learners.sampling import Batch


@struct.dataclass
class Replay:
    """The last C transitions of online experience."""

    data: Batch  # leaves [C, ...]
    added: jax.Array  # [] int32: transitions ever added

    @classmethod
    def empty(cls, capacity: int, observation_size: int, action_size: int) -> "Replay":
        """No transitions yet, room for `capacity`."""
        observations = jnp.zeros((capacity, observation_size))
        actions, rewards = jnp.zeros((capacity, action_size)), jnp.zeros(capacity)
        data = Batch(observations, actions, rewards, jnp.copy(observations), jnp.zeros(capacity, bool))
        return cls(data, jnp.int32(0))

    @property
    def capacity(self) -> int:
        return self.data.rewards.shape[0]

    def add(self, batch: Batch) -> "Replay":
        """With B more transitions, over the oldest ones; B divides the capacity."""
        start = self.added % self.capacity
        write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), start, 0)
        return Replay(jax.tree.map(write, self.data, batch), self.added + batch.rewards.shape[0])

    def sample(self, key: jax.Array, size: int) -> Batch:
        """`size` transitions, drawn uniformly with repetition; the key is consumed."""
        rows = jax.random.randint(key, (size,), 0, jnp.minimum(self.added, self.capacity))
        return jax.tree.map(lambda x: x[rows], self.data)
