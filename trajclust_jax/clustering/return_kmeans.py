"""Return + k-means: trajectories grouped by their sums of rewards, a baseline of the PG-Kmeans paper (Table 1)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.clustering.kmeans import kmeans, posterior, squared_distances
from trajclust_jax.clustering.policies import Inputs, input_transform
from trajclust_jax.clustering.types import Clustering, lone
from trajclust_jax.data import Trajectories
from trajclust_jax.training import Info, Phase


@struct.dataclass
class State:
    """State of one seed."""

    centres: jax.Array  # [K, 1]
    converged: jax.Array  # [] bool
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class ReturnKmeans:
    """scikit-learn's k-means on returns (undiscounted). It sees no observation and no action."""

    num_clusters: int
    """k."""

    VERSION: ClassVar[int] = 1  # of the algorithm: part of a cell's identity; raise it when results change

    def __post_init__(self) -> None:
        if self.num_clusters < 1:
            raise ValueError(f"num_clusters is {self.num_clusters}: it must be at least 1")

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError where returns say nothing: there are fewer than clusters, or they are all equal."""
        if trajectories.num_trajectories < self.num_clusters:
            raise ValueError(f"{trajectories.num_trajectories} trajectories cannot make {self.num_clusters} clusters")
        if np.ptp(returns(trajectories)) == 0:
            raise ValueError("every return is equal")

    def inputs(self, trajectories: Trajectories) -> Inputs:
        """As other methods have it; nothing here reads an observation."""
        return input_transform(trajectories)

    def prepare(self, trajectories: Trajectories, num_seeds: int = 1) -> jax.Array:
        """Returns `[N, 1]` float32."""
        del num_seeds
        self.check(trajectories)
        return returns(trajectories).astype(np.float32)[:, None]

    def phases(self) -> tuple[Phase, ...]:
        """k-means, at once."""
        return (Phase("cluster", self._cluster, None, 0),)

    def result(self, state: State, data: jax.Array) -> Clustering:
        """The nearest centre of each return; the objective is minus the sum of squared distances."""
        distances = squared_distances(data, state.centres)
        assignments = distances.argmin(-1).astype(jnp.int32)
        return lone(assignments, posterior(data, state.centres, assignments), -distances.min(-1).sum(), state.centres)

    def _cluster(self, key: jax.Array, data: jax.Array, previous: None) -> tuple[State, Info]:
        del previous
        key, key_centres = jax.random.split(key)
        centres, assignments = kmeans(key_centres, data, self.num_clusters)
        info = {
            "objective": -squared_distances(data, centres).min(-1).sum()[None],
            "used_clusters": jnp.zeros(self.num_clusters, bool).at[assignments].set(True).sum()[None],
            "assignments": assignments[None],
        }
        return State(centres, jnp.bool_(True), key), info


def returns(trajectories: Trajectories) -> np.ndarray:
    """`[N]` float64: each trajectory's sum of rewards (host-side)."""
    return np.where(np.asarray(trajectories.mask), np.asarray(trajectories.rewards, np.float64), 0).sum(1)
