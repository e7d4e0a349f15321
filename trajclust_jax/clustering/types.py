"""What a clustering method returns."""

from typing import Any

import jax
from flax import struct


@struct.dataclass
class Clustering:
    """A clustering of N trajectories, the best of R restarts; `[S, ...]` on every leaf for S seeds.

    Trajectories are in the dataset's order.
    """

    assignments: jax.Array  # [N] int32
    posterior: jax.Array  # [N, K] float32, under a uniform prior over clusters
    log_likelihoods: jax.Array  # [N, K] float32, log P(actions | cluster's policy)
    objective: jax.Array  # [] float32, J of Eq. 3 (tabular: plus the log prior); higher is better
    restart: jax.Array  # [] int32, the chosen restart
    restart_assignments: jax.Array  # [R, N] int32
    restart_objectives: jax.Array  # [R] float32
    params: Any  # the chosen restart's policies, [K, ...]
