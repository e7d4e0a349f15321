"""The results of clustering."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass(kw_only=True)
class Grouping:
    """N trajectories in K groups, in the dataset's order; `[S, ...]` on every leaf for S seeds."""

    assignments: jax.Array  # [N] int32
    posterior: jax.Array  # [N, K] float32, under a uniform prior over groups
    objective: jax.Array  # [] float32, summed over trajectories, higher is better; each method has its own
    params: Any  # of the groups' policies, [K, ...]; of representation methods networks and centres
    log_likelihoods: jax.Array | None = None  # [N, K] float32, log P(actions | group's policy)
    latents: jax.Array | None = None  # [N, d] float32
    separation: jax.Array | None = None  # [] float32, nats a step, median over trajectories: how much likelier a
    # trajectory is by its group's policy than by the others', where it is not likelihoods that assign

    @property
    def chosen_restart(self) -> jax.Array:
        """`[]` int32: the number of the restart that this is; 0 if there is only one."""
        return jnp.zeros(jnp.shape(self.objective), jnp.int32)


@struct.dataclass(kw_only=True)
class Clustering(Grouping):
    """What a clustering method returns: the best of R restarts.

    Only mixtures of policies and CAAE, whose codes are decoded to policies, have log-likelihoods; only representation
    methods have latents, and one restart.
    """

    restart: jax.Array  # [] int32, the chosen restart
    restart_assignments: jax.Array  # [R, N] int32
    restart_objectives: jax.Array  # [R] float32
    classifier: Any = None  # parameters of q(cluster | observation), where the method trains one (EMPO)

    @property
    def chosen_restart(self) -> jax.Array:
        """See `Grouping`."""
        return self.restart


def lone(assignments: jax.Array, posterior: jax.Array, objective: jax.Array, params: Any, **fields: Any) -> Clustering:
    """The clustering of a method without restarts."""
    return Clustering(
        assignments=assignments,
        posterior=posterior,
        objective=objective,
        params=params,
        restart=jnp.int32(0),
        restart_assignments=assignments[None],
        restart_objectives=objective[None],
        **fields,
    )
