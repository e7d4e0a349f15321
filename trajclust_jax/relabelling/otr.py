"""OTR: rewards by optimal transport from an episode to an expert's.

Luo, Jiang, Cohen, Grefenstette and Deisenroth, "Optimal Transport for Offline Imitation Learning", 2023; a baseline of
CLUE. Transport is ott-jax's (`pip install 'trajclust-jax[otr]'`).

for each episode of T steps and each demonstration:
    P = the coupling of their observations of least cost <P, C> - eps H(P),  C cosine distances      (Sinkhorn)
    r_t = -T sum_j P_tj C_tj
of several demonstrations, the one with the highest return;  rewards are alpha exp(beta r_t / D)
"""

import dataclasses
import functools
import importlib
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trajclust_jax.data.preparation import normalisation
from trajclust_jax.data.types import DataError, dense
from trajclust_jax.lazy import lazy
from trajclust_jax.relabelling.experts import ExpertData
from trajclust_jax.relabelling.relabeller import Relabelled, Relabeller
from trajclust_jax.validation import check_above, check_at_least

costs = lazy("ott.geometry.costs")
geometry = lazy("ott.geometry.geometry")
linear = lazy("ott.solvers.linear")


@dataclasses.dataclass(frozen=True)
class OTR(Relabeller):
    """Settings; the defaults are the released code's for locomotion and Adroit.

    Antmaze there: beta 1, not divided by the observation's size, and 2 taken off every scaled reward.
    """

    alpha: float = 5.0
    """Of the rewards alpha exp(beta s)."""
    beta: float = 5.0
    """The exponent's factor."""
    by_size: bool = True
    """beta is divided by D, the size of an observation."""
    epsilon: float = 0.01
    """Of the entropy."""
    iterations: int = 100
    """At most, of Sinkhorn's algorithm."""
    normalise: bool = False
    """Observations have mean 0 and std 1, which the release leaves as they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above(self, 0, "alpha", "beta", "epsilon")
        check_at_least(self, 1, "iterations")

    def check(self, data: ExpertData) -> None:
        super().check(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # ott-jax imports JAXopt, which is not maintained
                importlib.import_module("ott.solvers.linear")
        except ImportError:
            raise DataError("otr needs ott-jax, which is not installed: pip install 'trajclust-jax[otr]'") from None
        for steps in data.experts:
            _whole(data, steps)

    def relabel(self, data: ExpertData, seeds: tuple[int, ...], **options: Any) -> Relabelled:
        """The same for all seeds: nothing is drawn."""
        self.check(data)
        rewards = np.stack([self._of_expert(data, steps) for steps in data.experts])
        return Relabelled(np.broadcast_to(rewards, (len(seeds), *rewards.shape)))

    def _of_expert(self, data: ExpertData, steps: np.ndarray) -> np.ndarray:
        """`[P]` float32 rewards by the expert whose steps are `steps`; one program serves all episodes."""
        observed = np.asarray(dense(data.flat.observations), np.float32).reshape(len(data.flat.rewards), -1)
        if self.normalise:
            mean, std = normalisation(observed)
            observed = ((observed - mean) / std).astype(np.float32)
        lengths = np.asarray(data.trajectories.lengths)
        horizon, size = int(lengths.max()), observed.shape[1]
        demonstrations = [_padded(observed[rows]) for rows in _whole(data, steps)]
        beta = self.beta / size if self.by_size else self.beta
        rewards, first = np.empty(data.num_steps, np.float32), 0
        for length in lengths:
            episode = np.zeros((horizon, size), np.float32)
            episode[:length] = observed[first : first + length]
            found = [
                self.alpha * np.exp(beta * -np.asarray(_aligned(self, episode, length, *each))[:length])
                for each in demonstrations
            ]
            rewards[first : first + length] = max(found, key=np.sum)
            first += length
        return rewards


def _padded(observations: np.ndarray) -> tuple[np.ndarray, int]:
    """`[t, D]` with zeros to the next power of 2, so that demonstrations share programs; and t."""
    length = len(observations)
    padded = np.zeros((1 << (length - 1).bit_length(), observations.shape[1]), np.float32)
    padded[:length] = observations
    return padded, length


def _whole(data: ExpertData, steps: np.ndarray) -> list[np.ndarray]:
    """The expert's trajectories, each as its steps `[t]`.

    Raises:
        DataError: where the expert is steps without the rest of their trajectories.
    """
    number = data.flat.trajectory[steps]
    found = np.split(steps, np.flatnonzero(np.diff(number)) + 1)
    whole = np.asarray(data.pooled.lengths)[np.unique(number)]
    if [len(rows) for rows in found] != whole.tolist():
        raise DataError("otr aligns whole trajectories: classes of single steps are no expert for it")
    return found


@functools.partial(jax.jit, static_argnums=0)
def _aligned(otr: OTR, episode: jax.Array, length: jax.Array, expert: jax.Array, expert_length: jax.Array) -> jax.Array:
    """`[T]`: each step's share of the transport's cost, times the episode's length; padding weighs nothing."""
    weights = lambda size, count: jnp.where(jnp.arange(size) < count, 1 / count, 0.0)
    cost = costs.Cosine().all_pairs(episode, expert)
    plan = linear.solve(
        geometry.Geometry(cost, epsilon=otr.epsilon),
        *(weights(len(episode), length), weights(len(expert), expert_length)),
        max_iterations=otr.iterations,
        threshold=1e-9,
    )
    return length * (plan.matrix * cost).sum(1)
