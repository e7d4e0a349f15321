"""Views, fingerprints and `apply`."""

import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_jax.data import (
    Codebook,
    DataError,
    apply,
    build_dataset,
    compress,
    dense,
    fingerprint,
    load_hdf5,
    reduced,
    save_hdf5,
    subset,
    transitions,
)


def test_transitions_of_a_codebook_equal_those_of_its_dense_form(discrete, expand):
    data = discrete()
    coded, plain = transitions(data), transitions(expand(data))
    np.testing.assert_array_equal(dense(coded.observations), plain.observations)
    np.testing.assert_array_equal(dense(coded.next_observations), plain.next_observations)
    for name in ("actions", "rewards", "terminated", "truncated", "trajectory"):
        np.testing.assert_array_equal(getattr(coded, name), getattr(plain, name))


def test_each_episode_ends_once(discrete):
    data = discrete()
    flat = transitions(data)
    last = np.cumsum(data.lengths) - 1
    np.testing.assert_array_equal(np.flatnonzero(flat.terminated | flat.truncated), last)
    np.testing.assert_array_equal(flat.terminated[last], data.terminated)
    assert not (flat.terminated & flat.truncated).any()


@pytest.mark.parametrize("padding", [1, 3, 99])
def test_padding_does_not_enter_the_fingerprint(discrete, padding):
    assert fingerprint(discrete(padding=padding)) == fingerprint(discrete())


@pytest.mark.parametrize("padding", [1.0, np.nan])
def test_padding_of_dense_data_does_not_enter(continuous, padding):
    assert fingerprint(continuous(padding=padding)) == fingerprint(continuous())


def test_padded_length_does_not_enter(continuous):
    data = continuous()
    longer = {
        name: np.pad(array, [(0, 0), (0, 4)] + [(0, 0)] * (array.ndim - 2), constant_values=9)
        for name in ("observations", "actions", "rewards")
        for array in [getattr(data, name)]
    }
    assert fingerprint(data.replace(**longer)) == fingerprint(data)


def test_row_order_and_unused_rows_do_not_enter(discrete):
    data = discrete()
    table = data.observations.table
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = np.concatenate([table[order], table[:1] + 100])
    rows = np.argsort(order).astype(np.int32)
    other = data.replace(
        observations=Codebook(shuffled, rows[data.observations.ids]),
        final_observations=Codebook(shuffled, rows[data.final_observations.ids]),
    )
    assert fingerprint(other) == fingerprint(data)
    assert fingerprint(compress(other)) == fingerprint(data)


def test_every_real_value_enters(continuous):
    data = continuous()
    prints = {fingerprint(data), fingerprint(data, np.zeros(6, np.int32)), fingerprint(data, np.ones(6, np.int32))}
    for name in ("observations", "actions", "rewards", "final_observations"):
        for n in range(data.num_trajectories):
            last = (n, data.lengths[n] - 1) if name != "final_observations" else (n,)
            array = getattr(data, name).copy()
            array[last] += 1
            prints.add(fingerprint(data.replace(**{name: array})))
    prints.add(fingerprint(data.replace(terminated=~data.terminated)))
    prints.add(fingerprint(data.replace(num_actions=3)))
    shorter = data.lengths.copy()
    shorter[0] -= 1
    prints.add(fingerprint(data.replace(lengths=shorter)))
    assert len(prints) == 3 + 4 * 6 + 3


def test_every_codebook_value_enters(discrete):
    data = discrete()
    prints = {fingerprint(data)}
    for row in range(len(data.observations.table)):
        table = data.observations.table.copy()
        table[row, 0, 0, 0] += 100
        prints.add(
            fingerprint(
                data.replace(
                    observations=data.observations.replace(table=table),
                    final_observations=data.final_observations.replace(table=table),
                )
            )
        )
    ids = data.observations.ids.copy()
    ids[0, 0] = (ids[0, 0] + 1) % len(data.observations.table)
    prints.add(fingerprint(data.replace(observations=data.observations.replace(ids=ids))))
    assert len(prints) == 1 + len(data.observations.table) + 1


def test_build_dataset_is_the_same_for_dense_and_coded(discrete, expand):
    data = discrete(n=40)
    labels = np.arange(40) % 3
    one = build_dataset(data, labels, name="x", source="x")
    other = build_dataset(expand(data), labels, name="x", source="x")
    assert one.provenance == other.provenance
    assert one.num_policies == 3


def test_apply_evaluates_the_table_only(discrete, expand):
    data = discrete()
    seen = []

    def features(x):
        seen.append(len(x))
        x = x.reshape(len(x), -1).astype(jnp.float32)
        return {"sum": x.sum(-1), "pair": x[:, :2] * 2}

    coded = apply(features, data.observations)
    plain = apply(features, expand(data).observations)
    assert seen == [len(data.observations.table), data.num_trajectories * data.max_length]
    for name, shape in (("sum", (12, 7)), ("pair", (12, 7, 2))):
        assert coded[name].shape == shape
        np.testing.assert_array_equal(coded[name], plain[name])


def test_reduced_data_is_whole_trajectories_drawn_by_seed(continuous):
    """As many as it takes; a longer draw begins with a shorter one's; the provenance has which."""
    dataset = build_dataset(continuous(), name="whole", source="test")
    lengths = np.asarray(dataset.trajectories.lengths)
    fewest = None
    for count in (1, int(lengths.sum()) // 2, int(lengths.sum())):
        found = reduced(dataset, count, 5)
        drawn = found.provenance.parameters["reduced"]
        rows = drawn["trajectories"]
        np.testing.assert_array_equal(found.trajectories.lengths, lengths[rows])
        assert drawn["transitions"] == lengths[rows].sum() >= count
        assert rows == sorted(rows)
        order = np.random.default_rng(5).permutation(len(lengths))[: len(rows)]
        assert set(order.tolist()) == set(rows)
        assert lengths[order[:-1]].sum() < count
        fewest = fewest or set(rows)
        assert fewest <= set(rows)
    assert reduced(dataset, 1, 5).provenance.fingerprint != dataset.provenance.fingerprint
    for count in (0, int(lengths.sum()) + 1):
        with pytest.raises(DataError, match=f"transitions is {count}: give 1 to {lengths.sum()}"):
            reduced(dataset, count, 0)


def test_policies_of_one_name_stay_apart(continuous, tmp_path):
    names = ("run", "run", "run (2)", "run")
    data = build_dataset(continuous(12), np.arange(12) % 4, name="runs", source="test", policy_names=names)
    assert data.spec.policy_names == ("run", "run (3)", "run (2)", "run (4)")
    save_hdf5(data, tmp_path / "runs.hdf5")  # which has labels by name
    read = load_hdf5(tmp_path / "runs.hdf5")
    found = [read.spec.policy_names[label] for label in read.labels]
    assert found == [data.spec.policy_names[label] for label in data.labels]


def test_policies_keep_their_names_where_others_are_gone(continuous):
    labels = np.array([0, 1, 2, 3, 1, 3])
    data = build_dataset(continuous(), labels, name="four", source="test", policy_names=tuple("abcd"))
    part = subset(data, np.array([1, 3, 5]), {})
    assert part.labels.tolist() == [0, 1, 1]
    assert part.spec.policy_names == ("b", "d")
