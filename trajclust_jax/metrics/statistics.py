"""Statistics over seeds."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trajclust_jax.lazy import lazy

stats = lazy("scipy.stats")


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


def interquartile_mean(values: ArrayLike) -> float:
    """The mean of the middle half of all values, a quarter (rounded down) cut at either end; NaN where one is.

    Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (2021), section 4.3.
    """
    return float(stats.trim_mean(np.asarray(values, np.float64), 0.25, axis=None))


def stratified_bootstrap(
    scores: Sequence[ArrayLike],
    statistic: Callable[[np.ndarray], ArrayLike],
    rng: np.random.Generator,
    level: float = 0.95,
    num: int = 2000,
) -> tuple[Any, Any]:
    """`(low, high)`: the percentile interval of a statistic of several tasks' scores taken together.

    Seeds are drawn with repetition within each task (Agarwal et al. 2021, section 4.1).

    Args:
        scores: of each task, `[S]`; numbers of seeds may differ.
        statistic: of all scores in one vector, task by task, e.g. `interquartile_mean`: a number, then `low` and `high`
            are floats, or `[n]`, then they are `[n]`, each of a value by itself.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    tasks = [_vector(each) for each in scores]
    draw = lambda: np.concatenate([each[rng.integers(len(each), size=len(each))] for each in tasks])
    drawn = [statistic(draw()) for _ in range(num)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


def probability_of_improvement(scores: Sequence[ArrayLike], others: Sequence[ArrayLike]) -> float:
    """The mean over tasks of P(a seed of the first scores more than one of the others), ties one half.

    Agarwal et al. 2021, section 4.3. Both are lists of `[S]`, a task each.
    """
    means = []
    for ours, theirs in zip(scores, others, strict=True):
        difference = _vector(ours)[:, None] - _vector(theirs)
        means.append(np.mean((difference > 0) + 0.5 * (difference == 0)))
    return float(np.mean(means))


def _vector(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values must be [S] with S >= 1, not {values.shape}")
    return values
