"""Standardised inputs and actions against NumPy in float64."""

import numpy as np
import pytest

from trajclust_jax.data import Codebook, Trajectories, transforms
from trajclust_jax.data.codebook import encode
from trajclust_jax.data.transforms import CLIP, action_scaling, input_transform

N, T = 12, 5


def build(observations, actions=None, lengths=None):
    """Trajectories of these observations `[N, T, ...]`, the last of which are the final ones, too."""
    n, t = observations.shape[:2]
    return Trajectories(
        observations=observations,
        actions=np.zeros((n, t, 1), np.float32) if actions is None else actions,
        rewards=np.zeros((n, t), np.float32),
        lengths=np.full(n, t, np.int32) if lengths is None else lengths,
        terminated=np.zeros(n, bool),
        final_observations=observations[:, -1],
    )


def column(values, dtype=np.float32):
    """Values `[N * T]` as observations of one column."""
    return np.asarray(values, dtype).reshape(-1, T, 1)


def standardised(values):
    values = np.asarray(values, np.float64)
    return ((values - values.mean(0)) / values.std(0)).clip(-CLIP, CLIP)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8, np.int16, np.int32])
def test_columns_equal_numpy_in_float64(dtype):
    values = (np.random.default_rng(0).normal(size=(N, T, 3)) * [3, 20, 9] + [100, 120, 90]).astype(dtype)
    inputs = input_transform(build(values))(values.reshape(-1, 3))
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs, standardised(values.reshape(-1, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unit", [1e-30, 1e-5, 1.0, 1e5, 1e20, 3e37])
def test_units_do_not_matter(unit):
    values = np.random.default_rng(0).normal(size=(N, T, 2)).astype(np.float32)
    scaled = (values.astype(np.float64) * unit).astype(np.float32)
    expected = input_transform(build(values))(values.reshape(-1, 2))
    np.testing.assert_allclose(input_transform(build(scaled))(scaled.reshape(-1, 2)), expected, rtol=1e-4, atol=1e-5)
    acted = action_scaling(build(values, scaled))(scaled).reshape(-1, 2)
    np.testing.assert_allclose(acted, expected, rtol=1e-4, atol=1e-5)


def test_half_precision_does_not_overflow():
    values = (np.random.default_rng(0).normal(size=(N, T, 2)) * 400).astype(np.float16)
    inputs = input_transform(build(values))(values.reshape(-1, 2))
    np.testing.assert_allclose(inputs, standardised(values.reshape(-1, 2)), rtol=1e-4, atol=1e-4)


def test_integers_of_32_bits_keep_their_last_digits():
    values = 2**30 + np.arange(N * T)
    inputs = input_transform(build(column(values, np.int32)))(values[:, None].astype(np.int32))
    assert len(np.unique(inputs)) == N * T
    np.testing.assert_allclose(np.diff(inputs[:, 0]), 1 / values.std(), rtol=1e-3)


@pytest.mark.parametrize("value", [0.0, 7.0, -1e6, 3e38])
def test_constant_columns_are_near_zero(value):
    """Whatever float32's rounding makes of a constant."""
    noise = np.random.default_rng(0).integers(-1, 2, N * T)
    values = column(value * (1 + noise * 2.0**-23))
    values = np.concatenate([values, np.random.default_rng(0).normal(size=values.shape)], -1).astype(np.float32)
    transform = input_transform(build(values))
    inputs = transform(values.reshape(-1, 2))
    assert inputs.shape[1] == (1 if value == 0 else 2)  # columns of zeros are left out
    assert value == 0 or np.abs(inputs[:, 0]).max() < 1e-6
    assert action_scaling(build(values, values)).columns.tolist() == [1]


@pytest.mark.parametrize("outlier", [-9999.0, 1e20, 3e38])
@pytest.mark.parametrize("size", [10, 60, 5000])
def test_one_outlier_is_left_out_and_clipped(size, outlier):
    values = np.random.default_rng(0).normal(size=size).astype(np.float32)
    values[size // 3] = outlier
    inputs = input_transform(build(column(values)))(values[:, None])[:, 0]
    rest = np.arange(size) != size // 3
    np.testing.assert_allclose(inputs[rest], standardised(values[rest]), rtol=1e-3, atol=1e-4)
    assert inputs[size // 3] == np.sign(outlier) * CLIP


@pytest.mark.parametrize("share", [0.002, 0.03, 0.2])
def test_rare_events_are_no_outliers(share):
    values = np.zeros(5000)
    values[: int(share * 5000)] = 500.0
    inputs = input_transform(build(column(values)))(values[:, None])
    np.testing.assert_allclose(inputs, standardised(values[:, None]), rtol=1e-3)
    assert action_scaling(build(column(values), column(values))).columns.tolist() == [0]


@pytest.mark.parametrize("outlier", [1.5, 1e20])
def test_a_codebook_equals_its_dense_form(outlier):
    """Also where a row counts often and an outlier once, and where a final observation is in no step."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20, 2)).astype(np.float32)
    rows[7, 1] = outlier
    ids = rng.choice([*range(7), *range(8, 20)], (100, T))
    ids[3, 1] = 7
    dense = build(rows[ids]).replace(final_observations=np.full((100, 2), 1e6, np.float32))
    coded = encode(dense)
    assert isinstance(coded.observations, Codebook)
    expected, found = input_transform(dense), input_transform(coded)
    for name in ("columns", "shift", "scale", "clip"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6)


@pytest.mark.parametrize("final", [0.0, 1.0, 3.0])
def test_zeros_and_ones_stay_as_they_are(final):
    """If final observations are zeros and ones, too: learners see them."""
    values = np.random.default_rng(0).integers(0, 2, (N, T, 4)).astype(np.float32)
    values[..., 1] = 0
    dense = build(values).replace(final_observations=np.full((N, 4), final, np.float32))
    transforms_of = input_transform(dense), input_transform(encode(dense))
    for transform in transforms_of:
        assert transform(values[0]).dtype == (np.float32 if final == 3 else np.uint8)
        assert transform.columns.tolist() == ([0, 2, 3] if final == 0 else [0, 1, 2, 3])


@pytest.mark.parametrize("binary", [False, True])
def test_padding_does_not_matter(binary):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(N, T, 2)).astype(np.float32)
    values = (values > 0).astype(np.float32) if binary else values
    lengths = np.arange(N, dtype=np.int32) % T + 1
    plain = build(values, values, lengths)
    spoilt = values.copy()
    spoilt[np.arange(T) >= lengths[:, None]] = np.array([np.nan, np.inf])
    other = plain.replace(observations=spoilt, actions=spoilt)
    for make in (input_transform, action_scaling):
        expected, found = make(plain), make(other)
        np.testing.assert_array_equal(found.shift, expected.shift)
        np.testing.assert_array_equal(found.scale, expected.scale)
    mask = np.asarray(plain.mask).ravel()
    inputs = input_transform(other)(spoilt.reshape(-1, 2))
    np.testing.assert_array_equal(inputs[mask], input_transform(plain)(values.reshape(-1, 2))[mask])


@pytest.mark.parametrize("coded", [False, True])
def test_large_data_go_in_blocks(coded, monkeypatch):
    """A sample of them decides what an outlier is."""
    values = np.random.default_rng(0).normal(size=(400, T, 3)).astype(np.float32)
    values[250, 2, 1] = 1e20
    data = encode(build(values)) if coded else build(values)
    expected, acted = input_transform(data), action_scaling(build(values, values))
    monkeypatch.setattr(transforms, "_BLOCK", 600)
    for found, whole in ((input_transform(data), expected), (action_scaling(build(values, values)), acted)):
        np.testing.assert_allclose(found.shift, whole.shift, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(found.scale, whole.scale, rtol=1e-5)


def test_actions_come_back_in_their_unit():
    rng = np.random.default_rng(0)
    actions = (rng.normal(size=(N, T, 4)) * [1e-3, 0, 800, 2] + [0, 5, 4e3, -1]).astype(np.float32)
    scaling = action_scaling(build(actions, actions))
    assert scaling.columns.tolist() == [0, 2, 3]
    scaled = scaling(actions)
    np.testing.assert_allclose(scaled.reshape(-1, 3), standardised(actions.reshape(-1, 4)[:, [0, 2, 3]]), atol=1e-3)
    np.testing.assert_allclose(scaling.undo(scaled), actions, rtol=1e-5, atol=1e-7)
    expected = np.log(actions.reshape(-1, 4)[:, [0, 2, 3]].std(0, dtype=np.float64)).sum()
    assert float(scaling.log_volume) == pytest.approx(expected, rel=1e-4)


def test_actions_that_are_all_constant():
    actions = np.full((N, T, 2), -3.0, np.float32)
    scaling = action_scaling(build(actions, actions))
    scaled = scaling(actions)
    np.testing.assert_array_equal(scaled, np.zeros((N, T, 1)))
    np.testing.assert_array_equal(scaling.undo(scaled), actions)
    assert np.isfinite(scaling.log_volume)


def test_discrete_actions_have_no_scaling():
    observations = np.zeros((N, T, 1), np.float32)
    assert action_scaling(build(observations, np.zeros((N, T), np.int32)).replace(num_actions=3)) is None
