"""Is the answer unique? How far restarts of one method agree, and how certain each trajectory's cluster is.

Host-side NumPy on a `Clustering` of one seed; no labels. Appendix A.3 of the PG-Kmeans paper shows why it matters:
quite different clusterings can explain the same data equally well, and the objective cannot tell them apart.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trajclust_jax.clustering.types import Clustering
from trajclust_jax.metrics import nmi

TOLERANCE = 0.2
"""Nats a trajectory: restarts whose objective is this close to the best count as equally good. It is a likelihood ratio
of e^0.2 = 1.2 a trajectory on average, too little to decide a trajectory's cluster."""
AGREEMENT = 0.8
"""NMI from which two clusterings count as the same solution. On Diagonal, where one trajectory in fifteen fits two
experts equally well, restarts that broke ties differently are above .9."""


def restart_agreement(assignments: ArrayLike) -> np.ndarray:
    """Pairwise NMI `[R, R]` of assignments `[R, N]`; 1 on the diagonal."""
    assignments = np.asarray(assignments)
    agreement = np.eye(len(assignments))
    for r, s in zip(*np.triu_indices(len(assignments), 1), strict=True):
        agreement[r, s] = agreement[s, r] = nmi(assignments[r], assignments[s])
    return agreement


def posterior_entropy(posterior: ArrayLike) -> np.ndarray:
    """Entropy `[N]` of posteriors `[N, K]`, as a share of log K: 0 is certain, 1 is uniform. 0 for K = 1."""
    posterior = np.asarray(posterior, np.float64)
    logs = np.log(np.where(posterior > 0, posterior, 1))
    return -(posterior * logs).sum(1) / np.log(max(posterior.shape[1], 2))


def solution_groups(
    agreement: np.ndarray,
    objectives: ArrayLike,
    num_trajectories: int,
    tolerance: float = TOLERANCE,
    threshold: float = AGREEMENT,
) -> list[list[int]]:
    """Groups of equally good solutions: restarts, best first, in groups by agreement.

    A restart within `tolerance` nats a trajectory of the best objective joins the first group whose best member it
    agrees with (NMI >= `threshold`), or opens a group of its own. Diverged restarts (NaN) belong to none.
    """
    objectives = np.where(np.isnan(objectives), -np.inf, np.asarray(objectives, np.float64))
    groups: list[list[int]] = []
    for r in np.argsort(-objectives, kind="stable").tolist():
        if objectives[r] == -np.inf or objectives[r] < objectives.max() - tolerance * num_trajectories:
            break
        group = next((group for group in groups if agreement[group[0], r] >= threshold), None)
        groups.append([r]) if group is None else group.append(r)
    return groups


def ambiguity(clustering: Clustering, tolerance: float = TOLERANCE, threshold: float = AGREEMENT) -> dict[str, Any]:
    """Whether restarts agree, as plain JSON values, and in a sentence.

    Returns:
        agreement `[R][R]`, mean_agreement (over pairs of all restarts; None for one), groups (lists of restarts, best
        first), good_restarts, unique (False: several groups; None: unknown, with fewer than two good restarts),
        mean_entropy (of the posteriors, 0 to 1), message, tolerance, threshold.
    """
    assignments = np.asarray(clustering.restart_assignments)
    num_restarts, num_trajectories = assignments.shape
    agreement = restart_agreement(assignments)
    groups = solution_groups(agreement, clustering.restart_objectives, num_trajectories, tolerance, threshold)
    good = sum(map(len, groups))
    pairs = agreement[np.triu_indices(num_restarts, 1)]
    if good < 2:
        unique, message = None, _of_a_lone_best(agreement, np.asarray(clustering.restart_objectives), threshold)
    elif len(groups) == 1:
        unique, message = True, f"the answer looks unique: the {good} best of {num_restarts} restarts agree"
    else:
        unique, message = False, f"the answer is not unique: {len(groups)} groups of equally good solutions"
    return {
        "unique": unique,
        "message": message,
        "groups": groups,
        "good_restarts": good,
        "restarts": num_restarts,
        "mean_agreement": float(pairs.mean()) if len(pairs) else None,
        "agreement": agreement.tolist(),
        "mean_entropy": float(posterior_entropy(clustering.posterior).mean()),
        "tolerance": tolerance,
        "threshold": threshold,
    }


def _of_a_lone_best(agreement: np.ndarray, objectives: np.ndarray, threshold: float) -> str:
    """The message where at most one restart is good: others may have found its clustering, with less likely
    policies."""
    count, finite = len(objectives), np.isfinite(objectives)
    if not finite.any():
        return f"0 of {count} restarts have an objective: all diverged"
    best = int(np.where(finite, objectives, -np.inf).argmax())
    alike = int((agreement[best] >= threshold)[finite].sum())
    if alike > 1:
        return f"restarts agree: {alike} of {count} found the best one's clustering (NMI of {threshold} or more)"
    return f"1 of {count} restarts reached the best objective, and no other has its clustering: run more to compare"
