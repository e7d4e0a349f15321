"""Learners of policies from transitions."""

from trajclust_jax.learners.replay import Batch, Replay
from trajclust_jax.learners.sac import SAC

__all__ = ["SAC", "Batch", "Replay"]
