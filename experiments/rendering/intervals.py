"""95% bootstrap intervals over seeds, of tables and figures: the same scores always give the same interval."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trajclust_experiments.rendering.columns import Column
from trajclust_jax.metrics import bootstrap_interval, stratified_bootstrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """`(low, high)` of the mean of `values [S]`."""
    return bootstrap_interval(values, np.random.default_rng(0))


def difference_interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """`(low, high)` of the mean of `ours [S]` minus that of `theirs`, whose number of seeds may be another."""
    difference = lambda values: values[: len(ours)].mean() - values[len(ours) :].mean()
    return stratified_bootstrap([ours, theirs], difference, np.random.default_rng(0))


def interval_text(values: Sequence[float] | np.ndarray, digits: int) -> str:
    """The interval of the mean of `values [S]`, as in "1.0 to 2.0"."""
    low, high = interval(values)
    return f"{low:.{digits}f} to {high:.{digits}f}"


def interval_column(values: Callable[[Any], Sequence[float] | np.ndarray], digits: int) -> Column:
    """The interval of the mean of an entry's values `[S]`."""
    return Column("95% interval", lambda entry: interval_text(values(entry), digits))


def draw_mean(ax: "Axes", position: float, values: np.ndarray, color: str) -> None:
    """A horizontal bar as long as the mean of `values [S]`, with its interval."""
    mean, (low, high) = values.mean(), interval(values)
    ax.barh(position, mean, height=0.6, color=color, zorder=2)
    ax.errorbar(mean, position, xerr=[[mean - low], [high - mean]], color="black", capsize=3, lw=1, zorder=3)


def draw_curve(ax: "Axes", x: Sequence[Any], values: Sequence[np.ndarray], color: str, label: str) -> None:
    """A line through the means of `values`, an `[S]` each place on the x axis, with a band of their intervals."""
    ax.plot(x, [each.mean() for each in values], "o-", color=color, ms=3, label=label)
    ax.fill_between(x, *np.array([interval(each) for each in values]).T, color=color, alpha=0.2, linewidth=0)
