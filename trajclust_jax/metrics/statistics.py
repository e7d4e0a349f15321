"""Statistics over seeds."""

import numpy as np
from numpy.typing import ArrayLike


def mean_std(values: ArrayLike) -> tuple[float, float]:
    """Mean and sample standard deviation (S - 1 in the denominator) of `values [S]`; one value has std NaN."""
    values = _vector(values)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def bootstrap_interval(
    values: ArrayLike, rng: np.random.Generator, level: float = 0.95, num: int = 2000
) -> tuple[float, float]:
    """`(low, high)`: the percentile bootstrap interval of the mean of `values [S]`, from `num` resamples."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    values = _vector(values)
    means = values[rng.integers(len(values), size=(num, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _vector(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values must be [S] with S >= 1, not {values.shape}")
    return values
