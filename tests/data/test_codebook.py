"""A codebook holds the same observations, bit for bit."""

import time

import numpy as np
import pytest

from trajclust_jax.data import Codebook, Trajectories, compress, dense, fingerprint, validate
from trajclust_jax.data import codebook as module


def trajectories_of(observations, final, lengths=None):
    n, t = observations.shape[:2]
    return Trajectories(
        observations=observations,
        actions=np.zeros((n, t), np.int32),
        rewards=np.zeros((n, t), np.float32),
        lengths=np.full(n, t, np.int32) if lengths is None else np.asarray(lengths, np.int32),
        terminated=np.zeros(n, bool),
        final_observations=final,
        num_actions=2,
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float16, np.bool_])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 2)])
def test_exact(dtype, shape):
    rng = np.random.default_rng(0)
    table = (rng.integers(0, 2, (6, *shape)) * rng.integers(0, 200, (6, *shape))).astype(dtype)
    ids, final = rng.integers(0, 6, (40, 9)), rng.integers(0, 6, 40)
    lengths = rng.integers(1, 10, 40)
    before = trajectories_of(table[ids], table[final], lengths)
    after = compress(before)
    validate(after)
    assert isinstance(after.observations, Codebook)
    assert after.observations.table is after.final_observations.table
    assert after.observations.table.dtype == dtype
    assert after.observations.table.shape[1:] == shape
    assert after.observations.ids.dtype == after.final_observations.ids.dtype == np.int32
    mask = np.asarray(before.mask)
    np.testing.assert_array_equal(dense(after.observations)[mask], before.observations[mask])
    np.testing.assert_array_equal(dense(after.final_observations), before.final_observations)
    assert not after.observations.ids[~mask].any()
    rows = after.observations.table.reshape(len(after.observations.table), -1)
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_rows_are_equal_when_their_bytes_are():
    values = np.array([0.0, -0.0, 1.0], np.float32)
    observations = np.tile(values, (20, 5))[..., None]
    after = compress(trajectories_of(observations, observations[:, 0]))
    assert len(after.observations.table) == 3
    np.testing.assert_array_equal(np.signbit(dense(after.observations)), np.signbit(observations))


def test_only_repeated_observations_are_coded():
    rng = np.random.default_rng(0)
    continuous = trajectories_of(rng.normal(size=(50, 20, 3)).astype(np.float32), np.zeros((50, 3), np.float32))
    assert compress(continuous) is continuous
    distinct = np.arange(1000, dtype=np.int32).reshape(50, 20)
    for repeats, coded in ((2, False), (3, False), (5, True), (8, True)):
        data = trajectories_of(distinct // repeats, distinct[:, 0] // repeats)
        assert isinstance(compress(data).observations, Codebook) == coded


def test_final_observations_count():
    steps = np.zeros((40, 1, 1), np.float32)
    final = np.arange(40, dtype=np.float32)[:, None]
    data = trajectories_of(steps, final)
    assert compress(data) is data


@pytest.mark.parametrize("padding", [1, 77, 255])
def test_padding_changes_nothing(discrete, expand, padding):
    data = expand(discrete(n=40))
    noisy = data.observations.copy()
    noisy[~np.asarray(data.mask)] = padding
    one, other = compress(data), compress(data.replace(observations=noisy))
    np.testing.assert_array_equal(one.observations.table, other.observations.table)
    np.testing.assert_array_equal(one.observations.ids, other.observations.ids)
    assert fingerprint(one) == fingerprint(other)


def test_tidy_codebook_is_returned_as_it_is(discrete, expand):
    data = compress(expand(discrete(n=40)))
    assert compress(data) is data


def test_untidy_codebook(discrete):
    data = discrete(n=40, padding=3)
    table = data.observations.table
    untidy = np.concatenate([table[:1] + 50, table, table, table[:1] + 60])  # unused, used, repeated, unused
    shift = np.random.default_rng(1).integers(0, 2, data.observations.ids.shape).astype(np.int32) * len(table)
    coded = data.replace(
        observations=Codebook(untidy, data.observations.ids + 1 + shift),
        final_observations=Codebook(untidy, data.final_observations.ids + 1),
    )
    tidy = compress(coded)
    np.testing.assert_array_equal(tidy.observations.table, table)
    mask = np.asarray(data.mask)
    np.testing.assert_array_equal(dense(tidy.observations)[mask], dense(coded.observations)[mask])
    np.testing.assert_array_equal(dense(tidy.final_observations), dense(coded.final_observations))
    assert not tidy.observations.ids[~mask].any()
    assert compress(tidy) is tidy


def test_ids_on_padding_may_be_out_of_range(discrete):
    tidy = compress(discrete(n=40, padding=99))
    np.testing.assert_array_equal(tidy.observations.ids, compress(discrete(n=40)).observations.ids)


def test_large_data_is_fast(monkeypatch):
    rng = np.random.default_rng(0)
    data = trajectories_of(rng.normal(size=(200, 1000, 17)).astype(np.float32), np.zeros((200, 17), np.float32))
    monkeypatch.setattr(module, "encode", lambda *_: pytest.fail("continuous data went past the sample"))
    start = time.process_time()
    assert compress(data) is data
    assert time.process_time() - start < 1


def test_sample_sees_repeats_within_and_between_episodes():
    steps = np.arange(200 * 1000, dtype=np.int32).reshape(200, 1000)
    within = trajectories_of(steps // 10, steps[:, 0])
    between = trajectories_of(steps % 1000, steps[:, 0] % 1000)
    assert isinstance(compress(within).observations, Codebook)
    assert isinstance(compress(between).observations, Codebook)
