"""How trajectories become inputs of policies and encoders.

It is fitted to the trajectories that an algorithm is trained on and kept with its parameters, so that other
trajectories are transformed in the same way.
"""

from typing import Self

import numpy as np
from flax import struct

from trajclust_jax.clustering.images import ImageInputs, fitted_inputs
from trajclust_jax.data import Trajectories
from trajclust_jax.data.transforms import ActionScaling, Inputs, action_scaling


@struct.dataclass
class Preprocessing:
    """What an algorithm needs; the rest is None."""

    inputs: Inputs | ImageInputs | None = None  # of observations
    actions: ActionScaling | None = None  # of continuous actions
    observations: np.ndarray | None = None  # [U, ...]: the codebook whose rows tabular policies are indexed by
    agent: int | None = None  # the plane of maps `[H, W, planes]` that marks the agent's cell
    moves: np.ndarray | None = None  # [A, 4] float32: how often each action moved up, down, left, right on maps
    summaries: tuple[np.ndarray, np.ndarray] | None = None  # mean and std `[D + A]` of mean steps, over trajectories

    @classmethod
    def of(cls, trajectories: Trajectories) -> Self:
        """What networks on observations, or on images' features, need."""
        return cls(fitted_inputs(trajectories), action_scaling(trajectories))
