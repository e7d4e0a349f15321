"""Whether a clustering's confidence can be trusted: confidence against being right."""

import numpy as np
from numpy.typing import ArrayLike


def calibration(confidence: ArrayLike, correct: ArrayLike, num_bins: int = 10) -> tuple[dict[str, np.ndarray], float]:
    """Reliability table and expected calibration error of `confidence [N]` in [0, 1] against `correct [N]` bool.

    Returns:
        The table, arrays `[num_bins]` over equal bins of confidence (a confidence of 1 in the last): low, high,
        count, confidence and accuracy (means; NaN in empty bins); and the error: the mean over trajectories of
        |confidence - accuracy| of their bins (Naeini et al., 2015).
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, bool)
    if confidence.ndim != 1 or confidence.shape != correct.shape or not len(confidence):
        raise ValueError(f"confidence {confidence.shape} and correct {correct.shape} must be [N] with the same N >= 1")
    if num_bins < 1 or confidence.min() < 0 or confidence.max() > 1 + 1e-5:
        raise ValueError("confidence must be within 0 and 1, and num_bins at least 1")
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    count = np.bincount(bins, minlength=num_bins)
    sums = [np.bincount(bins, values, num_bins) for values in (confidence, correct)]
    with np.errstate(invalid="ignore"):
        means = [total / count for total in sums]
    error = float(np.abs(sums[0] - sums[1]).sum() / len(confidence))
    edges = np.linspace(0, 1, num_bins + 1)
    table = {"low": edges[:-1], "high": edges[1:], "count": count, "confidence": means[0], "accuracy": means[1]}
    return table, error
