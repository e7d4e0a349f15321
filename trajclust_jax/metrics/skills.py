"""How different policies are: where they go, and what they do there."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from trajclust_jax.lazy import lazy

stats = lazy("scipy.stats")


def state_distances(visited: Sequence[ArrayLike]) -> np.ndarray:
    """`[E, E]` float64: between the states that E policies visit, the mean over dimensions of Wasserstein distances.

    Args:
        visited: of each policy, `[n, D]`, in comparable units; numbers may differ.
    """
    states = [np.asarray(each, np.float64) for each in visited]
    found = np.zeros((len(states), len(states)))
    for i, one in enumerate(states):
        for j in range(i):
            apart = [stats.wasserstein_distance(*pair) for pair in zip(one.T, states[j].T, strict=True)]
            found[i, j] = found[j, i] = np.mean(apart)
    return found


def policy_divergences(means: ArrayLike, stds: ArrayLike) -> np.ndarray:
    """`[E, E]` float64: KL(policy i || policy j), nats a step, over the states that i visits; diagonal Gaussians.

    Args:
        means: `[E, E, n, A]`: at the n states of policy i, the mean action of policy j.
        stds: `[E, A]`.
    """
    means, stds = np.asarray(means, np.float64), np.asarray(stds, np.float64)
    own = means[np.arange(len(means)), np.arange(len(means))][:, None]  # [E, 1, n, A]
    variance = stds**2
    ratio = (variance[:, None] / variance[None])[:, :, None]  # [E, E, 1, A]
    moved = (means - own) ** 2 / variance[None, :, None]
    return (0.5 * (ratio + moved - 1 - np.log(ratio))).sum(-1).mean(-1)
