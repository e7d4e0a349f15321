"""Scores of clusterings and statistics over seeds: plain NumPy, on the host."""

from trajclust_jax.metrics.calibration import calibration
from trajclust_jax.metrics.clustering import (
    adjusted_rand,
    batch_scores,
    contingency,
    match_clusters,
    matched_accuracy,
    matched_correct,
    nmi,
    rand_index,
    scores,
    used_clusters,
)
from trajclust_jax.metrics.policies import behavioural_kl
from trajclust_jax.metrics.ranking import auc, rank_correlation
from trajclust_jax.metrics.skills import policy_divergences, state_distances
from trajclust_jax.metrics.statistics import (
    bootstrap_interval,
    interquartile_mean,
    mean_std,
    probability_of_improvement,
    stratified_bootstrap,
)

__all__ = [
    "adjusted_rand",
    "auc",
    "batch_scores",
    "behavioural_kl",
    "bootstrap_interval",
    "calibration",
    "contingency",
    "interquartile_mean",
    "match_clusters",
    "matched_accuracy",
    "matched_correct",
    "mean_std",
    "nmi",
    "policy_divergences",
    "probability_of_improvement",
    "rand_index",
    "rank_correlation",
    "scores",
    "state_distances",
    "stratified_bootstrap",
    "used_clusters",
]
