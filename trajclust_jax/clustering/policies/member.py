"""One policy of a mixture with its optimiser, and how much each trajectory counts in it."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


def is_hard(assignments: jax.Array) -> bool:
    """Whether assignments are cluster numbers rather than weights."""
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
