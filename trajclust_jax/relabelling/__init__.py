"""Rewards for trajectories that have none, or sparse ones, from a few of an expert's."""

from trajclust_jax.relabelling.clue import CLUE
from trajclust_jax.relabelling.experts import (
    ExpertData,
    of_best,
    of_classes,
    of_clusters,
    of_demonstrations,
    of_successes,
    of_trajectories,
)
from trajclust_jax.relabelling.oril import ORIL
from trajclust_jax.relabelling.otr import OTR
from trajclust_jax.relabelling.plain import Constant, Indicator
from trajclust_jax.relabelling.relabeller import (
    Model,
    Relabelled,
    Relabeller,
    TrainedRelabeller,
    expert_auc,
    relabelled_dataset,
    rewarded_copies,
    with_rewards,
)

__all__ = [
    "CLUE",
    "ORIL",
    "OTR",
    "Constant",
    "ExpertData",
    "Indicator",
    "Model",
    "Relabelled",
    "Relabeller",
    "TrainedRelabeller",
    "expert_auc",
    "of_best",
    "of_classes",
    "of_clusters",
    "of_demonstrations",
    "of_successes",
    "of_trajectories",
    "relabelled_dataset",
    "rewarded_copies",
    "with_rewards",
]
