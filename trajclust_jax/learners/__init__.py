"""Learners of policies from transitions."""

from trajclust_jax.learners.awac import AWAC
from trajclust_jax.learners.bc import BC
from trajclust_jax.learners.brac_v import BRACv
from trajclust_jax.learners.cql import CQL
from trajclust_jax.learners.iql import IQL
from trajclust_jax.learners.learner import Learner, LearnerState
from trajclust_jax.learners.offline import Clustered, Offline, Scaling, TrainedPolicy
from trajclust_jax.learners.replay import Batch, Replay
from trajclust_jax.learners.sac import SAC
from trajclust_jax.learners.td3_bc import TD3BC

__all__ = [
    "AWAC",
    "BC",
    "CQL",
    "IQL",
    "SAC",
    "TD3BC",
    "BRACv",
    "Batch",
    "Clustered",
    "Learner",
    "LearnerState",
    "Offline",
    "Replay",
    "Scaling",
    "TrainedPolicy",
]
