"""Bad data is refused in one line that names the field and the first bad index."""

import numpy as np
import pytest

from trajclust_jax.data import Codebook, DataError, build_dataset, split_episodes, validate, validate_labels


def put(array, index, value, dtype=None):
    array = np.array(array, dtype)
    array[index] = value
    return array


def refusal(call, *args):
    with pytest.raises(DataError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    assert ": " in message or ", " in message  # says what to do
    return message


# field, a function of the trajectories giving its bad value, words of the message
BAD_CONTINUOUS = [
    ("observations", lambda d: put(d.observations, (0, 2, 1), np.nan), "observations at trajectory 0, step 2"),
    ("observations", lambda d: put(d.observations, (0, 4, 0), np.inf), "observations at trajectory 0, step 4"),
    ("observations", lambda d: d.observations[:-1], "observations has shape (5, 5, 3)"),
    ("observations", lambda d: d.observations[:, :-1], "leading axes must be N = 6, T = 5"),
    ("observations", lambda d: d.observations.astype(np.float64), "observations has dtype float64"),
    ("observations", lambda d: d.observations.astype(object), "observations has dtype object"),
    ("observations", lambda d: d.observations.astype(np.complex64), "observations has dtype complex64"),
    ("observations", lambda d: d.observations[..., :0], "observation"),
    ("final_observations", lambda d: put(d.final_observations, (3, 0), -np.inf), "final_observations at trajectory 3"),
    ("final_observations", lambda d: d.final_observations[:, :2], "final_observations has rows float32[2]"),
    ("final_observations", lambda d: d.final_observations[1:], "final_observations has shape (5, 3)"),
    ("final_observations", lambda d: Codebook(d.final_observations, np.zeros(6, np.int32)), "Codebook"),
    ("actions", lambda d: put(d.actions, (0, 1, 1), np.nan), "actions at trajectory 0, step 1"),
    ("actions", lambda d: d.actions[..., 0], "actions has shape (6, 5)"),
    ("actions", lambda d: d.actions[1:], "actions has shape (5, 5, 2)"),
    ("actions", lambda d: d.actions.astype(np.float64), "actions has dtype float64"),
    ("rewards", lambda d: put(d.rewards, (0, 3), np.inf), "rewards at trajectory 0, step 3"),
    ("rewards", lambda d: d.rewards[:-2], "rewards has 4 trajectories, but lengths has 6"),
    ("rewards", lambda d: d.rewards[..., None], "rewards has shape (6, 5, 1)"),
    ("rewards", lambda d: d.rewards.astype(np.int32), "rewards has dtype int32"),
    ("lengths", lambda d: put(d.lengths, 4, 0), "lengths at trajectory 4 is 0 (an empty episode)"),
    ("lengths", lambda d: put(d.lengths, 2, -3), "lengths at trajectory 2 is -3"),
    ("lengths", lambda d: put(d.lengths, 5, 6), "lengths at trajectory 5 is 6, but T = 5"),
    ("lengths", lambda d: d.lengths.astype(np.float32), "lengths has dtype float32"),
    ("lengths", lambda d: d.lengths[:0], "lengths is empty (N = 0)"),
    ("lengths", lambda d: d.lengths[:, None], "lengths has shape (6, 1)"),
    ("terminated", lambda d: d.terminated[:-1], "terminated has shape (5,)"),
    ("terminated", lambda d: d.terminated.astype(np.int32), "terminated has dtype int32"),
    ("num_actions", lambda d: -1, "num_actions is -1"),
]
BAD_DISCRETE = [
    ("actions", lambda d: put(d.actions, (0, 5), 4), "actions at trajectory 0, step 5 is 4, outside 0..3"),
    ("actions", lambda d: put(d.actions, (0, 1), -1), "actions at trajectory 0, step 1 is -1"),
    ("actions", lambda d: put(d.actions, (0, 2), 1.5, np.float32), "actions at trajectory 0, step 2 is 1.5"),
    ("actions", lambda d: put(d.actions, (0, 2), np.nan, np.float32), "actions at trajectory 0, step 2 is nan"),
    ("actions", lambda d: d.actions.astype(np.float32), "actions has dtype float32"),
    ("actions", lambda d: d.actions[..., None], "actions has shape (12, 7, 1)"),
    (
        "observations",
        lambda d: d.observations.replace(ids=put(d.observations.ids, (0, 3), 5)),
        "observations.ids at trajectory 0, step 3 is 5, outside the 5 rows",
    ),
    (
        "observations",
        lambda d: d.observations.replace(ids=put(d.observations.ids, (0, 6), -1)),
        "observations.ids at trajectory 0, step 6 is -1",
    ),
    ("observations", lambda d: d.observations.replace(ids=d.observations.ids[:, 1:]), "observations.ids has shape"),
    (
        "observations",
        lambda d: d.observations.replace(ids=d.observations.ids.astype(np.int64)),
        "observations.ids has dtype int64",
    ),
    (
        "final_observations",
        lambda d: d.final_observations.replace(ids=put(d.final_observations.ids, 7, 9)),
        "final_observations.ids at trajectory 7 is 9",
    ),
    ("final_observations", lambda d: d.final_observations.replace(table=d.observations.table + 1), "share one"),
]


@pytest.mark.parametrize(("field", "value", "words"), BAD_CONTINUOUS)
def test_bad_continuous(continuous, field, value, words):
    data = continuous()
    assert words in refusal(validate, data.replace(**{field: value(data)}))


@pytest.mark.parametrize(("field", "value", "words"), BAD_DISCRETE)
def test_bad_discrete(discrete, field, value, words):
    data = discrete()
    assert words in refusal(validate, data.replace(**{field: value(data)}))


def test_bad_codebook_row(discrete):
    data = discrete()
    table = data.observations.table.astype(np.float32)
    table[3, 1] = np.nan
    n, t = np.argwhere((data.observations.ids == 3) & np.asarray(data.mask))[0]
    data = data.replace(
        observations=data.observations.replace(table=table),
        final_observations=data.final_observations.replace(table=table),
    )
    assert f"observations at trajectory {n}, step {t}" in refusal(validate, data)
    free = data.replace(
        observations=data.observations.replace(ids=np.where(data.observations.ids == 3, 0, data.observations.ids)),
        final_observations=data.final_observations.replace(ids=data.final_observations.ids * 0),
    )
    validate(free)  # nobody saw the bad row


@pytest.mark.parametrize("padding", [np.nan, np.inf])
def test_padding_may_hold_anything(continuous, padding):
    validate(continuous(padding=padding))


def test_padding_may_hold_any_id_and_action(discrete):
    validate(discrete(padding=99))


def test_build_dataset_validates(continuous):
    data = continuous()
    bad = data.replace(rewards=put(data.rewards, (0, 0), np.nan))
    assert "rewards" in refusal(lambda: build_dataset(bad, name="x", source="x"))
    assert "labels" in refusal(lambda: build_dataset(data, [0], name="x", source="x"))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1, 2], "labels has 3 entries, but there are 4"),
        ([[0], [1], [2], [0]], "labels has shape (4, 1)"),
        ([0, 1, -1, 2], "labels at trajectory 2 is -1"),
        ([0, 1.5, 1, 2], "labels at trajectory 1 is 1.5"),
        ([0, 1, 1, np.nan], "labels at trajectory 3 is nan"),
        ([0, 1, 1, np.inf], "labels at trajectory 3 is inf"),
        ([0, None, 1, 2], "labels at trajectory 0 is 0: give integers or strings"),
        ([1j, 0, 0, 0], "labels has dtype complex128"),
    ],
)
def test_bad_labels(labels, words):
    assert words in refusal(validate_labels, labels, 4)


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        ([0, 2, 1, 0], [0, 2, 1, 0]),
        ([7, 3, 3, 9], [1, 0, 0, 2]),
        ([1.0, 0.0, 1.0, 0.0], [1, 0, 1, 0]),
        (["medium", "expert", "medium", "random"], [1, 0, 1, 2]),
        (np.array(["b", "a", "a", "b"], object), [1, 0, 0, 1]),
        (np.array([1, 0, 1, 1], np.uint8), [1, 0, 1, 1]),
    ],
)
def test_labels_are_numbered_in_order(labels, numbers):
    result = validate_labels(labels, 4)
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, numbers)


FLAT = {
    "observations": np.zeros((6, 2), np.float32),
    "actions": np.zeros((6, 1), np.float32),
    "rewards": np.zeros(6, np.float32),
    "terminals": np.zeros(6, bool),
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observations": np.zeros((0, 2))}, "observations is empty"),
        ({"observations": np.full((6, 2), 2**40)}, "observations has dtype int64"),
        ({"actions": np.zeros((5, 1))}, "actions has shape (5, 1), but there are 6 steps"),
        ({"actions": np.zeros(6)}, "actions has shape (6,)"),
        ({"actions": put(np.zeros((6, 1)), 3, np.nan)}, "actions at step 3"),
        ({"rewards": np.zeros((6, 1))}, "rewards has shape (6, 1)"),
        ({"rewards": put(np.zeros(6), 2, np.inf)}, "rewards at step 2"),
        ({"rewards": np.array(["a"] * 6)}, "rewards has dtype <U1"),
        ({"terminals": put(np.zeros(6), 4, 2)}, "terminals at step 4 is 2.0: give 0 or 1"),
        ({"timeouts": put(np.zeros(6), 1, np.nan)}, "timeouts at step 1 is nan"),
        ({"timeouts": np.zeros(4)}, "timeouts has shape (4,)"),
        ({"next_observations": np.zeros((6, 3), np.float32)}, "next_observations has shape (6, 3)"),
        ({"next_observations": put(np.zeros((6, 2), np.float32), 5, np.nan)}, "next_observations at step 5"),
        ({"actions": put(np.zeros(6, int), 5, 3), "num_actions": 3}, "actions at step 5 is 3, outside 0..2"),
        ({"actions": put(np.zeros(6), 5, 0.5), "num_actions": 3}, "actions at step 5 is 0.5"),
        ({"num_actions": 3}, "actions has shape (6, 1): discrete"),
    ],
)
def test_bad_flat(change, words):
    assert words in refusal(lambda: split_episodes(**{**FLAT, **change}))


def test_good_flat():
    assert split_episodes(**FLAT).lengths.tolist() == [6]
