"""Statistics over seeds, against worked values and known distributions."""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from trajclust_jax.metrics import (
    bootstrap_interval,
    interquartile_mean,
    mean_std,
    probability_of_improvement,
    stratified_bootstrap,
)


def test_mean_std_worked_example():
    assert mean_std([1, 2, 3, 4, 5]) == (3.0, math.sqrt(2.5))
    assert mean_std([2.0, 2.0]) == (2.0, 0.0)


def test_one_value_has_no_spread():
    mean, std = mean_std([0.5])
    assert mean == 0.5
    assert math.isnan(std)


def test_bootstrap_of_two_values_is_worked_out():
    # The mean of two draws from {0, 1} is 0, .5, 1 with probability 1/4, 1/2, 1/4.
    assert bootstrap_interval([0, 1], np.random.default_rng(0), level=0.95) == (0.0, 1.0)
    assert bootstrap_interval([0, 1], np.random.default_rng(0), level=0.3) == (0.5, 0.5)
    assert bootstrap_interval([3.0], np.random.default_rng(0)) == (3.0, 3.0)


def test_bootstrap_is_a_function_of_the_generator():
    values = np.random.default_rng(0).normal(size=20)
    first, again, other = (bootstrap_interval(values, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_bootstrap_width_is_the_normal_one():
    values = np.random.default_rng(0).normal(size=500)
    low, high = bootstrap_interval(values, np.random.default_rng(1), level=0.9, num=4000)
    half = 1.645 * values.std() / math.sqrt(500)
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.1 * half)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bootstrap_covers_the_mean_of_normal_samples(level):
    rng = np.random.default_rng(0)
    intervals = np.array([bootstrap_interval(rng.normal(2, 3, size=40), rng, level, num=400) for _ in range(500)])
    coverage = np.mean((intervals[:, 0] < 2) & (intervals[:, 1] > 2))
    assert abs(coverage - level) < 0.05  # the percentile interval is about .01 short at this size


@pytest.mark.parametrize("level", [0, 1, 95])
def test_bootstrap_rejects_bad_levels(level):
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval([1, 2], np.random.default_rng(0), level)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], 3.0])
def test_rejects_what_is_not_a_vector(values):
    with pytest.raises(ValueError, match="values must be"):
        mean_std(values)


def test_interquartile_mean_by_hand():
    assert interquartile_mean([8, 1, 2, 3, 4, 5, 6, 100]) == pytest.approx((3 + 4 + 5 + 6) / 4)
    assert interquartile_mean([[1, 2], [3, 10]]) == pytest.approx(2.5)
    assert interquartile_mean([0, 10, 20, 30, 100]) == pytest.approx(20)  # a quarter of five, rounded down: one
    assert interquartile_mean([7]) == 7
    assert np.isnan(interquartile_mean([1.0, np.nan, 2.0, 3.0]))


def test_stratified_bootstrap_draws_within_tasks():
    """Two tasks of constant scores: however seeds are drawn, one half is 0 and the other 10."""
    rng = np.random.default_rng(0)
    assert stratified_bootstrap([[0, 0, 0], [10, 10, 10]], np.mean, rng, num=50) == (5, 5)


def test_stratified_bootstrap_of_several_statistics_at_once():
    """Each has the interval that it has alone."""
    scores = [[0.0, 1.0, 5.0], [2.0, 9.0]]
    both = lambda values: np.array([values.mean(), values.max()])
    low, high = stratified_bootstrap(scores, both, np.random.default_rng(0), num=50)
    for place, statistic in enumerate((np.mean, np.max)):
        alone = stratified_bootstrap(scores, statistic, np.random.default_rng(0), num=50)
        assert (low[place], high[place]) == alone


def test_stratified_bootstrap_of_one_task_is_the_plain_one():
    values = np.random.default_rng(1).normal(size=12)
    plain = bootstrap_interval(values, np.random.default_rng(2), num=4000)
    ours = stratified_bootstrap([values], np.mean, np.random.default_rng(3), num=4000)
    np.testing.assert_allclose(ours, plain, atol=0.05)
    assert ours == stratified_bootstrap([values], np.mean, np.random.default_rng(3), num=4000)
    with pytest.raises(ValueError, match="level"):
        stratified_bootstrap([values], np.mean, np.random.default_rng(0), level=2)


def test_probability_of_improvement_by_hand():
    # first task: of 6 pairs 4 are better and one is a tie; second task: none is
    assert probability_of_improvement([[1, 5], [0]], [[0, 5, 2], [1]]) == pytest.approx(((3 + 0.5) / 6 + 0) / 2)
    assert probability_of_improvement([[1, 2]], [[1, 2]]) == 0.5
    # Mann-Whitney's U says the same
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=9), rng.normal(size=7)
    assert probability_of_improvement([a], [b]) == pytest.approx(mannwhitneyu(a, b).statistic / 63)
