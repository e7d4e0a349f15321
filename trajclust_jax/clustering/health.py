"""How to recognise a bad run without labels (host-side, NumPy).

A representation method can fail silently: all trajectories at one code, unused codes, latents without groups. Each of
these can be seen without labels.
"""

import numpy as np

from trajclust_jax.clustering.types import Grouping

SAMPLE = 2000  # trajectories of the silhouette: a fixed random sample, since its cost is quadratic
LEAST_SPREAD = 1e-2  # total variance of latents below which they are one point; Eq. 4 gives a cluster variance up to d
LEAST_SEPARATION = 0.1  # nats a step; of a behaviour set whose network does without its codes .02
APART = 0.5  # nats a step, above which there are groups, whatever the latents look like; of two Hopper policies 2
LEAST_SILHOUETTE = 0.25  # below it groups are hardly apart (Kaufman and Rousseeuw, 1990, call it no structure)


def diagnose(clustering: Grouping) -> tuple[dict[str, float | None], list[str]]:
    """Health of one run (no seed axis), and its problems, a line each.

    Health holds used_clusters; where there are latents also their spread (total variance) and silhouette (mean over
    `SAMPLE` trajectories drawn by NumPy's generator 0; None where one cluster alone is used there); where it is known
    the separation of the clusters' policies, too.
    """
    assignments, num_clusters = np.asarray(clustering.assignments), clustering.posterior.shape[-1]
    used = len(np.unique(assignments))
    health: dict[str, float | None] = {"used_clusters": used}
    warnings = []
    if not np.isfinite(clustering.objective):
        warnings.append("diverged: the objective is not finite")
    if used < num_clusters:
        warnings.append(f"{used} of {num_clusters} clusters are used")
    apart = clustering.separation is not None and clustering.separation >= APART
    if clustering.latents is not None:
        latents = np.asarray(clustering.latents, np.float64)
        health["spread"] = spread = float(latents.var(0).sum())
        health["silhouette"] = silhouette = _silhouette(latents, assignments)
        if spread < LEAST_SPREAD:
            warnings.append(f"collapsed: the latents are one point (total variance {spread:.2g})")
        elif silhouette is not None and silhouette < LEAST_SILHOUETTE and not apart:
            warnings.append(f"no clear groups: the latents' silhouette is {silhouette:.2f}")
    if clustering.separation is not None:
        health["separation"] = separation = float(clustering.separation) if used > 1 else None
        if separation is not None and separation < LEAST_SEPARATION:
            warnings.append(
                f"collapsed: a trajectory is {separation:.2g} nats a step likelier by its cluster's policy than by the "
                "others', which are nearly alike"
            )
    return health, warnings


def _silhouette(latents: np.ndarray, assignments: np.ndarray) -> float | None:
    from sklearn.metrics import silhouette_score

    if len(latents) > SAMPLE:
        chosen = np.random.default_rng(0).choice(len(latents), SAMPLE, replace=False)
        latents, assignments = latents[chosen], assignments[chosen]
    if not np.isfinite(latents).all() or not 1 < len(np.unique(assignments)) < len(latents):
        return None
    return float(silhouette_score(latents, assignments))
