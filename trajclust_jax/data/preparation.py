"""From trajectories to what a learner draws from: small independent transforms, which a training chains.

Rewards first (`DataTransform`: trajectories in, trajectories out; what a relabeller learned gives them before, as a
dataset of its own: `relabelling.relabelled_dataset`), then the choice of trajectories and transitions, then the scaling
of observations and actions.
"""

import dataclasses
import itertools
import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from trajclust_jax.data.dataset import spread_of_returns
from trajclust_jax.data.types import Codebook, Trajectories, Transitions
from trajclust_jax.lazy import lazy

signal = lazy("scipy.signal")

_STD_FLOOR = 1e-3  # added to every std, as in TD3+BC's code
FAR = 10.0  # times the bound of 99 % of the actions: larger ones are taken for mistakes
_BLOCK = 2**20  # numbers in float64 at a time

log = logging.getLogger(__name__)


# --- rewards --------------------------------------------------------------------------------------------


class DataTransform(Protocol):
    """Trajectories in, trajectories out, host-side: other rewards, or fewer trajectories."""

    def __call__(self, trajectories: Trajectories) -> Trajectories: ...


@dataclasses.dataclass(frozen=True)
class ScaleReturns:
    """Rewards are scaled so that the best return exceeds the worst by `range` (IQL's code, for locomotion).

    Nothing changes if all returns are equal, but for rounding; else rewards become float64.
    """

    range: float

    def __call__(self, trajectories: Trajectories) -> Trajectories:
        spread = spread_of_returns(trajectories)
        if not spread > 0:
            return trajectories
        return trajectories.replace(rewards=np.asarray(trajectories.rewards) * (self.range / spread))


@dataclasses.dataclass(frozen=True)
class ShiftRewards:
    """Rewards become `scale * reward + shift`, float32 (antmaze: a shift of -1)."""

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, trajectories: Trajectories) -> Trajectories:
        rewards = self.scale * np.asarray(trajectories.rewards) + self.shift
        return trajectories.replace(rewards=rewards.astype(np.float32))


# --- which trajectories, which transitions -----------------------------------------------------------------


def best_share(group: np.ndarray, returns: np.ndarray, share: float) -> np.ndarray:
    """The share of the trajectories `group` with the highest returns, at least one, in the data's order."""
    count = max(math.floor(share * len(group)), min(1, len(group)))
    return np.sort(group[np.argsort(-returns[group], kind="stable")[:count]])


def known_successors(
    truncated: np.ndarray, observations: np.ndarray, successors: np.ndarray, frames: "Frames | None" = None
) -> np.ndarray:
    """`[P]` bool: the transitions that one can bootstrap from.

    A truncated step whose successor equals its observation is not one: readers repeat the observation where files do
    not say what followed. Observations are `[P, D]`, or rows `[P]` of the frames.
    """
    known, cut = np.ones(len(truncated), bool), np.flatnonzero(truncated)
    values = lambda rows: rows if frames is None else frames.at(rows, np)
    known[cut] = (values(successors[cut]) != values(observations[cut])).any(1)
    return known


def next_actions(actions: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """`[P, A]`: the action recorded after each of `actions [P, A]`; zeros after a trajectory's last (`ends [P]`)."""
    return np.where(ends[:, None], 0, np.roll(actions, -1, axis=0)).astype(np.float32)


class NSteps(NamedTuple):
    """n-step returns from each of P transitions, with fewer steps where the trajectory ends sooner."""

    rewards: np.ndarray  # [P] float32: discounted sum
    last: np.ndarray  # [P] int32: the transition that the sum ends with; its successor is bootstrapped from
    discount: np.ndarray  # [P] float32: of that successor's value; 0 where the last step was terminal


def n_steps(flat: Transitions, n: int, discount: float) -> NSteps:
    """n-step returns of recorded trajectories, host-side; `flat` has each trajectory's steps in order."""
    count = len(flat.rewards)
    ends = np.append(np.flatnonzero(np.diff(flat.trajectory)), count - 1)
    end = ends[np.searchsorted(ends, np.arange(count))]  # of each step's trajectory
    last = np.minimum(np.arange(count) + n - 1, end)
    rewards = np.zeros(count)
    for i in range(n):
        step = np.arange(count) + i
        rewards += np.where(step <= last, discount**i * flat.rewards[np.minimum(step, count - 1)], 0)
    left = np.where(flat.terminated[last], 0, discount ** (last - np.arange(count) + 1.0))
    return NSteps(rewards.astype(np.float32), last.astype(np.int32), left.astype(np.float32))


def returns_to_go(flat: Transitions, discount: float) -> np.ndarray:
    """`[P]` float32: the discounted sum of the rewards from each step to its trajectory's end (EMPO, Eq. 10)."""
    rewards = np.asarray(flat.rewards, np.float64)
    bounds = [0, *np.flatnonzero(np.diff(flat.trajectory)) + 1, len(rewards)]
    back = lambda each: signal.lfilter([1.0], [1.0, -discount], each[::-1])[::-1]  # y[t] = x[t] + discount y[t - 1]
    found = [back(rewards[begin:end]) for begin, end in itertools.pairwise(bounds)]
    return np.concatenate(found).astype(np.float32)


# --- observations and actions ------------------------------------------------------------------------------


@struct.dataclass
class Scaling:
    """Observations normalised for a network and its actions scaled for the environment, alike in training and
    afterwards."""

    mean: jax.Array  # [..., D]
    std: jax.Array  # [..., D]
    bound: jax.Array  # [..., A]: actions are in [-bound, bound]

    def observations(self, observations: jax.Array) -> jax.Array:
        """`[..., n, D]`, normalised."""
        return (observations - self.mean[..., None, :]) / self.std[..., None, :]

    def actions(self, actions: jax.Array) -> jax.Array:
        """`[..., n, A]` in [-1, 1], as the environment takes them."""
        return actions * self.bound[..., None, :]


@struct.dataclass
class Frames:
    """Integer observations in their own dtype, each stored once; rows from U on are those of `final`."""

    steps: jax.Array  # [U, D]
    final: jax.Array | None  # [N, D], or None where `steps` has them too

    def at(self, rows: Any, numpy: Any = jnp) -> Any:
        """Rows `[n]` as `[n, D]`; host-side with `numpy=np`."""
        if self.final is None:
            return self.steps[rows]
        count = len(self.steps)
        final = self.final[numpy.maximum(rows - count, 0)]
        return numpy.where((rows < count)[:, None], self.steps[numpy.minimum(rows, count - 1)], final)


def framed(trajectories: Trajectories) -> tuple[Frames | None, Trajectories]:
    """Integer observations as frames, and trajectories whose observations are rows of them; others as they are."""
    observations, final = trajectories.observations, trajectories.final_observations
    coded = isinstance(observations, Codebook)
    values = np.asarray(observations.table if coded else observations)
    if values.dtype.kind not in "biu":
        return None, trajectories
    size = math.prod(trajectories.observation_shape)
    frames = Frames(values.reshape(-1, size), None if coded else np.asarray(final).reshape(-1, size))
    if coded:
        return frames, trajectories
    rows, count = np.arange(len(frames.steps), dtype=np.int32), len(frames.final)
    table = np.zeros((0, size), np.uint8)  # only the ids are used
    return frames, trajectories.replace(
        observations=Codebook(table, rows.reshape(values.shape[:2])),
        final_observations=Codebook(table, len(rows) + np.arange(count, dtype=np.int32)),
    )


def normalisation(observations: np.ndarray, frames: Frames | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale `[D]` float64 that normalise observations `[P, D]`, or those of the frames `[P]`, in blocks.

    The scale is the std plus a small number, as in TD3+BC's code: learners see what published ones see. Clusterers
    have a transform of their own (`transforms.input_transform`). It clips, drops columns of zeros and ignores outliers,
    so that clusters depend neither on a column's unit nor on failed readings; learners with it would be others.
    """
    if frames is None:
        return observations.mean(0, np.float64), observations.std(0, np.float64) + _STD_FLOOR
    size = max(1, _BLOCK // frames.steps.shape[1])
    blocks = [observations[start : start + size] for start in range(0, len(observations), size)]
    total = lambda of: sum(of(frames.at(rows, np).astype(np.float64)).sum(0) for rows in blocks) / len(observations)
    mean = total(lambda values: values)
    return mean, np.sqrt(total(lambda values: (values - mean) ** 2)) + _STD_FLOOR


def action_bound(actions: np.ndarray, trajectory: np.ndarray, given: Sequence[float]) -> np.ndarray:
    """`[A]` float32: the bound of all actions `[P, A]` but mistakes, which are warned of, and clipped.

    Dimensions within [-1, 1] have bound 1. Given bounds are used instead.
    """
    sizes = np.abs(actions)
    usual = np.maximum(np.quantile(sizes, 0.99, axis=0, method="lower"), 1)
    far = sizes > FAR * usual
    found = np.maximum(np.where(far, 0, sizes).max(0), 1)
    bound = np.asarray(given, np.float32) if len(given) else found
    if far.any():
        step, dimension = np.argwhere(far)[0]
        log.warning(
            "actions: trajectory %d has %g in dimension %d (%d such values); clipped to %g, repair or drop it",
            *(trajectory[step], actions[step, dimension], dimension, far.sum(), bound[dimension]),
        )
    return bound
