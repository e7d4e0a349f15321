"""Round trips through .npz, and files that are refused."""

import dataclasses
import errno
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from trajclust_jax.data import Codebook, DataError, build_dataset, dense, files, load_npz, save_npz, transitions


def refusal(path):
    with pytest.raises(DataError) as caught:
        load_npz(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.fixture
def datasets(discrete, continuous):
    def build(trajectories, labels, likelihoods):
        return build_dataset(
            trajectories,
            labels,
            name="toy",
            source="tests",
            policy_names=("left", "right") if labels is not None else (),
            parameters={"size": 3, "nested": {"a": [1, 2.5, None, "x"]}},
            seed=7,
            true_log_likelihoods=likelihoods,
        )

    likelihoods = np.array([[-1.5, -np.inf]] * 40, np.float32)
    return {
        "coded": build(discrete(n=40, padding=2), np.arange(40) % 2, likelihoods),
        "dense": build(continuous(padding=np.nan), np.arange(6) % 2, None),
        "unlabelled": build(continuous(), None, None),
        "joint": build(discrete().replace(action_parts=((0, 0), (0, 1), (1, -1), (2, 0))), None, None),
    }


@pytest.mark.parametrize("kind", ["coded", "dense", "unlabelled", "joint"])
def test_round_trip(datasets, same, tmp_path, kind):
    path = tmp_path / "new" / "folder" / "data.npz"
    save_npz(datasets[kind], path)
    again = load_npz(path)
    same(datasets[kind], again)
    assert isinstance(again.trajectories.observations, Codebook) == (kind in ("coded", "joint"))
    assert os.listdir(path.parent) == ["data.npz"]
    first = path.read_bytes()
    save_npz(again, str(path))  # over itself
    assert path.read_bytes() == first


def test_file_is_plain_numpy(datasets, tmp_path):
    save_npz(datasets["dense"], tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert {"observations", "actions", "lengths", "labels", "metadata"} <= set(archive)


@pytest.mark.parametrize("part", [0, 1, 3, 40, 0.1, 0.3, 0.5, 0.7, 0.9, -30, -21, -1])
def test_truncated_file(datasets, tmp_path, part):
    path = tmp_path / "a.npz"
    save_npz(datasets["coded"], path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content)) if isinstance(part, float) else part])
    refusal(path)


@pytest.mark.parametrize("where", np.linspace(0.02, 0.95, 12))
def test_flipped_bytes(datasets, same, tmp_path, where):
    path = tmp_path / "a.npz"
    save_npz(datasets["dense"], path)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 255
    path.write_bytes(content)
    try:
        again = load_npz(path)
    except DataError:
        refusal(path)
    else:
        same(datasets["dense"], again)  # a byte that says nothing, such as a date


def test_changed_content_is_noticed(datasets, tmp_path):
    path = tmp_path / "a.npz"
    save_npz(datasets["dense"], path)
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    arrays["rewards"][0, 0] += 1
    np.savez(path, **arrays)
    assert "fingerprint" in refusal(path)


@pytest.mark.parametrize("name", ["observations", "labels", "terminals"])
def test_pickled_objects_are_refused(tmp_path, name):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    arrays = {"observations": np.zeros((4, 2)), "actions": np.zeros((4, 1)), "terminals": np.eye(4)[3]}
    np.savez(tmp_path / "a.npz", **{**arrays, name: np.array([Bomb()] * 4, object)})
    assert name in refusal(tmp_path / "a.npz")


def test_pickled_objects_that_nobody_needs_are_skipped(tmp_path):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    bombs = np.array([Bomb()] * 4, object)
    np.savez(
        tmp_path / "a.npz",
        **{**FLAT, "infos": bombs, "metadata": bombs, "final_observation_ids": bombs, "lengths_of_mine": bombs},
        labels=[0, 1],
        policy_names=bombs,
    )
    data = load_npz(tmp_path / "a.npz")
    assert data.trajectories.num_trajectories == len(data.labels) == 2
    assert data.spec.policy_names == ()


@pytest.mark.parametrize("name", ["true_log_likelihoods", "labels", "metadata", "rewards"])
@pytest.mark.parametrize("compressed", [False, True])
def test_every_flipped_byte_of_an_array_is_noticed(datasets, same, tmp_path, name, compressed):
    """Also in one that the fingerprint does not cover, and where damage is no error of zip or zlib."""
    path = tmp_path / "a.npz"
    save_npz(datasets["coded"], path)
    if compressed:
        with np.load(path) as archive:
            np.savez_compressed(path, **archive)
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
    content = path.read_bytes()
    start = member.header_offset + 30 + len(member.filename) + (20 if b"\x01\x00\x10\x00" in content[:60] else 0)
    for at in np.linspace(start, start + member.compress_size - 1, 9).astype(int):
        damaged = bytearray(content)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        try:
            again = load_npz(path)
        except DataError:
            refusal(path)
        else:
            assert compressed  # and a byte that says where its blocks end
            same(datasets["coded"], again)


def test_a_link_to_a_bigger_disk_stays(datasets, same, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.npz").symlink_to("disk/b.npz")
    save_npz(datasets["coded"], tmp_path / "a.npz")
    assert (tmp_path / "a.npz").is_symlink()
    same(datasets["coded"], load_npz(tmp_path / "disk" / "b.npz"))


def test_likelihoods_that_were_changed_are_noticed(datasets, tmp_path):
    path = tmp_path / "a.npz"
    save_npz(datasets["coded"], path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "true_log_likelihoods": arrays["true_log_likelihoods"] - 1})
    assert "true_log_likelihoods is not what was written" in refusal(path)
    del arrays["true_log_likelihoods"]
    np.savez(path, **arrays)
    assert "true_log_likelihoods is not what was written" in refusal(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x.astype(str), "true_log_likelihoods has dtype"),
        (lambda x: x.astype(int), "true_log_likelihoods has dtype int64"),
        (lambda x: x[:, :1], "k* = 2 or more"),
        (lambda x: x[:-1], "with N = 40"),
        (lambda x: x[:, 0], "true_log_likelihoods has shape (40,)"),
        (lambda x: np.where(np.arange(40)[:, None] == 7, np.nan, x), "at trajectory 7, policy 0 is nan"),
        (lambda x: np.where(np.arange(40)[:, None] == 7, np.inf, x), "at trajectory 7, policy 0 is inf"),
        (lambda x: np.where(np.arange(40)[:, None] == 7, -np.inf, x), "at trajectory 7 is -inf for every policy"),
    ],
)
def test_likelihoods_that_cannot_be_meant(datasets, tmp_path, change, words):
    data = datasets["coded"]
    likelihoods = np.where(np.isfinite(data.true_log_likelihoods), data.true_log_likelihoods, -np.inf)
    with np.errstate(invalid="ignore"):
        likelihoods = change(np.where(likelihoods == -np.inf, -9.0, likelihoods))
    for make in (
        lambda: save_npz(dataclasses.replace(data, true_log_likelihoods=likelihoods), tmp_path / "a.npz"),
        lambda: build_dataset(data.trajectories, data.labels, name="x", source="x", true_log_likelihoods=likelihoods),
    ):
        with pytest.raises(DataError) as caught:
            make()
        assert words in str(caught.value)


def test_a_guess_of_labels_survives(datasets, tmp_path):
    data = datasets["coded"]
    for how, guess in (("returns (heuristic)", "returns (heuristic)"), ("5 steps of medium (exact)", None)):
        provenance = dataclasses.replace(data.provenance, parameters={"labels": how})
        save_npz(dataclasses.replace(data, provenance=provenance), tmp_path / "a.npz")
        assert load_npz(tmp_path / "a.npz").label_guess == guess
    assert data.label_guess is None
    assert dataclasses.replace(data, labels=None, provenance=provenance).label_guess is None


def declared(path, shape, dtype="<f4", size=None):
    """A .npz whose observations have a header of any shape and `size` zero bytes, compressed."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("observations.npy", "w", force_zip64=True) as stream:
            stream.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
            for _ in range(size // 2**20):
                stream.write(bytes(2**20))
        for name in ("actions", "dones"):
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, np.ones(3, int))


def test_declared_shapes_are_compared_with_sizes(tmp_path):
    declared(tmp_path / "a.npz", (2**60, 3), size=2**20)
    assert "observations has 1048704 bytes, but 13835058055282163840 by its shape" in refusal(tmp_path / "a.npz")
    declared(tmp_path / "a.npz", (2**20, 100), size=400 * 2**20)
    assert "observations takes 400 MiB by its shape, but" in refusal(tmp_path / "a.npz")


def test_what_does_not_fit_in_memory_is_refused(datasets, tmp_path, monkeypatch):
    save_npz(datasets["dense"], tmp_path / "a.npz")
    monkeypatch.setattr(files, "available_memory", lambda: 100)
    assert "100 bytes of memory are free: split the file" in refusal(tmp_path / "a.npz")


def test_names_as_long_as_files_may_have(datasets, tmp_path, same):
    path = tmp_path / f"{'x' * 251}.npz"
    save_npz(datasets["dense"], path)
    same(load_npz(path), datasets["dense"])


def test_what_is_no_npz_file(tmp_path):
    assert "no such file" in refusal(tmp_path / "missing.npz")
    assert "folder" in refusal(tmp_path)
    (tmp_path / "empty").touch()
    assert "is empty" in refusal(tmp_path / "empty")
    for name, content in (("text", b"hello"), ("pickle", pickle.dumps([1, 2]))):
        (tmp_path / name).write_bytes(content)
        assert "not a .npz file" in refusal(tmp_path / name)
    np.save(tmp_path / "array.npy", np.zeros(3))
    assert "not a .npz file" in refusal(tmp_path / "array.npy")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("observations.npy", b"no array at all")
        archive.writestr("notes.txt", b"hello")
    assert "actions is missing" in refusal(tmp_path / "zip.npz")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("notes.txt", b"hello")
    assert "observations is missing" in refusal(tmp_path / "other.npz")


@pytest.mark.parametrize(
    "name", ["observation_ids", "final_observation_ids", "actions", "rewards", "lengths", "terminated", "num_actions"]
)
def test_missing_array_of_ours(datasets, tmp_path, name):
    path = tmp_path / "a.npz"
    save_npz(datasets["coded"], path)
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    del arrays[name]
    np.savez(path, **arrays)
    assert f"{name} is missing" in refusal(path)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ('{"format": "trajclust-99"}', "format 'trajclust-99'"),
        ('{"format": "trajclust-1"}', "metadata is damaged"),
        ('{"format": "trajclust-1", "spec": {"name": "x"}, "provenance": {}}', "metadata is damaged"),
    ],
)
def test_bad_metadata(datasets, tmp_path, metadata, words):
    path = tmp_path / "a.npz"
    save_npz(datasets["coded"], path)
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "metadata": metadata})
    assert words in refusal(path)


def test_nothing_half_written(datasets, tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    save_npz(datasets["dense"], path)
    before = path.read_bytes()
    calls = []

    def full_disk(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "no space left")
        return original(*args, **kwargs)

    original = np.lib.format.write_array
    monkeypatch.setattr(np.lib.format, "write_array", full_disk)
    for target in (path, tmp_path / "other.npz"):
        calls.clear()
        with pytest.raises(OSError, match=rf"no space left: '{target}'"):
            save_npz(datasets["coded"], target)
    assert os.listdir(tmp_path) == ["a.npz"]
    assert path.read_bytes() == before


def test_save_refuses_what_load_would(datasets, tmp_path):
    data = datasets["dense"]
    changed = dataclasses.replace(
        data, trajectories=data.trajectories.replace(terminated=~data.trajectories.terminated)
    )
    with pytest.raises(DataError, match="fingerprint"):
        save_npz(changed, tmp_path / "a.npz")
    odd = dataclasses.replace(data, provenance=dataclasses.replace(data.provenance, parameters={"x": object()}))
    with pytest.raises(DataError, match=r"provenance\.parameters"):
        save_npz(odd, tmp_path / "a.npz")
    assert not os.listdir(tmp_path)


def test_minimal_padded_file(tmp_path):
    rng = np.random.default_rng(0)
    observations, actions = rng.normal(size=(3, 4, 2)), rng.integers(0, 3, (3, 4))
    actions[0, 0] = 2
    lengths = np.array([4, 1, 2])
    observations[1, 1:], actions[1, 1:] = np.nan, -1  # padding
    np.savez(tmp_path / "mine.npz", observations=observations, actions=actions, lengths=lengths)
    data = load_npz(tmp_path / "mine.npz")
    trajectories = data.trajectories
    assert trajectories.num_actions == 3
    assert (data.spec.name, data.provenance.source) == ("mine", "mine.npz")
    assert not trajectories.rewards.any()
    assert not trajectories.terminated.any()
    assert not trajectories.observations[1, 1:].any()
    last = observations[np.arange(3), lengths - 1].astype(np.float32)
    np.testing.assert_array_equal(trajectories.final_observations, last)
    assert len(transitions(trajectories).rewards) == 7
    save_npz(data, tmp_path / "again.npz")
    assert load_npz(tmp_path / "again.npz").provenance == data.provenance


def test_padded_file_with_everything(tmp_path):
    np.savez(
        tmp_path / "mine.npz",
        observations=np.zeros((3, 2, 2)),
        actions=np.zeros((3, 2, 1)),
        lengths=np.array([2, 1, 2]),
        rewards=np.ones((3, 2)),
        terminated=np.array([1, 0, 1]),
        final_observations=np.ones((3, 2)),
        labels=np.array(["b", "a", "b"]),
        metadata="a user's own words",
    )
    data = load_npz(tmp_path / "mine.npz")
    np.testing.assert_array_equal(data.labels, [1, 0, 1])
    assert data.spec.policy_names == ("a", "b")
    np.testing.assert_array_equal(data.trajectories.terminated, [True, False, True])
    assert not data.trajectories.discrete


FLAT = {
    "observations": np.arange(12.0).reshape(6, 2),
    "actions": np.array([0, 1, 2, 0, 1, 1]),
    "terminals": np.array([0, 0, 1, 0, 0, 0]),
}


@pytest.mark.parametrize("name", ["terminals", "dones"])
def test_flat_file(tmp_path, name):
    arrays = {"dones" if key == "terminals" and name == "dones" else key: array for key, array in FLAT.items()}
    np.savez(tmp_path / "flat.npz", **arrays, timeouts=np.eye(6)[5], labels=np.array([4, 2]), num_actions=5)
    data = load_npz(tmp_path / "flat.npz")
    np.testing.assert_array_equal(data.trajectories.lengths, [3, 3])
    np.testing.assert_array_equal(data.trajectories.terminated, [True, False])
    np.testing.assert_array_equal(data.labels, [1, 0])
    assert data.trajectories.num_actions == 5
    assert not data.trajectories.rewards.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observations": None}, "observations is missing"),
        ({"actions": None}, "actions is missing"),
        ({"terminals": None}, "terminals is missing"),
        ({"actions": np.zeros(6)}, "actions has shape (6,)"),
        ({"actions": np.array([0, 1, 2, 0, -1, 1])}, "actions at step 4 is -1"),
        ({"rewards": np.zeros(5)}, "rewards has shape (5,)"),
        ({"labels": np.zeros(6, int)}, "labels has 6 entries, but there are 2"),
        ({"num_actions": np.array([2, 3])}, "num_actions"),
        ({"lengths": np.array([3, 3])}, "lengths is int32[2], but observations has leading axes [6, 2]"),
    ],
)
def test_bad_files(tmp_path, change, words):
    arrays = {name: array for name, array in {**FLAT, **change}.items() if array is not None}
    np.savez(tmp_path / "flat.npz", **arrays)
    assert words in refusal(tmp_path / "flat.npz")


PADDED = {"observations": np.zeros((2, 3, 2)), "actions": np.zeros((2, 3), int), "lengths": np.array([3, 2])}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"actions": None}, "actions is missing"),
        ({"lengths": np.array([3, 0])}, "lengths at trajectory 1 is 0"),
        ({"lengths": np.array([3, 4])}, "lengths at trajectory 1 is 4, but T = 3"),
        ({"lengths": np.array([3.0, 2.5])}, "lengths is float32[2]"),
        ({"actions": np.zeros((2, 3))}, "actions has shape (2, 3)"),
        ({"actions": np.zeros((2, 2), int)}, "actions has shape (2, 2)"),
        ({"rewards": np.full((2, 3), np.nan)}, "rewards at trajectory 0, step 0"),
        ({"terminated": np.array([0, 2])}, "terminated at trajectory 1 is 2: give 0 or 1"),
        ({"observations": np.zeros((0, 3, 2)), "lengths": np.zeros(0, int)}, "at least one trajectory"),
    ],
)
def test_bad_padded_files(tmp_path, change, words):
    arrays = {name: array for name, array in {**PADDED, **change}.items() if array is not None}
    np.savez(tmp_path / "padded.npz", **arrays)
    assert words in refusal(tmp_path / "padded.npz")


def gymnasium_words():
    lengths = np.array([3, 1, 4])
    ends = np.cumsum(lengths) - 1
    steps = np.arange(8.0)
    return {
        "observations": np.stack([steps, -steps], 1),
        "actions": steps[:, None],
        "rewards": steps,
        "terminations": steps == 2,
        "truncations": np.isin(steps, ends[1:]),
        "episode_length": lengths,
        "final_observation": np.full((3, 2), 9.0),
        "label": np.array([2, 0, 2]),
        "policy_names": np.array(["good", "unused", "bad"]),
        "env_id": np.array("Hopper-v4"),
    }


def test_gymnasium_words(tmp_path):
    np.savez_compressed(tmp_path / "rollouts.npz", **gymnasium_words())
    data = load_npz(tmp_path / "rollouts.npz")
    observations, final = dense(data.trajectories.observations), dense(data.trajectories.final_observations)
    np.testing.assert_array_equal(data.trajectories.lengths, [3, 1, 4])
    np.testing.assert_array_equal(data.trajectories.terminated, [True, False, False])
    np.testing.assert_array_equal(observations[2, :, 0], [4, 5, 6, 7])
    np.testing.assert_array_equal(final, np.full((3, 2), 9))
    np.testing.assert_array_equal(data.labels, [1, 0, 1])
    assert data.spec.policy_names == ("good", "bad")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"episode_length": np.array([3, 1, 5])}, "episode_length sums to 9, but there are 8 steps"),
        ({"episode_length": np.array([0, 4, 4])}, "episode_length is int64[3]: give whole numbers [N] of at least 1"),
        ({"episode_length": np.array([4, 1, 3])}, "mark an end at step 2 of episode 0, within it"),
        ({"truncations": np.zeros(5)}, "truncations has shape (5,), but there are 8 steps"),
        ({"final_observation": np.zeros((2, 2))}, "final_observations has"),
        ({"label": np.zeros(2, int)}, "labels has 2 entries"),
    ],
)
def test_bad_gymnasium_words(tmp_path, change, words):
    np.savez(tmp_path / "a.npz", **{**gymnasium_words(), **change})
    assert words in refusal(tmp_path / "a.npz")
