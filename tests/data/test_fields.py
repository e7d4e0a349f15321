"""What named arrays mean: the same in .npz and .hdf5."""

import h5py
import numpy as np
import pytest

from trajclust_jax.data import DataError, dense, episodes, load, load_npz, offsets_of, rebased, save_npz

FORMATS = ("npz", "hdf5")


@pytest.fixture(params=FORMATS)
def read(request, tmp_path):
    """Writes arrays in one of the formats and reads them."""

    def write_and_read(arrays, name="a"):
        path = tmp_path / f"{name}.{request.param}"
        if request.param == "npz":
            np.savez(path, **arrays)
        else:
            with h5py.File(path, "w") as file:
                for key, array in arrays.items():
                    file[key] = array
        return load(path)

    return write_and_read


def flat(**changes):
    """Eight steps: episodes of 3, 1 and 4."""
    steps = np.arange(8.0)
    arrays = {"observations": np.stack([steps, -steps], 1), "actions": np.sin(steps)[:, None], "rewards": steps}
    arrays |= changes
    return {name: array for name, array in arrays.items() if array is not None}


def padded(**changes):
    """The same episodes, padded."""
    lengths = np.array([3, 1, 4])
    mask = np.arange(4) < lengths[:, None]
    arrays = {"lengths": lengths}
    for name, array in flat().items():
        arrays[name] = np.zeros((3, 4, *array.shape[1:]))
        arrays[name][mask] = array
    arrays |= changes
    return {name: array for name, array in arrays.items() if array is not None}


def at(*steps):
    return np.isin(np.arange(8), steps)


@pytest.mark.parametrize(
    ("flags", "terminated", "said"),
    [
        ({"terminals": at(2), "timeouts": at(3, 7)}, [1, 0, 0], "terminals, timeouts"),
        ({"terminals": at(2, 3), "timeouts": at(3, 7)}, [1, 1, 0], "terminals, timeouts"),  # both: terminated
        ({"terminations": at(2), "truncations": at(3, 7)}, [1, 0, 0], "terminations, truncations"),
        ({"terminateds": at(2), "truncateds": at(3, 7)}, [1, 0, 0], "terminateds, truncateds"),
        ({"terminated": at(2), "truncated": at(3, 7)}, [1, 0, 0], "terminated, truncated"),
        ({"timeouts": at(2, 3, 7)}, [0, 0, 0], "timeouts"),
        ({"dones": at(2, 3, 7)}, [1, 1, 1], "dones"),
        ({"dones": at(2, 3, 7), "terminals": at()}, [0, 0, 0], "dones"),
        ({"dones": at(2, 3, 7), "terminals": at(2)}, [1, 0, 0], "terminals, dones"),
        ({"dones": at(2, 3, 7), "timeouts": at(7)}, [1, 1, 0], "timeouts, dones"),
        ({"episode_terminals": at(2, 3, 7), "terminals": at(3)}, [0, 1, 0], "terminals, episode_terminals"),  # d3rlpy 1
        ({"dones": at(2, 3, 7)[:, None].astype(np.float32)}, [1, 1, 1], "dones"),
        ({"episode_length": np.array([3, 1, 4])}, [0, 0, 0], "episode_length"),
        ({"episode_length": np.array([3, 1, 4]), "dones": at(2, 3)}, [1, 1, 0], "episode_length, dones"),
        ({"episode_length": np.array([3, 1, 4]), "terminated": [0, 1, 0]}, [0, 1, 0], "episode_length, terminated"),
        ({"terminated": at(2), "timeouts": at(3, 7)}, [1, 0, 0], "terminated, timeouts"),
    ],
)
def test_ends(read, flags, terminated, said):
    data = read(flat(**flags))
    np.testing.assert_array_equal(data.trajectories.lengths, [3, 1, 4])
    np.testing.assert_array_equal(data.trajectories.terminated, terminated)
    assert data.provenance.parameters["ends"] == said


@pytest.mark.parametrize(
    ("flags", "terminated", "said"),
    [
        ({"terminals": at(2)}, [1, 0, 0], "lengths, terminals"),
        ({"dones": at(2, 3, 7), "truncated": at(7)}, [1, 1, 0], "lengths, truncated, dones"),
        ({"terminated": at(2, 3)}, [1, 1, 0], "lengths, terminated"),
        ({"dones": at()}, [0, 0, 0], "lengths"),
    ],
)
@pytest.mark.parametrize("behind", [0, 1, 255])
def test_flags_of_padded_steps(read, flags, terminated, said, behind):
    """They say the same as those of flat steps, whatever stands behind the last one."""
    square = {name: np.full((3, 4), behind * marks.any() if behind == 1 else behind) for name, marks in flags.items()}
    for name, marks in flags.items():
        square[name][np.arange(4) < np.array([[3], [1], [4]])] = marks
    data = read(padded(**square))
    np.testing.assert_array_equal(data.trajectories.terminated, terminated)
    assert data.provenance.parameters["ends"] == said


@pytest.mark.parametrize("name", ["dones", "terminated", "truncations"])
@pytest.mark.parametrize("axes", [2, 3])
def test_flags_of_padding_alone_are_refused(read, name, axes):
    """Of ends one step too late, no trajectory would be terminated, and nothing would say so."""
    late = np.arange(4) == np.array([[3], [1], [4]])  # the last trajectory has no padding
    marks = {name: late if axes == 2 else late[..., None]}
    with pytest.raises(DataError, match=f"{name} marks no real step, but padding: .* trajectory 0, step 3, .* is 3"):
        read(padded(**marks))
    late[2, 3] = True
    np.testing.assert_array_equal(read(padded(**marks)).trajectories.terminated, [0, 0, name != "truncations"])


def test_final_observations_of_padded_data(read):
    """By themselves, or the last of the next observations."""
    final = np.stack([np.arange(3.0), np.ones(3)], 1)
    following = np.full((3, 4, 2), np.nan)
    following[:, :-1] = padded()["observations"][:, 1:]
    following[np.arange(3), [2, 0, 3]] = final
    for arrays in ({"final_observations": final}, {"final_observation": final}, {"next_observations": following}):
        np.testing.assert_array_equal(dense(read(padded(**arrays)).trajectories.final_observations), final)


def following(observations, ends, final=9.0):
    """Next observations of flat data: at the ends there is no next step."""
    return np.where(ends[:, None], final, np.roll(observations, -1, 0)).astype(observations.dtype)


def test_an_end_that_is_not_marked_is_refused(read):
    """Next observations tell: episodes that a limit cut, without `timeouts`, would be one."""
    arrays = flat(terminals=at(7), next_observations=following(flat()["observations"], at(2, 3, 7)))
    said = "is not the observation of the next step, though no end of an episode is marked there"
    with pytest.raises(DataError, match=f"next_observations at step 2 {said}"):
        read(arrays)
    assert read(arrays | {"timeouts": at(2, 3)}).trajectories.lengths.tolist() == [3, 1, 4]
    lengths = np.array([3, 5])
    with pytest.raises(DataError, match=f"next_observations at step 3 {said}"):
        read(flat(episode_length=lengths, next_observations=arrays["next_observations"]))
    arrays = padded(**square(following(flat()["observations"], at(2, 3, 5, 7)), "next_observations"))
    with pytest.raises(DataError, match=f"next_observations at trajectory 2, step 1 {said}"):
        read(arrays)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x, lambda x: x.astype(np.float32)),  # rounded once
        (lambda x: x.astype(np.float32), lambda x: x * (1 + 2**-23)),
        (lambda x: x - x.mean(), lambda x: x.astype(np.float32) - np.float32(x.mean())),  # a sum in float32
        (lambda x: 1.7e9 + x, lambda x: (1.7e9 + x).astype(np.float32)),  # read less an offset
        (lambda x: (1e6 * x).astype(np.int32), lambda x: (1e6 * x).astype(np.int64)),
    ],
)
def test_successors_may_be_rounded(read, one, other):
    observations = np.random.default_rng(0).uniform(1, 2, (8, 2))
    ends = at(2, 3, 7)
    arrays = flat(observations=one(observations), next_observations=other(np.roll(observations, -1, 0)), dones=ends)
    assert read(arrays).trajectories.lengths.tolist() == [3, 1, 4]
    padded_arrays = padded(**square(arrays["next_observations"], "next_observations"))
    assert read(padded_arrays | square(arrays["observations"])).trajectories.lengths.tolist() == [3, 1, 4]


def test_successors_in_another_block(monkeypatch, read):
    monkeypatch.setattr(episodes, "_BLOCK_BYTES", 32)
    arrays = flat(dones=at(2, 3, 7), next_observations=following(flat()["observations"], at(2, 3, 7)))
    assert read(arrays).trajectories.final_observations.tolist() == [[9, 9]] * 3
    for step in (0, 1, 4, 5, 6):
        wrong = arrays | {"next_observations": arrays["next_observations"] + (np.arange(8) == step)[:, None]}
        with pytest.raises(DataError, match=f"next_observations at step {step} is not"):
            read(wrong)


def test_every_layout_and_format_is_the_same_data(read):
    flags = {"terminals": at(2), "timeouts": at(3, 7)}
    whole = read(flat(**flags))
    for other in (
        read(padded(terminated=np.array([1, 0, 0]))),
        read(flat(rewards=np.arange(8.0)[:, None], terminations=at(2), episode_length=np.array([[3], [1], [4]]))),
        read(
            {
                name: np.asarray(array, np.asarray(array).dtype.newbyteorder(">"))
                for name, array in flat(**flags).items()
            }
        ),
    ):
        assert other.provenance.fingerprint == whole.provenance.fingerprint


@pytest.mark.parametrize("flags", [{"terminals": at()}, {"timeouts": at(), "terminals": at()}, {"truncations": at()}])
def test_no_end_is_refused(read, flags):
    with pytest.raises(DataError, match="mark no end of an episode: add terminals, timeouts or dones"):
        read(flat(**flags))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int16])
def test_integer_actions_of_one_number_are_discrete(read, dtype):
    actions = np.array([0, 1, 2, 0, 1, 2, 1, 0], dtype)
    without = read(flat(actions=actions, dones=at(2, 3, 7)))
    with_axis = read(flat(actions=actions[:, None], dones=at(2, 3, 7)))
    assert without.trajectories.num_actions == with_axis.trajectories.num_actions == 3
    assert without.provenance.fingerprint == with_axis.provenance.fingerprint
    square = np.zeros((3, 4, 1), dtype)
    square[0, :3, 0] = 2
    data = read(padded(actions=square))
    assert data.trajectories.num_actions == 3
    assert data.trajectories.actions.shape == (3, 4)
    named = read(flat(actions=actions[:, None].astype(float), num_actions=5, dones=at(2, 3, 7)))
    assert named.trajectories.num_actions == 5
    assert not read(flat(dones=at(7))).trajectories.discrete


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (padded(lengths=np.array([3, 2**32 + 3, 4])), "lengths at trajectory 1 is 4294967299"),
        (padded(lengths=np.array([3, 1, 2**64 - 1], np.uint64)), "lengths at trajectory 2 is 18446744073709551615"),
        (
            padded(
                observations=None,
                observation_table=np.zeros((3, 2)),
                observation_ids=np.arange(12).reshape(3, 4) // 4 + 2**32,
            ),
            "observation_ids at trajectory 0, step 0 is 4294967296",
        ),
        (flat(episode_length=np.array([3, 2**32 + 1, 4])), "episode_length at trajectory 1 is 4294967297"),
        (flat(actions=np.arange(8) + 2**32, dones=at(7)), "actions"),
        (flat(actions=np.array([0, 1, 2, 0, 1, 2, 1, 2**31 - 2]), dones=at(7)), "there are 2147483647.*only 4"),
        (flat(actions=np.arange(8) % 3, num_actions=10**9, dones=at(7)), "there are 1000000000.*only 3"),
        (padded(actions=np.full((3, 4), 10**6)), "there are 1000001.*only 1"),
        (flat(observations=np.full((8, 2), 1e300), dones=at(7)), "observations at step 0 is NaN or infinite"),
        (flat(dones=np.array(True)), r"dones has shape \(\)"),
        (flat(dones=np.zeros(8, [("a", int)])), "dones has dtype"),
        (flat(dones=at(7) * 2), "dones at step 7 is 2: give 0 or 1"),
        (flat(dones=at(7), labels=np.array(b"x")), "labels has shape"),
        (flat(dones=at(7), actions=np.zeros(8, "S3")), "actions has dtype"),
        (flat(dones=at(7), rewards=np.array(0.0)), r"rewards has shape \(\)"),
        (flat(dones=at(7), observations=np.array(0.0)), "observations is empty"),
        (padded(observations=np.array(0.0)), "observations is a single value"),
        (padded(lengths=np.array(3)), "lengths is a single value"),
        (padded(lengths=np.array([3, 5])), "call them episode_length where steps follow"),
        (padded(terminated=np.array([1, 0])), "terminated"),
        (padded(dones=np.eye(3, 4)), "dones mark an end at step 0 of episode 0, within it"),
        (padded(next_observations=np.zeros((3, 3, 2))), "next_observations has shape"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(read, arrays, words):
    with pytest.raises(DataError, match=words) as caught:
        read(arrays)
    assert "\n" not in str(caught.value)


def test_many_actions_that_occur_are_read(read):
    actions = np.arange(8) * 500
    assert read(flat(actions=actions, dones=at(7))).trajectories.num_actions == 3501


@pytest.mark.parametrize("labels", [["m", "e", "m"], [b"m", b"e", b"m"]])
def test_text_labels(read, labels):
    data = read(flat(dones=at(2, 3, 7), labels=labels))
    np.testing.assert_array_equal(data.labels, [1, 0, 1])
    assert data.spec.policy_names == ("e", "m")
    assert data.label_guess is None


def test_labels_that_are_no_text_in_any_encoding_stay_apart(read):
    data = read(flat(dones=at(2, 3, 7), label=np.array([b"\xff", b"\xfe", b"\xff"])))
    np.testing.assert_array_equal(data.labels, [1, 0, 1])
    assert data.spec.policy_names == ("\\xfe", "\\xff")


def test_unix_time_is_centred(read, tmp_path):
    """A column that float32 would make constant keeps its values; what loses nothing is read as ever."""
    steps = np.arange(8.0)
    observations = np.stack([1.7e9 + steps / 10, steps * 1e9, np.full(8, 1.7e9), 100 + np.sin(steps)], 1)
    for arrays in (
        flat(observations=observations, dones=at(2, 3, 7)),
        padded(observations=None) | square(observations),
    ):
        data = read(arrays)
        seen = np.asarray(dense(data.trajectories.observations))[np.asarray(data.trajectories.mask)]
        assert data.provenance.parameters["observation_offsets"] == {"0": 1.7e9}
        np.testing.assert_allclose(np.diff(seen[:, 0]), 0.1, rtol=1e-5)
        np.testing.assert_array_equal(seen[:, 1:], observations[:, 1:].astype(np.float32))
        np.testing.assert_array_equal(data.trajectories.final_observations, seen[[2, 3, 7]])
    save_npz(data, tmp_path / "again.npz")
    assert load_npz(tmp_path / "again.npz").provenance == data.provenance
    assert "observation_offsets" not in read(flat(dones=at(7))).provenance.parameters


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64])
def test_unix_time_in_whole_numbers_is_centred(read, dtype):
    """Unsigned numbers, too, whose differences must not wrap around."""
    time = np.array([3, 7, 0, 1, 5, 4, 2, 6])
    observations = np.stack([1_700_000_000 + time, 7 * time], 1).astype(dtype)
    successors = following(observations, at(2, 3, 7), final=1_700_000_010)
    for arrays in (
        flat(observations=observations, dones=at(2, 3, 7), next_observations=successors),
        padded(**square(observations, dtype=dtype, fill=dtype(5)))
        | square(successors, "next_observations", dtype, dtype(0)),
    ):
        data = read(arrays)
        offset = data.provenance.parameters["observation_offsets"]["0"]
        seen = np.asarray(dense(data.trajectories.observations))
        assert seen.dtype == np.int32
        real = seen[np.asarray(data.trajectories.mask)].astype(np.int64)
        np.testing.assert_array_equal(real + np.array([offset, 0]), observations.astype(np.int64))
        assert np.abs(seen[..., 0]).max() < 10
        np.testing.assert_array_equal(data.trajectories.final_observations[:, 0] + offset, 1_700_000_010)


def test_unsigned_numbers_that_need_no_offset_are_as_they_were(read):
    observations = np.stack([np.arange(8) * 500_000_000, np.arange(8)], 1).astype(np.uint32)
    data = read(flat(observations=observations, dones=at(7)))
    assert dense(data.trajectories.observations).dtype == np.uint32
    assert "observation_offsets" not in data.provenance.parameters
    with pytest.raises(DataError, match="observations has dtype uint64: subtract an offset"):
        read(flat(observations=observations.astype(np.uint64) + 2**63, dones=at(7)))


def test_a_failed_reading_does_not_keep_time_from_being_centred(read):
    observations = np.stack([1.7e9 + np.arange(8.0) / 10, np.arange(8.0)], 1)
    observations[2, 0] = 0
    data = read(flat(observations=observations, dones=at(7)))
    seen = np.asarray(dense(data.trajectories.observations))[0, :, 0]
    np.testing.assert_allclose(np.diff(seen[3:]), 0.1, rtol=1e-5)


def test_actions_far_from_0_are_centred(read):
    """Positions in metres of a national grid, which float32 would round to half metres."""
    actions = np.stack([5412345 + np.sin(np.arange(8.0)), np.arange(8.0)], 1)
    for arrays in (flat(actions=actions, dones=at(2, 3, 7)), padded() | square(actions, "actions")):
        data = read(arrays)
        (offset,) = data.provenance.parameters["action_offsets"].values()
        seen = np.asarray(data.trajectories.actions)[np.asarray(data.trajectories.mask)]
        np.testing.assert_allclose(seen, actions - [offset, 0], atol=1e-6)
        moved = rebased(data, {"action_offsets": {"0": offset - 2}})
        np.testing.assert_allclose(np.asarray(moved.actions)[0, 0], [actions[0, 0] - offset + 2, 0], atol=1e-6)
        assert rebased(data, offsets_of(data)).actions is data.trajectories.actions


def test_files_that_were_read_less_other_offsets_are_the_same_data(read):
    """As `assign` sees a second file: its columns less what the first one's were."""
    time = np.arange(8.0) / 10
    first, second = (
        read(flat(observations=np.stack([1.7e9 + time + start, time], 1), dones=at(2, 3, 7)), name)
        for name, start in (("a", 0), ("b", 5000))
    )
    assert offsets_of(first) != offsets_of(second)
    moved = rebased(second, offsets_of(first))
    for name in ("observations", "final_observations"):
        one, two = (np.asarray(dense(getattr(each, name))) for each in (first.trajectories, moved))
        np.testing.assert_allclose((two - one)[0, ..., 0], 5000, rtol=1e-5)
        np.testing.assert_array_equal(one[..., 1], two[..., 1])


def square(observations, name="observations", dtype=float, fill=0):
    lengths = np.array([3, 1, 4])
    array = np.full((3, 4, observations.shape[1]), fill, dtype)
    array[np.arange(4) < lengths[:, None]] = observations
    return {name: array}


def test_final_observations_of_flat_data(read):
    final = np.full((3, 2), 9.0)
    for name, ends in (
        ("final_observation", {"dones": at(2, 3, 7)}),
        ("final_observations", {"episode_length": [3, 1, 4]}),
    ):
        data = read(flat(**ends, **{name: final}))
        np.testing.assert_array_equal(data.trajectories.final_observations, final)
