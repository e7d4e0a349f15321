"""k-means on a few numbers of each trajectory: what can be found without any policy.

Return + k-means is a baseline of the PG-Kmeans paper (Table 1). Lengths and mean steps are ours: policies that these
tell apart are an easy task for any method.
"""

import dataclasses
from typing import ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.clustering.clusterer import Clusterer
from trajclust_jax.clustering.kmeans import Asked, Found, kmeans_before, posterior, responsibilities, squared_distances
from trajclust_jax.clustering.preprocessing import Preprocessing
from trajclust_jax.clustering.types import Clustering, lone
from trajclust_jax.data import Codebook, Trajectories, returns
from trajclust_jax.training import Info, Phase
from trajclust_jax.validation import check_at_least, check_one_of


@struct.dataclass
class State:
    """State of one seed."""

    centres: jax.Array  # [K, D]
    converged: jax.Array  # [] bool
    key: jax.Array


Summary = Literal["return", "length", "mean"]


@dataclasses.dataclass(frozen=True)
class SummaryKmeans(Clusterer):
    """scikit-learn's k-means on summaries of trajectories."""

    num_clusters: int
    """k."""
    of: Summary = "return"
    """`return`, undiscounted; `length`; or `mean`: a trajectory's mean observation and action (discrete ones as their
    frequencies), each number standardised over trajectories."""

    VERSION: ClassVar[int] = 1  # of the algorithm: part of a cell's identity; raise it when results change

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_clusters")
        check_one_of("summary", self.of, get_args(Summary))

    def check(self, trajectories: Trajectories) -> None:
        """Raises ValueError if summaries cannot be clustered: there are fewer than clusters, or all are equal."""
        if trajectories.num_trajectories < self.num_clusters:
            raise ValueError(f"{trajectories.num_trajectories} trajectories cannot make {self.num_clusters} clusters")
        if self.of != "mean" and np.ptp(self._summaries(trajectories)) == 0:
            raise ValueError(f"every {self.of} is equal")

    def preprocessing(self, trajectories: Trajectories) -> Preprocessing:
        """Summaries other than `mean` read no observation and no action."""
        if self.of != "mean":
            return Preprocessing()
        fitted = Preprocessing.of(trajectories)
        return fitted.replace(summaries=_moments(mean_steps(trajectories, fitted)))

    def support_policies(self) -> None:
        """None: it does not model policies."""

    def prepare(
        self, trajectories: Trajectories, num_seeds: int = 1, preprocessing: Preprocessing | None = None
    ) -> jax.Array:
        """Summaries `[N, D]` float32."""
        del num_seeds
        if preprocessing is None:
            self.check(trajectories)
        return self._summaries(trajectories, preprocessing).astype(np.float32)

    def phases(self) -> tuple[Phase, ...]:
        """k-means, at once."""
        host = kmeans_before(lambda data, previous: data, self.num_clusters)
        return (Phase("cluster", self._cluster, None, 0, host=host),)

    def result(self, state: State, data: jax.Array) -> Clustering:
        """The nearest centre of each summary; the objective is minus the sum of squared distances."""
        distances = squared_distances(data, state.centres)
        assignments = distances.argmin(-1).astype(jnp.int32)
        return lone(assignments, posterior(data, state.centres, assignments), -distances.min(-1).sum(), state.centres)

    def model(self, clustering: Clustering) -> dict[str, jax.Array]:
        """Centres `[K, D]`, and the clusters' inner variance."""
        centres = clustering.params
        distances = -clustering.objective / (clustering.assignments.size * centres.shape[-1])
        return {"centres": centres, "variance": jnp.maximum(distances, jnp.finfo(jnp.float32).tiny)}

    def assign(self, model: dict[str, jax.Array], data: jax.Array) -> Clustering:
        """The nearest centre of other trajectories' summaries."""
        found = self.result(State(model["centres"], jnp.bool_(True), jax.random.key(0)), data)
        return found.replace(posterior=responsibilities(data, model["centres"], model["variance"]))

    def _summaries(self, trajectories: Trajectories, preprocessing: Preprocessing | None = None) -> np.ndarray:
        if self.of == "return":
            return returns(trajectories)[:, None]
        if self.of == "length":
            return np.asarray(trajectories.lengths, float)[:, None]
        summaries = mean_steps(trajectories, preprocessing or Preprocessing.of(trajectories))
        mean, std = _moments(summaries) if preprocessing is None else preprocessing.summaries
        return (summaries - mean) / std

    def _cluster(
        self, key: jax.Array, data: jax.Array, previous: None, asked: Asked, found: Found
    ) -> tuple[State, Info]:
        del previous, asked
        key, _ = jax.random.split(key)  # the other half is for k-means
        centres, assignments = found
        info = {
            "objective": -squared_distances(data, centres).min(-1).sum()[None],
            "used_clusters": jnp.zeros(self.num_clusters, bool).at[assignments].set(True).sum()[None],
            "assignments": assignments[None],
        }
        return State(centres, jnp.bool_(True), key), info


def _moments(summaries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std of each column over trajectories."""
    return summaries.mean(0), np.maximum(summaries.std(0), 1e-6)


def mean_steps(trajectories: Trajectories, preprocessing: Preprocessing) -> np.ndarray:
    """`[N, D + A]` float32: each trajectory's mean observation and action, as networks would see them (host-side)."""
    transform, scaling = preprocessing.inputs, preprocessing.actions
    mask = np.asarray(trajectories.mask)
    blocks = []
    for start in range(0, len(mask), 256):  # blocks bound the memory of dense maps
        rows = slice(start, start + 256)
        real, observations = mask[rows], trajectories.observations
        coded = isinstance(observations, Codebook)
        observed = observations.table[np.asarray(observations.ids)[rows]] if coded else np.asarray(observations)[rows]
        observed = transform(observed.reshape(-1, *observed.shape[2:])).reshape(*real.shape, -1).astype(np.float32)
        acted = np.asarray(trajectories.actions)[rows]
        acted = acted if scaling is None else scaling(acted)
        acted = np.where(real.reshape(*real.shape, *[1] * (acted.ndim - 2)), acted, 0)  # padding may hold anything
        acted = np.eye(trajectories.num_actions, dtype=np.float32)[acted] if trajectories.discrete else acted
        steps = np.concatenate([observed, acted], axis=-1)
        blocks.append(np.where(real[..., None], steps, 0).sum(1) / real.sum(1, keepdims=True))
    return np.concatenate(blocks)
