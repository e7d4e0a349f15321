"""Observations and actions of several parts: worked by hand."""

import numpy as np
import pytest
from gymnasium import spaces

from trajclust_jax.data import DataError, Trajectories, fingerprint, validate
from trajclust_jax.data.spaces import MAX_JOINT, ActionReader, ObservationReader, flatten_parts, join_actions


def trajectories_of(actions, lengths):
    """Trajectories of joint actions `[N, T, F]`."""
    n, t = actions.shape[:2]
    return Trajectories(
        observations=np.zeros((n, t, 1), np.float32),
        actions=actions.astype(np.float32),
        rewards=np.zeros((n, t), np.float32),
        lengths=np.array(lengths, np.int32),
        terminated=np.zeros(n, bool),
        final_observations=np.zeros((n, 1), np.float32),
    )


def test_parts_lie_side_by_side_and_goals_are_subtracted():
    parts = {
        "achieved_goal": np.array([[1.0, 2], [3, 4]]),
        "desired_goal": np.array([[5.0, 5], [5, 5]]),
        "observation": np.array([7, 8], np.uint8),
    }
    flat = flatten_parts(parts)
    np.testing.assert_array_equal(flat, [[1, 2, 5, 5, 7, 4, 3], [3, 4, 5, 5, 8, 2, 1]])
    assert flat.dtype == np.float64
    assert flatten_parts({name: part.astype(np.float32) for name, part in parts.items()}).dtype == np.float32
    assert flatten_parts({**parts, "desired_goal": np.ones((2, 3))}).shape == (2, 6)  # not of one shape


def test_close_goals_far_from_0_are_subtracted_before_they_are_narrowed():
    goals = {"achieved_goal": np.array([[1e8]]), "desired_goal": np.array([[1e8 + 1]])}
    assert flatten_parts(goals)[0, -1] == 1


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "has no part of numbers"),
        ({"a": np.zeros((3, 1)), "b": np.zeros((2, 1))}, "'b' has 2 steps, but others 3"),
        ({"a": np.array(["x"])}, "'a' is <U1"),
        ({"a": np.float32(1)}, "'a' is float32"),
    ],
)
def test_bad_parts(parts, message):
    with pytest.raises(DataError, match=message):
        flatten_parts(parts)


def test_observations_of_parts():
    space = spaces.Dict(
        mission=spaces.Text(9),
        image=spaces.Box(0, 255, (1, 2), np.uint8),
        hand=spaces.Tuple((spaces.Discrete(3, start=1), spaces.MultiBinary(2))),
    )
    reader = ObservationReader(space)
    assert (reader.shape, reader.left_out, reader.goals) == ((7,), ["mission"], False)
    values = {
        "mission": ["go"] * 2,
        "image": np.array([[[9, 8]], [[7, 6]]], np.uint8),
        "hand": (np.array([1, 3]), np.array([[0, 1], [1, 1]], np.int8)),
    }
    np.testing.assert_array_equal(reader(values), [[1, 0, 0, 0, 1, 9, 8], [0, 0, 1, 1, 1, 7, 6]])
    values["hand"][0][1] = 0  # below the space: an index of -1
    with pytest.raises(DataError, match="observations part 'hand/0' at step 1 is 0, outside Discrete"):
        reader(values)


def test_goals_need_no_fixed_place():
    box = spaces.Box(-1, 1, (2,))
    reader = ObservationReader(spaces.Dict(desired_goal=box, achieved_goal=box, zoom=box))
    assert (reader.shape, reader.goals) == ((8,), True)


@pytest.mark.parametrize(
    ("space", "values", "kind", "expected"),
    [
        (spaces.Discrete(3, start=1), np.array([1, 3], np.uint8), "discrete", [0, 2]),
        (spaces.Discrete(3), np.array([[1], [2]]), "discrete", [1, 2]),
        (spaces.MultiDiscrete([3, 2], start=[1, 0]), np.array([[3, 1], [1, 0]]), "joint", [[3, 1], [1, 0]]),
        (spaces.MultiBinary([2, 1]), np.array([[[0], [1]]]), "joint", [[0, 1]]),
        (spaces.Box(-1, 1, (1,), np.int64), np.array([[-1], [1]]), "joint", [[-1], [1]]),
        (spaces.Box(-1, 1, (), np.int8), np.array([-1, 1]), "joint", [[-1], [1]]),
        (spaces.Box(-1, 1, (), np.float32), np.array([0.5, 1]), "continuous", [[0.5], [1]]),
        (spaces.Box(-1, 1, (2, 1)), np.array([[[0.5], [1]]]), "continuous", [[0.5, 1]]),
        (spaces.Box(0, 9, (2,), np.int64), np.array([[1, 2]]), "continuous", [[1, 2]]),
        (
            spaces.Dict(b=spaces.Discrete(4), a=spaces.MultiBinary(2)),
            {"a": np.array([[1, 0]]), "b": np.array([3])},
            "joint",
            [[1, 0, 3]],
        ),
        (
            spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,)))),
            (np.array([[0.5, 1]]), np.array([[-1.0]])),
            "continuous",
            [[0.5, 1, -1]],
        ),
        (
            spaces.Dict(a=spaces.MultiDiscrete([2, 3]), b=spaces.Box(-1, 1, (1,))),
            {"a": np.array([[1, 0], [0, 2]]), "b": np.array([[0.5], [1]])},
            "continuous",
            [[0, 1, 1, 0, 0, 0.5], [1, 0, 0, 0, 1, 1]],
        ),
    ],
)
def test_actions(space, values, kind, expected):
    reader = ActionReader(space)
    actions = reader(values)
    assert reader.kind == kind
    assert reader.num_actions == (3 if kind == "discrete" else 0)
    assert reader.shape == actions.shape[1:]
    np.testing.assert_array_equal(actions, expected)


@pytest.mark.parametrize(
    ("space", "values", "message"),
    [
        (spaces.MultiDiscrete([3, 2]), np.array([[0, 1], [0, 2]]), "actions at step 1 is 2, outside MultiDiscrete"),
        (spaces.MultiDiscrete([3, 2]), np.array([[0.5, 1]]), "is 0.5, outside"),
        (spaces.MultiDiscrete([3, 2]), np.array([[0], [1]]), "has 1 numbers a step, but its space 2"),
        (spaces.Dict(a=spaces.Discrete(2)), {"a": np.array([-1])}, "actions part 'a' at step 0 is -1"),
        (spaces.Discrete(2), np.array(["a"]), "actions is <U1"),
    ],
)
def test_actions_outside_their_space(space, values, message):
    with pytest.raises(DataError, match=message):
        ActionReader(space)(values)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Text(3), "actions has space Text"),
        (spaces.Dict(a=spaces.Tuple((spaces.Text(3),))), "actions part 'a/0' has space Text"),
        (spaces.Dict(), "actions has an empty space"),
        (spaces.Dict(a=spaces.Discrete(10**15), b=spaces.Box(-1, 1, (1,))), "part 'a' has 10{15} values, more than"),
    ],
)
def test_spaces_that_are_no_actions(space, message):
    with pytest.raises(DataError, match=message):
        ActionReader(space)


def test_spaces_that_are_no_observations():
    for space in (spaces.Text(3), spaces.Dict(a=spaces.Text(3)), spaces.Dict()):
        with pytest.raises(DataError, match="observations has space"):
            ObservationReader(space)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_parts_of_whole_numbers_are_not_rounded(dtype):
    """Before they have an offset, float32 would lose them."""
    time = np.array([1_700_000_001, 1_700_000_002], dtype)
    flat = flatten_parts({"time": time, "x": np.zeros((2, 1), np.float32)})
    np.testing.assert_array_equal(flat[:, 0], time)
    assert flatten_parts({"x": np.zeros((2, 1), np.int16)}).dtype == np.float32


def test_combinations_that_occur_are_numbered_in_their_order():
    actions = np.array([[[2, 0], [0, 7], [9, 9]], [[0, -1], [2, 0], [0, 7]]])
    joined = join_actions(trajectories_of(actions, [2, 3]))
    validate(joined)
    assert joined.action_parts == ((0, -1), (0, 7), (2, 0))  # the padding's (9, 9) is none
    assert joined.num_actions == joined.action_size == 3
    np.testing.assert_array_equal(joined.actions, [[2, 1, 0], [0, 2, 1]])
    other = join_actions(trajectories_of(actions[::-1], [3, 2]))
    assert other.action_parts == joined.action_parts
    single = join_actions(trajectories_of(actions[..., :1], [2, 3]))
    assert (single.action_parts, single.num_actions) == (((0,), (2,)), 2)
    from_0 = join_actions(trajectories_of(actions[..., :1] // 2, [2, 3]))
    assert (from_0.action_parts, from_0.num_actions) == ((), 2)  # each is its own number


def test_what_cannot_be_joined():
    many = np.arange(MAX_JOINT + 1)[None, :, None]
    with pytest.raises(DataError, match="4097 combinations of its 1 discrete parts"):
        join_actions(trajectories_of(many, [MAX_JOINT + 1]))
    with pytest.raises(DataError, match="number their values from 0"):
        join_actions(trajectories_of(np.array([[[2**24]]]), [1]))


def test_the_parts_of_actions_are_validated_and_fingerprinted():
    joined = join_actions(trajectories_of(np.array([[[2, 0], [0, 7]]]), [2]))
    assert fingerprint(joined) != fingerprint(joined.replace(action_parts=()))
    assert fingerprint(joined) != fingerprint(joined.replace(action_parts=((0, 7), (3, 0))))
    for parts in (((0, 7),), ((0, 7), (1,)), ((), ()), ((0, 7), (2, 0.5)), [[0, 7], [2, 0]]):
        with pytest.raises(DataError, match="action_parts is"):
            validate(joined.replace(action_parts=parts))
