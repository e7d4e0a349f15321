"""What a clustering method returns."""

from typing import Any

import jax
from flax import struct


@struct.dataclass
class Clustering:
    """A clustering of N trajectories, the best of R restarts; `[S, ...]` on every leaf for S seeds.

    Trajectories are in the dataset's order. Only mixtures of policies and CAAE, whose codes are decoded to policies,
    have log-likelihoods; only representation methods have latents, and one restart.
    """

    assignments: jax.Array  # [N] int32
    posterior: jax.Array  # [N, K] float32, under a uniform prior over clusters
    objective: jax.Array  # [] float32, summed over trajectories, higher is better; what it is, the method says
    restart: jax.Array  # [] int32, the chosen restart
    restart_assignments: jax.Array  # [R, N] int32
    restart_objectives: jax.Array  # [R] float32
    params: Any  # PG-Kmeans: the chosen restart's policies, [K, ...]; others: networks and centres
    log_likelihoods: jax.Array | None = None  # [N, K] float32, log P(actions | cluster's policy)
    latents: jax.Array | None = None  # [N, d] float32


def lone(assignments: jax.Array, posterior: jax.Array, objective: jax.Array, params: Any, **fields: Any) -> Clustering:
    """The clustering of a method without restarts."""
    restart = jax.numpy.int32(0)
    return Clustering(assignments, posterior, objective, restart, assignments[None], objective[None], params, **fields)
