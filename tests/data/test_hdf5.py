"""HDF5 files: episodes' layouts, what was never written, what is not there, and messages that tell the cause."""

import os
import subprocess
import sys
import zlib

import h5py
import numpy as np
import pytest

from trajclust_jax.data import DataError, load

LENGTHS = (3, 1, 4)


def refusal(path):
    with pytest.raises(DataError) as caught:
        load(str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(f"{path}: ")


def flat():
    steps = np.arange(8.0)
    ends = np.isin(steps, (2, 3, 7))
    return {"observations": np.stack([steps, -steps], 1), "actions": np.sin(steps)[:, None], "timeouts": ends}


def write(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return str(path)


def robomimic(actions=None):
    """Demonstrations in robomimic's layout, as many as there could be in one order only by number."""
    rng, arrays = np.random.default_rng(0), {}
    for n, length in zip((2, 10, 1), (1, 4, 3), strict=True):
        demo = f"data/demo_{n}"
        arrays[f"{demo}/obs/robot_pos"] = rng.normal(size=(length, 3))
        arrays[f"{demo}/obs/object"] = rng.normal(size=(length, 1, 2)).astype(np.float32)
        for name in ("robot_pos", "object"):
            arrays[f"{demo}/next_obs/{name}"] = arrays[f"{demo}/obs/{name}"] + 1
        arrays[f"{demo}/actions"] = rng.normal(size=(length, 2)) if actions is None else actions[:length]
        arrays[f"{demo}/rewards"] = np.full(length, float(n))
        arrays[f"{demo}/dones"] = (np.arange(length) == length - 1) * (n != 2)
        arrays[f"{demo}/states"] = rng.normal(size=(length, 9))
    return arrays


def test_robomimic(tmp_path):
    arrays = robomimic()
    data = load(write(tmp_path / "demo.hdf5", {**arrays, "labels": np.array([0, 1, 0])}))
    trajectories = data.trajectories
    np.testing.assert_array_equal(trajectories.lengths, LENGTHS)
    np.testing.assert_array_equal(trajectories.rewards[:, 0], [1, 2, 10])
    np.testing.assert_array_equal(trajectories.terminated, [True, False, True])
    np.testing.assert_array_equal(trajectories.observations[2, :, :2], arrays["data/demo_10/obs/object"][:, 0])
    robot = arrays["data/demo_10/obs/robot_pos"].astype(np.float32)
    np.testing.assert_array_equal(trajectories.observations[2, :, 2:], robot)
    np.testing.assert_allclose(trajectories.final_observations[2, 2:], robot[-1] + 1, rtol=1e-6)
    np.testing.assert_array_equal(data.labels, [0, 1, 0])
    assert data.provenance.parameters["ends"] == "data/demo_*"


def test_unix_time_among_robomimics_parts(tmp_path):
    arrays = {name: x for name, x in robomimic().items() if "obs" not in name}
    for n, length in zip((1, 2, 10), LENGTHS, strict=True):
        arrays |= {
            f"data/demo_{n}/obs/time": 1.7e9 + n + np.arange(length) / 8,
            f"data/demo_{n}/obs/z": np.ones(length),
        }
    data = load(write(tmp_path / "demo.hdf5", arrays))
    assert data.provenance.parameters["observation_offsets"] == {"0": 1.7e9 + 5}
    assert data.trajectories.observation_shape == (2,)
    np.testing.assert_array_equal(data.trajectories.observations[2, :, 0], 5 + np.arange(4) / 8)
    np.testing.assert_array_equal(data.trajectories.final_observations[2], [5 + 3 / 8, 1])


def test_robomimic_without_what_is_optional(tmp_path):
    arrays = {name: x for name, x in robomimic(np.array([[2], [0], [1], [2]])).items() if name.endswith("actions")}
    arrays |= {name.replace("actions", "obs"): np.ones((len(x), 2)) for name, x in arrays.items()}
    trajectories = load(write(tmp_path / "demo.hdf5", arrays)).trajectories
    assert trajectories.num_actions == 3
    assert not trajectories.terminated.any()
    assert not trajectories.rewards.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data/demo_2/obs/object": None, "data/demo_2/obs/robot_pos": None}, "data/demo_2/obs is missing"),
        ({"data/demo_2/actions": None}, "data/demo_2/actions is missing"),
        (
            {"data/demo_1/obs/object": np.zeros((2, 1, 2))},
            "data/demo_1/obs: part 'robot_pos' has 3 steps, but others 2",
        ),
        ({"data/demo_1/actions": np.zeros((2, 2))}, "data/demo_1/dones has shape"),
        ({"data/demo_1/rewards": np.zeros(2)}, "data/demo_1/rewards is float64[2]"),
        ({"data/demo_1/obs/object": np.array([b"x"] * 3)}, "data/demo_1/obs/object has dtype"),
        (
            {"data/demo_10/obs/object": None},
            "data/demo_10/obs has robot_pos [3], but data/demo_1/obs has object [1, 2], robot_pos [3]: make them equal",
        ),
        (  # as wide, and something else
            {"data/demo_2/obs/object": None, "data/demo_2/obs/target": np.ones((1, 2))},
            "data/demo_2/obs has robot_pos [3], target [2], but data/demo_1/obs has object [1, 2], robot_pos [3]",
        ),
        ({"data/demo_10/next_obs/object": None}, "data/demo_10/next_obs has other parts than obs"),
        (
            {"data/demo_10/next_obs/object": None, "data/demo_10/next_obs/target": np.ones((4, 2))},
            "data/demo_10/next_obs has other parts than obs",
        ),
    ],
)
def test_bad_robomimic_files(tmp_path, change, words):
    arrays = {name: array for name, array in {**robomimic(), **change}.items() if array is not None}
    assert words in refusal(write(tmp_path / "a.hdf5", arrays))


def d3rlpy(discrete=False, parts=False):
    """A replay buffer as d3rlpy 2 dumps it."""
    arrays = {"columns": [b"observations", b"actions", b"rewards", b"terminated"], "num_episodes": 3, "version": "2.1"}
    start = 0
    for n, length in enumerate(LENGTHS):
        steps = np.arange(start, start + length, dtype=np.float32)
        observations = np.stack([steps, -steps], 1)
        if parts:
            arrays |= {f"observations_{n}_0": observations[:, :1], f"observations_{n}_1": observations[:, 1:]}
        else:
            arrays[f"observations_{n}"] = observations
        arrays[f"actions_{n}"] = (
            steps[:, None].astype(np.int32) % 3 if discrete else np.sin(steps.astype(float))[:, None]
        )
        arrays |= {f"rewards_{n}": steps[:, None], f"terminated_{n}": n == 0}
        start += length
    return arrays


@pytest.mark.parametrize("parts", [False, True])
def test_d3rlpy(tmp_path, parts):
    data = load(write(tmp_path / "buffer.h5", d3rlpy(parts=parts)))
    np.testing.assert_array_equal(data.trajectories.lengths, LENGTHS)
    np.testing.assert_array_equal(data.trajectories.terminated, [True, False, False])
    same = load(write(tmp_path / "flat.h5", {**flat(), "rewards": np.arange(8.0), "terminals": np.arange(8) == 2}))
    assert data.provenance.fingerprint == same.provenance.fingerprint
    assert load(write(tmp_path / "discrete.h5", d3rlpy(discrete=True))).trajectories.num_actions == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_episodes": 4}, "observations_3 is missing"),
        ({"num_episodes": 2}, "num_episodes is 2, but there is actions_2"),
        ({"num_episodes": 2**40}, "num_episodes is 1099511627776"),
        ({"num_episodes": [3]}, "num_episodes is int64[1]"),
        ({"terminated_1": np.ones((3, 3))}, "terminated_1 is float64[3, 3]"),
        ({"actions_1": None}, "actions_1 is missing"),
        ({"rewards_2": np.zeros((3, 1))}, "rewards_2 is float64[3, 1]"),
    ],
)
def test_bad_d3rlpy_files(tmp_path, change, words):
    arrays = {name: array for name, array in {**d3rlpy(), **change}.items() if array is not None}
    assert words in refusal(write(tmp_path / "a.h5", arrays))


def test_d3rlpys_parts_are_those_of_the_first_episode(tmp_path):
    arrays = d3rlpy(parts=True)
    for n in range(3):
        arrays[f"observations_{n}_1"] = np.repeat(arrays[f"observations_{n}_1"], 2, 1)
    assert load(write(tmp_path / "a.h5", arrays)).trajectories.observation_shape == (3,)
    arrays["observations_1_0"], arrays["observations_1_1"] = arrays["observations_1_1"], arrays["observations_1_0"]
    said = "observations_1 has 0 [2], 1 [1], but observations_0 has 0 [1], 1 [2]: make them equal"
    assert said in refusal(write(tmp_path / "a.h5", arrays))


@pytest.mark.parametrize("name", ["antmaze-umaze-v2", "Ant_maze_u-maze_noisy_multistart_True_multigoal_False_sparse"])
def test_antmaze_has_its_goal_and_is_not_ant(tmp_path, name):
    goals = np.repeat([[1.0, 2.0], [3.0, 4.0]], 4, axis=0)
    arrays = {**flat(), "next_observations": flat()["observations"] + [1, -1]}
    assert load(write(tmp_path / f"{name}.hdf5", arrays)).trajectories.observation_shape == (2,)
    data = load(write(tmp_path / f"{name}.hdf5", {**arrays, "infos/goal": goals}))
    assert data.trajectories.observation_shape == (4,)
    np.testing.assert_array_equal(data.trajectories.observations[2, 0], [4, -4, 3, 4])
    np.testing.assert_array_equal(data.trajectories.final_observations[2], [8, -8, 3, 4])
    assert data.provenance.parameters["environment"] == "AntMaze"
    assert "infos/goal" in refusal(write(tmp_path / f"{name}.hdf5", {**arrays, "infos/goal": goals[:3]}))


def test_environments_by_whole_names(tmp_path):
    for name, environment in (("ant-medium-v2", "Ant-v4"), ("antarctica", None), ("hopper_x", "Hopper-v4")):
        parameters = load(write(tmp_path / f"{name}.hdf5", flat())).provenance.parameters
        assert parameters.get("environment") == environment


@pytest.mark.parametrize("name", ["observations", "actions", "timeouts"])
def test_what_was_never_written_is_refused(tmp_path, name):
    arrays = flat()
    with h5py.File(write(tmp_path / "a.hdf5", arrays), "a") as file:
        del file[name]
        file.create_dataset(name, arrays[name].shape, "f4", chunks=True)
    assert f"{name} was declared, but never written" in refusal(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file[name]
        file.create_dataset(name, arrays[name].shape, "f4")
    assert f"{name} was declared, but never written" in refusal(tmp_path / "a.hdf5")


def test_what_was_written_in_part_is_refused(tmp_path):
    arrays = flat()
    with h5py.File(write(tmp_path / "a.hdf5", arrays), "a") as file:
        del file["observations"]
        file.create_dataset("observations", (8, 2), "f4", chunks=(2, 2))[:5] = 1
    assert "observations was written only in part" in refusal(tmp_path / "a.hdf5")


def test_small_files_that_take_gigabytes(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        chunk = (2**18, 64)
        observations = file.create_dataset("observations", (2**18, 640), "f4", chunks=chunk, compression="gzip")
        zeros = zlib.compress(bytes(4 * 2**24))
        for column in range(0, 640, 64):
            observations.id.write_direct_chunk((0, column), zeros)
        file["timeouts"] = np.arange(2**18) % 100 == 99
        file["actions"] = np.zeros((2**18, 1), "f4")
    assert os.path.getsize(tmp_path / "a.hdf5") < 2**22
    assert "observations takes 640 MiB by its shape, but" in refusal(tmp_path / "a.hdf5")


def virtual(path, source, shape=(8, 2), name="observations"):
    layout = h5py.VirtualLayout(shape, "f8")
    layout[:] = h5py.VirtualSource(source, name, shape)
    with h5py.File(write(path, {n: x for n, x in flat().items() if n != "observations"}), "a") as file:
        file.create_virtual_dataset("observations", layout)
    return path


def test_virtual_datasets(tmp_path):
    source = write(tmp_path / "source.hdf5", flat())
    data = load(virtual(tmp_path / "a.hdf5", "source.hdf5"))
    assert data.provenance.fingerprint == load(source).provenance.fingerprint
    assert "has no other" in refusal(virtual(tmp_path / "a.hdf5", "source.hdf5", name="other"))
    assert "maps more than" in refusal(virtual(tmp_path / "a.hdf5", "source.hdf5", (9, 2)))
    virtual(tmp_path / "a.hdf5", "source.hdf5")
    os.remove(source)
    assert "observations is virtual, and its source source.hdf5 is missing" in refusal(tmp_path / "a.hdf5")


def test_virtual_datasets_with_holes(tmp_path):
    write(tmp_path / "source.hdf5", flat())
    layout = h5py.VirtualLayout((8, 2), "f8")
    layout[:5] = h5py.VirtualSource("source.hdf5", "observations", (8, 2))[:5]
    with h5py.File(write(tmp_path / "a.hdf5", {n: x for n, x in flat().items() if n != "observations"}), "a") as file:
        file.create_virtual_dataset("observations", layout)
    assert "observations is virtual, and no file gives 6 of its numbers" in refusal(tmp_path / "a.hdf5")


def test_external_storage(tmp_path):
    arrays = flat()
    with h5py.File(write(tmp_path / "a.hdf5", arrays), "a") as file:
        del file["observations"]
        raw = tmp_path / "raw"
        file.create_dataset("observations", (8, 2), "f8", external=[(str(raw), 0, 128)])[:] = arrays["observations"]
    np.testing.assert_array_equal(load(tmp_path / "a.hdf5").trajectories.observations[1, 0], [3, -3])
    raw.write_bytes(raw.read_bytes()[:100])
    assert "which is missing or cut short" in refusal(tmp_path / "a.hdf5")
    raw.unlink()
    assert "observations lies in" in refusal(tmp_path / "a.hdf5")


def test_links_to_nothing(tmp_path):
    with h5py.File(write(tmp_path / "a.hdf5", flat()), "a") as file:
        file["rewards"] = h5py.ExternalLink("absent.hdf5", "rewards")
    assert "rewards is a link to nothing" in refusal(tmp_path / "a.hdf5")


def test_a_filter_that_is_not_installed(tmp_path, monkeypatch):
    with h5py.File(write(tmp_path / "a.hdf5", flat()), "a") as file:
        del file["observations"]
        file.create_dataset("observations", data=flat()["observations"], compression="lzf", chunks=True)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    assert "observations is compressed by the HDF5 filter 32000 (lzf)" in refusal(tmp_path / "a.hdf5")


def test_locked_by_a_writer(tmp_path):
    path = write(tmp_path / "a.hdf5", flat())
    code = f"import h5py; file = h5py.File({str(path)!r}, 'a'); print('open', flush=True); input()"
    writer = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline() == "open\n"
        assert "is locked by a program that writes it" in refusal(path)
    finally:
        writer.communicate("\n")
    load(path)


@pytest.mark.parametrize("suffix", ["hdf5", "npz"])
def test_what_is_no_file_is_told_as_what_it_is(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    assert refusal(path) == "no such file"
    path.symlink_to(tmp_path / "gone")
    assert "is a link to" in refusal(path)
    path.unlink()
    path.mkdir()
    assert "is a folder" in refusal(path)
    path.rmdir()
    path.touch()
    assert "is empty" in refusal(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "is a pointer of git-lfs" in refusal(path)
    path.unlink()
    os.mkfifo(path)
    assert "is a device or a pipe" in refusal(path)
    with pytest.raises(DataError, match=r"is a name of 30\d characters"):
        load(f"{'x' * 300}.{suffix}")


@pytest.mark.parametrize("medium", ["nothing", "-3", "1.5", "²", "9" * 5000, "nan"])
def test_medium_that_is_neither_number_nor_file(tmp_path, medium):
    write(tmp_path / "a-medium-expert.hdf5", flat())
    with pytest.raises(DataError, match=r"neither a number of steps nor a file|a name of 50\d\d characters"):
        load(f"{tmp_path}/a-medium-expert.hdf5:medium={medium}")
