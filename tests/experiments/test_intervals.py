"""Intervals as tables and figures show them."""

import numpy as np

from trajclust_experiments.rendering.figures import new_figure
from trajclust_experiments.rendering.intervals import difference_interval, draw_mean, interval, interval_text


def test_the_difference_of_two_means_draws_the_seeds_of_each():
    ours, theirs = np.array([1.0, 4.0, 9.0]), np.array([2.0, 3.0])
    rng = np.random.default_rng(0)
    draws = [rng.choice(ours, 3).mean() - rng.choice(theirs, 2).mean() for _ in range(2000)]
    np.testing.assert_allclose(difference_interval(ours, theirs), np.percentile(draws, [2.5, 97.5]), rtol=1e-12)
    assert difference_interval(ours, ours[:1]) == tuple(bound - 1 for bound in interval(ours))


def test_a_table_and_a_figure_show_the_same_interval():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    low, high = interval(values)
    assert interval_text(values, 2) == f"{low:.2f} to {high:.2f}"
    ax = new_figure(2, 2).subplots()
    draw_mean(ax, 3, values, "black")
    assert ax.patches[0].get_width() == values.mean()
    (bar,) = ax.collections
    np.testing.assert_allclose(bar.get_segments()[0], [[low, 3], [high, 3]])
