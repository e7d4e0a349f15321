"""Values that mean 'no reading' are told apart from data."""

import numpy as np
import pytest

from trajclust_jax.data import build_dataset, ill_scaled, suspicious


@pytest.mark.parametrize("value", [-9999.0, 32767.0, 1e20, 3e38, -1.0e4])
def test_repeated_far_values_are_named_with_column_and_count(continuous, value):
    data = continuous(n=20, t=12, padding=1e30)
    assert suspicious(data) == []
    data.observations[0, [1, 5, 7], 2] = value
    data.actions[0, [0, 3], 1] = value
    data.rewards[[0, 1], [2, 0]] = value
    lines = suspicious(data)
    assert len(lines) == 3
    assert lines[0].startswith(f"observations column 2: {value:g} appears 3 times")
    assert lines[1].startswith(f"actions column 1: {value:g} appears 2 times")
    assert lines[2].startswith(f"rewards: {value:g} appears 2 times")


def test_a_single_absurd_value_is_named(continuous):
    data = continuous(n=20, t=12)
    data.observations[0, 3, 1] = 3e38
    (line,) = suspicious(data)
    assert line.startswith("observations column 1: 3e+38 appears once")


def test_several_in_one_column(continuous):
    data = continuous(n=20, t=12)
    for step, value in enumerate((-9999.0, -9999.0, 9999.0, 9999.0, 1e20, 1e20)):
        data.observations[0, step, 0] = value
    assert [line.split()[3] for line in suspicious(data)] == ["1e+20", "-9999", "9999"]


def test_what_data_may_look_like(continuous, discrete):
    data = continuous(n=20, t=12)
    data.observations[0, 3, 0] = 1e6  # once: an outlier
    data.observations[..., 1] = data.observations[..., 1] > 1  # states
    data.observations[:, ::3, 2] = 10.0  # a sensor's limit
    assert suspicious(data) == []
    assert suspicious(data.replace(observations=data.observations * 0 + 1)) == []
    assert suspicious(discrete()) == []  # images


def test_codebooks_are_counted_by_their_use(continuous):
    data = continuous(n=40, t=12)
    data.observations[:] = np.round(data.observations)[..., :1] + np.arange(12)[:, None]
    data.final_observations[:] = 0
    data.observations[:, 2, 0] = -9999
    coded = build_dataset(data, name="x", source="x").trajectories
    assert len(coded.observations.table) < 480
    assert suspicious(coded) == suspicious(data)
    assert len(suspicious(coded)) == 1


@pytest.mark.parametrize(
    ("scale", "shift", "as_they_are", "normalised"),
    [
        (1, 0, False, False),
        (0.05, 0.8, False, False),  # as MuJoCo's heights
        (15, -30, False, False),
        (1e-3, 0, True, True),
        (1e-6, 0, True, True),
        (1e4, 0, True, False),
        (1, 1e4, True, False),
        (1, 3e5, True, True),  # float32 holds few of its digits
        (0, 1, False, False),
        (0, 1e5, True, False),
    ],
)
def test_units_that_hide_a_column(continuous, scale, shift, as_they_are, normalised):
    data = continuous(n=20, t=12, padding=1e30)
    data.observations[..., 1] = data.observations[..., 1] * scale + shift
    for normalise, hidden in ((False, as_they_are), (True, normalised)):
        line = ill_scaled(data, normalise)
        assert (line is not None) == hidden
        assert line is None or line.startswith("1 of 3 columns of observations (1) are far from 0")


def test_rare_events_are_in_no_unit(continuous, discrete):
    data = continuous(n=40, t=12)
    data.observations[..., 0] = 1e-5 * data.observations[..., 0]
    data.observations[0, 0, 0] = 1.0  # a contact
    data.observations[..., 2] = 1.0  # a flag
    data.observations[0, 1, 2] = 0.0
    assert ill_scaled(data, False) is None
    assert ill_scaled(data, True) is None
    assert ill_scaled(discrete(), False) is None  # images
