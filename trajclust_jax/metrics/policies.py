"""Scores of the found policies against the true ones. Labels and true policies enter here and nowhere before."""

import numpy as np
from numpy.typing import ArrayLike

from trajclust_jax.metrics.clustering import contingency, match_clusters


def behavioural_kl(
    labels: ArrayLike,
    assignments: ArrayLike,
    log_likelihoods: ArrayLike,
    true_log_likelihoods: ArrayLike,
    lengths: ArrayLike,
) -> np.ndarray:
    """KL(true policy || matched found policy) `[k*]`, nats a step, over the observations that the true policy meets.

    Estimated from the trajectories that true policy l made: the mean over their steps of
    log pi_l(a|s) - log pi_m(a|s), where m is the cluster matched to l. Unbiased for a found policy that was fitted to
    other data; on the data it was fitted to it comes out low, for stochastic policies even below 0.

    A found policy that rules out an action that was taken has KL infinity. A label without trajectories has NaN.

    Args:
        labels: `[N]`, the true policy of each trajectory.
        assignments: `[N]`, its cluster; clusters are matched to labels one to one by their overlap, and a label that
            is left over (fewer clusters than labels) takes the cluster that holds most of its trajectories.
        log_likelihoods: `[N, K]`, log P(actions | found policy).
        true_log_likelihoods: `[N, k*]`, log P(actions | true policy); -inf is allowed but for a trajectory's own.
        lengths: `[N]`, steps.

    Raises:
        ValueError: a trajectory that its own true policy rules out; shapes that don't fit.
    """
    labels, lengths = np.asarray(labels), np.asarray(lengths)
    found, true = (np.asarray(x, np.float64) for x in (log_likelihoods, true_log_likelihoods))
    table = contingency(labels, assignments)
    if len(found) != len(labels) or len(true) != len(labels) or lengths.shape != labels.shape:
        raise ValueError(f"give {len(labels)} lengths and rows of log-likelihoods, as many as labels")
    if found.shape[1] < table.shape[1] or true.shape[1] < table.shape[0]:
        raise ValueError("log_likelihoods need a column for every cluster, true_log_likelihoods for every label")
    own = true[np.arange(len(labels)), labels]
    if np.isneginf(own).any():
        raise ValueError(f"trajectory {np.isneginf(own).argmax()} is impossible under its own true policy")
    matched = match_clusters(table)
    matched = np.where(matched < 0, table.argmax(1), matched)
    difference = own - found[np.arange(len(labels)), matched[labels]]
    num_policies = true.shape[1]
    with np.errstate(invalid="ignore"):
        return np.bincount(labels, difference, num_policies) / np.bincount(labels, lengths, num_policies)
