"""Scores of clusterings and statistics over seeds: plain NumPy, on the host."""

from trajclust_jax.metrics.clustering import (
    adjusted_rand,
    batch_scores,
    contingency,
    matched_accuracy,
    nmi,
    rand_index,
    scores,
    used_clusters,
)
from trajclust_jax.metrics.statistics import bootstrap_interval, mean_std

__all__ = [
    "adjusted_rand",
    "batch_scores",
    "bootstrap_interval",
    "contingency",
    "matched_accuracy",
    "mean_std",
    "nmi",
    "rand_index",
    "scores",
    "used_clusters",
]
