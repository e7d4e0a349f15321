"""How well scores order what they score: rewards against who acted, and against true returns."""

import numpy as np
from numpy.typing import ArrayLike

from trajclust_jax.lazy import lazy

stats = lazy("scipy.stats")


def auc(scores: ArrayLike, positive: ArrayLike) -> float:
    """The probability that a positive's score is above another's, ties one half; NaN where all or none are positive.

    Args:
        scores: `[n]`.
        positive: `[n]` bool.
    """
    scores, positive = np.asarray(scores), np.asarray(positive, bool)
    count = int(positive.sum())
    if not 0 < count < len(positive):
        return float("nan")
    ranks = stats.rankdata(scores)
    return float((ranks[positive].mean() - (count + 1) / 2) / (len(positive) - count))


def rank_correlation(scores: ArrayLike, others: ArrayLike) -> float:
    """Spearman's of `[n]` and `[n]`; NaN where either is constant."""
    ranks = [stats.rankdata(each) for each in (scores, others)]
    if any(np.ptp(each) == 0 for each in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])
