"""Learners of policies from transitions."""

from trajclust_jax.data.preparation import Scaling
from trajclust_jax.learners.awac import AWAC
from trajclust_jax.learners.bc import BC, DiscreteBC
from trajclust_jax.learners.bcq import BCQ
from trajclust_jax.learners.brac_v import BRACv
from trajclust_jax.learners.c4 import C4
from trajclust_jax.learners.cql import CQL, DiscreteCQL
from trajclust_jax.learners.dr3 import DR3
from trajclust_jax.learners.empo import EMPO
from trajclust_jax.learners.iql import IQL, DiscreteIQL
from trajclust_jax.learners.layer_norm import LayerNorm
from trajclust_jax.learners.lbrac_v import LBRACv
from trajclust_jax.learners.learner import ActorCritic, Backup, Learner, LearnerState, PlugIn, plugged
from trajclust_jax.learners.offline import Clustered, Offline, TrainedPolicy
from trajclust_jax.learners.plas import PLAS
from trajclust_jax.learners.replay import Replay
from trajclust_jax.learners.sac import SAC
from trajclust_jax.learners.sampling import Batch, Sampler, Uniform, View
from trajclust_jax.learners.sqil import SQIL
from trajclust_jax.learners.td3_bc import TD3BC

__all__ = [
    "AWAC",
    "BC",
    "BCQ",
    "C4",
    "CQL",
    "DR3",
    "EMPO",
    "IQL",
    "PLAS",
    "SAC",
    "SQIL",
    "TD3BC",
    "ActorCritic",
    "BRACv",
    "Backup",
    "Batch",
    "Clustered",
    "DiscreteBC",
    "DiscreteCQL",
    "DiscreteIQL",
    "LBRACv",
    "LayerNorm",
    "Learner",
    "LearnerState",
    "Offline",
    "PlugIn",
    "Replay",
    "Sampler",
    "Scaling",
    "TrainedPolicy",
    "Uniform",
    "View",
    "plugged",
]
