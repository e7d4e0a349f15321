"""Round trips through Minari's storage."""

import json
import os
import warnings

import gymnasium as gym
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from trajclust_jax.data import Codebook, DataError, build_dataset, dense, load, load_minari, save_minari

BOUNDS = {"action_low": [-9.0, -9.0], "action_high": [9.0, 9.0]}  # of `write_other`'s actions: learners scale by them


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "elsewhere"))
    return tmp_path / "root"


def build(trajectories, labels=True, **more):
    n = trajectories.num_trajectories
    names = {"policy_names": ("left", "right")} if labels else {}
    labels = np.arange(n) % 2 if labels else None
    return build_dataset(
        trajectories, labels, name="toy", source="tests", parameters={"a": [1, None]}, seed=3, **names, **more
    )


def images(discrete, size):
    """Coded uint8 images of every value; the large ones Minari would store as JPEG."""
    data = discrete(n=30)
    table = np.random.default_rng(0).integers(0, 256, (5, size, size, 3)).astype(np.uint8)
    return data.replace(
        observations=data.observations.replace(table=table),
        final_observations=data.final_observations.replace(table=table),
    )


@pytest.mark.parametrize("size", [9, 32])
def test_images_exactly(discrete, same, root, size):
    likelihoods = np.array([[-0.25, -np.inf]] * 30, np.float32)
    data = build(images(discrete, size), true_log_likelihoods=likelihoods)
    folder = save_minari(data, "demo/grid/mixed-v0", root)
    assert folder == root / "demo/grid/mixed-v0"
    for source in ("demo/grid/mixed-v0", folder, str(folder)):
        again = load_minari(source, root=root)
        same(data, again)
        assert isinstance(again.trajectories.observations, Codebook)


@pytest.mark.parametrize("labels", [True, False])
def test_continuous(continuous, same, root, labels):
    data = build(continuous(padding=np.nan), labels)
    save_minari(data, "toy-v1", root)
    same(data, load_minari("toy-v1", root=root))


@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.float16])
def test_other_observations(continuous, same, root, dtype):
    data = continuous()
    data = build(
        data.replace(
            observations=(data.observations > 0).astype(dtype),
            final_observations=(data.final_observations > 0).astype(dtype),
        )
    )
    save_minari(data, "toy-v0", root)
    same(data, load_minari("toy-v0", root=root))


def test_root_from_the_environment_is_restored(continuous, root, tmp_path):
    before = os.environ["MINARI_DATASETS_PATH"]
    data = build(continuous())
    save_minari(data, "demo/toy-v0")
    assert (tmp_path / "elsewhere/demo/toy-v0/data/main_data.hdf5").is_file()
    save_minari(data, "demo/toy-v0", root)
    load_minari("demo/toy-v0", root=root)
    assert os.environ["MINARI_DATASETS_PATH"] == before


def test_minari_reads_it(discrete, root, monkeypatch):
    import minari

    data = build(images(discrete, 9))
    save_minari(data, "demo/toy-v0", root)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    stored = minari.load_dataset("demo/toy-v0")
    assert minari.list_local_datasets().keys() == {"demo/toy-v0"}
    details = list(stored.storage.get_episode_metadata(stored.episode_indices))
    assert [detail["label"] for detail in details] == data.labels.tolist()
    assert {detail["policy"] for detail in details} == {"left", "right"}
    episode = stored[0]
    length = data.trajectories.lengths[0]
    assert episode.observations.shape == (length + 1, 9, 9, 3)
    assert bool(episode.terminations[-1]) == data.trajectories.terminated[0]
    assert bool(episode.truncations[-1]) == (not data.trajectories.terminated[0])
    assert not (episode.terminations | episode.truncations)[:-1].any()


@pytest.mark.parametrize("dataset_id", ["a/x-v0", "noversion", "../up-v0", "", "spa ce-v0", "x-v0/"])
def test_bad_id_leaves_nothing(continuous, root, dataset_id):
    root.mkdir()
    with pytest.raises(DataError, match="is not a Minari id"):
        save_minari(build(continuous()), dataset_id, root)
    assert not os.listdir(root)


def test_failure_leaves_nothing(continuous, root, monkeypatch):
    import minari

    def broken(*args, **kwargs):
        original(*args, **kwargs)
        raise OSError("no space left")

    original = minari.create_dataset_from_buffers
    monkeypatch.setattr(minari, "create_dataset_from_buffers", broken)
    with pytest.raises(OSError, match="no space"):
        save_minari(build(continuous()), "demo/toy-v0", root)
    assert not os.listdir(root)


def test_existing_id_is_kept(continuous, same, root):
    data = build(continuous())
    save_minari(data, "toy-v0", root)
    with pytest.raises(DataError, match="toy-v0: exists in"):
        save_minari(build(continuous(seed=1)), "toy-v0", root)
    same(data, load_minari("toy-v0", root=root))


def test_missing_and_damaged(continuous, root):
    with pytest.raises(DataError, match="nothing-v0: no Minari dataset"):
        load_minari("nothing-v0", root=root)
    assert not root.exists()
    folder = save_minari(build(continuous()), "toy-v0", root)
    file = folder / "data/main_data.hdf5"
    content = file.read_bytes()
    for size in (0, 100, len(content) // 2):
        file.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"toy-v0: .*cannot be read") as caught:
            load_minari("toy-v0", root=root)
        assert "\n" not in str(caught.value)
    file.write_bytes(content)
    text = (folder / "data/metadata.json").read_text()
    (folder / "data/metadata.json").write_text(text[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        load_minari("toy-v0", root=root)
    described = json.loads(text)
    described["trajclust"]["provenance"]["fingerprint"] = "0" * 64
    (folder / "data/metadata.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match="fingerprint"):
        load_minari("toy-v0", root=root)


@pytest.mark.filterwarnings("ignore:.* None:UserWarning")  # what Minari misses in other people's datasets
@pytest.mark.parametrize("labels", ["label", "policy", "none"])
def test_datasets_of_others(root, monkeypatch, labels):
    """No metadata of ours: names and spec come from Minari's, actions may start at 1."""
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    buffers = [
        EpisodeBuffer(
            observations=np.full((n + 3, 2), n, np.float64),
            actions=np.full(n + 2, 1 + n % 3),
            rewards=np.ones(n + 2),
            terminations=np.arange(n + 2) == n + 1,
            truncations=np.zeros(n + 2, bool),
        )
        for n in range(4)
    ]
    stored = minari.create_dataset_from_buffers(
        "demo/other-v0",
        buffers,
        observation_space=gymnasium.spaces.Box(-9, 9, (2,), np.float64),
        action_space=gymnasium.spaces.Discrete(3, start=1),
    )
    if labels == "label":
        stored.storage.update_episode_metadata([{"label": 5 - n % 2} for n in range(4)])
    elif labels == "policy":
        stored.storage.update_episode_metadata([{"policy": "ab"[n % 2]} for n in range(4)])
    data = load_minari("demo/other-v0")
    assert data.spec.name == data.provenance.source == "demo/other-v0"
    assert data.trajectories.num_actions == 3
    np.testing.assert_array_equal(data.trajectories.lengths, [2, 3, 4, 5])
    np.testing.assert_array_equal(data.trajectories.actions[:, 0], [0, 1, 2, 0])
    assert data.trajectories.terminated.all()
    assert data.spec.policy_names == (("a", "b") if labels == "policy" else ())
    expected = {"label": [1, 0, 1, 0], "policy": [0, 1, 0, 1], "none": None}[labels]
    assert (data.labels is None) == (expected is None)
    if expected is not None:
        np.testing.assert_array_equal(data.labels, expected)


def write_other(dataset_id, observations, space, lengths=(3, 2), actions=None, action_space=None, unfinished=()):
    """A dataset of somebody else's; `observations(n, t)` are the t of episode n, `actions(n, t)` its actions."""
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    buffers = [
        EpisodeBuffer(
            observations=observations(n, length + (n not in unfinished)),
            actions=actions(n, length) if actions else np.full((length, 2), n, np.float32),
            rewards=np.ones(length),
            terminations=np.zeros(length, bool),
            truncations=np.arange(length) == length - 1,
        )
        for n, length in enumerate(lengths)
    ]
    box = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
    return minari.create_dataset_from_buffers(
        dataset_id, buffers, observation_space=space, action_space=action_space or box
    )


@pytest.mark.filterwarnings("ignore:.* None:UserWarning")
def test_dict_observations_are_flattened_in_order(root, monkeypatch):
    import gymnasium

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    spaces = gymnasium.spaces
    space = spaces.Dict(
        z=spaces.Box(-9, 9, (2, 2)), a=spaces.Discrete(3, start=1), m=spaces.Tuple((spaces.Box(-9, 9, (1,)),))
    )
    goal = lambda n, t: {"z": np.full((t, 2, 2), n), "a": np.full(t, 1 + n), "m": (np.arange(t)[:, None],)}
    write_other("demo/maze-v0", goal, space)
    data = load_minari("demo/maze-v0").trajectories
    observations, final = dense(data.observations), dense(data.final_observations)
    assert data.observation_shape == (8,)
    assert observations.dtype == np.float32
    order = sorted(space.spaces)
    expected = np.concatenate([{"a": [0.0, 1, 0], "m": [1.0], "z": [1.0] * 4}[key] for key in order])
    np.testing.assert_array_equal(observations[1, 1], expected)
    np.testing.assert_array_equal(
        final[0],
        np.concatenate([{"a": [1.0, 0, 0], "m": [3.0], "z": [0.0] * 4}[key] for key in order]),
    )


@pytest.mark.filterwarnings("ignore:.* None:UserWarning")
def test_mixture_of_datasets(root, monkeypatch):
    import gymnasium

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    box = lambda size: gymnasium.spaces.Box(-9, 9, (size,), np.float32)
    plain = lambda size: lambda n, t: np.full((t, size), n, np.float32)
    write_other("demo/medium-v0", plain(3), box(3))
    write_other("demo/expert-v0", plain(3), box(3), lengths=(5, 4, 1))
    write_other("demo/wide-v0", plain(4), box(4))
    data = load("demo/medium-v0 + demo/expert-v0")
    np.testing.assert_array_equal(data.labels, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(data.trajectories.lengths, [3, 2, 5, 4, 1])
    assert data.spec.policy_names == ("demo/medium-v0", "demo/expert-v0")
    assert data.provenance.parameters == {"datasets": ["demo/medium-v0", "demo/expert-v0"], **BOUNDS}
    alone = load("demo/expert-v0").trajectories
    np.testing.assert_array_equal(dense(data.trajectories.observations)[2:], dense(alone.observations))
    with pytest.raises(DataError, match=r"demo/wide-v0: has observations of \(4,\)"):
        load_minari("demo/medium-v0", "demo/wide-v0")
    with pytest.raises(DataError, match="demo/absent-v0"):
        load("demo/medium-v0 + demo/absent-v0")


@pytest.mark.filterwarnings("ignore:.* None:UserWarning")
def test_other_spaces_are_refused(root, monkeypatch):
    import gymnasium

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    write_other("odd-v0", lambda n, t: ["a"] * t, gymnasium.spaces.Text(3))
    with pytest.raises(DataError, match="observations has space Text"):
        load_minari("odd-v0")


def counting(n, t):
    """Observations that tell their episode and step."""
    return np.stack([np.full(t, n), np.arange(t)], 1).astype(np.float32)


@pytest.fixture
def plain(root, monkeypatch):
    """Writes a dataset of observations `counting`, with given actions."""
    import gymnasium

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    box = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
    return lambda dataset_id, **more: write_other(dataset_id, counting, box, **more)


@pytest.mark.filterwarnings("ignore:.* None:UserWarning")
def test_unix_time_is_centred(root):
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    steps = np.arange(5.0)
    observations = np.stack([1.7e9 + steps / 8, steps], 1)
    ends = {"terminations": np.zeros(4, bool), "truncations": steps[1:] == 4}
    minari.create_dataset_from_buffers(
        "time-v0",
        [EpisodeBuffer(observations=observations, actions=np.zeros(4, int), rewards=steps[:4], **ends)] * 2,
        observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64),
        action_space=gymnasium.spaces.Discrete(2),
    )
    data = load("time-v0")
    assert data.provenance.parameters == {"observation_offsets": {"0": 1.7e9}}
    table = dense(data.trajectories.observations)
    np.testing.assert_array_equal(table[0], np.stack([steps[:4] / 8, steps[:4]], 1))


@pytest.mark.filterwarnings("ignore:.* None:UserWarning")
def test_the_last_observation_stands_for_a_successor_that_nobody_recorded(plain):
    plain("cut-v0", lengths=(3, 2, 4), unfinished=(0, 2))
    data = load("cut-v0")
    np.testing.assert_array_equal(data.trajectories.lengths, [3, 2, 4])
    np.testing.assert_array_equal(data.trajectories.final_observations, [[0, 2], [1, 2], [2, 3]])
    assert data.provenance.parameters == {"last_observation_repeated": 2, **BOUNDS}


@pytest.mark.filterwarnings("ignore:.* None:UserWarning")
def test_actions_of_discrete_parts_are_combinations(plain, root, same):
    from gymnasium import spaces

    parts = spaces.MultiDiscrete([3, 2])
    plain("a-v0", actions=lambda n, t: np.stack([np.full(t, 2 * n), np.arange(t) % 2], 1), action_space=parts)
    plain("b-v0", actions=lambda n, t: np.tile([1, 0], (t, 1)), action_space=parts, unfinished=(1,))
    data = load("a-v0")
    assert data.trajectories.action_parts == ((0, 0), (0, 1), (2, 0), (2, 1))
    np.testing.assert_array_equal(data.trajectories.actions, [[0, 1, 0], [2, 3, 0]])
    assert data.provenance.parameters == {"actions": "combinations that occur, numbered"}
    save_minari(data, "ours-v0", root)
    same(data, load("ours-v0"))

    mixed = load("a-v0 + b-v0")
    assert mixed.trajectories.action_parts == ((0, 0), (0, 1), (1, 0), (2, 0), (2, 1))
    np.testing.assert_array_equal(mixed.trajectories.actions[:, 0], [0, 3, 2, 2])
    assert mixed.provenance.parameters == {
        "datasets": ["a-v0", "b-v0"],
        "actions": "combinations that occur, numbered",
        "last_observation_repeated": 1,
    }
    save_minari(load("b-v0"), "own-b-v0", root)
    for others in ("ours-v0 + own-b-v0", "ours-v0 + b-v0"):  # whose combinations have other numbers
        same_mix = load(others).trajectories
        assert same_mix.action_parts == mixed.trajectories.action_parts
        np.testing.assert_array_equal(same_mix.actions, mixed.trajectories.actions)
    plain("c-v0", actions=lambda n, t: np.ones((t, 2), np.int8), action_space=spaces.MultiBinary(2))
    assert load("c-v0").trajectories.num_actions == 1
    plain("box-v0")
    with pytest.raises(DataError, match=r"box-v0: has .*2-d actions, but a-v0 has .*actions of 2 discrete parts"):
        load("a-v0 + box-v0")


@pytest.mark.filterwarnings("ignore:.* None:UserWarning")
def test_a_box_of_one_whole_number_is_discrete(plain, root, same):
    from gymnasium import spaces

    plain("int-v0", actions=lambda n, t: np.arange(t)[:, None] - 1, action_space=spaces.Box(-9, 9, (1,), np.int64))
    dataset = load("int-v0")
    data = dataset.trajectories
    assert (data.num_actions, data.action_parts) == (3, ((-1,), (0,), (1,)))
    np.testing.assert_array_equal(data.actions, [[0, 1, 2], [0, 1, 0]])
    save_minari(dataset, "ours-v0", root)
    same(dataset, load("ours-v0"))
    plain("from-0-v0", actions=lambda n, t: np.arange(t)[:, None], action_space=spaces.MultiDiscrete([9]))
    assert load("from-0-v0").trajectories.action_parts == ()


@pytest.mark.filterwarnings("ignore:.* None:UserWarning")
def test_mixed_actions_are_numbers(plain):
    from gymnasium import spaces

    space = spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(-9, 9, (1,), np.float32))
    actions = lambda n, t: {"a": np.full(t, n), "b": np.full((t, 1), 0.5, np.float32)}
    plain("mixed-v0", actions=actions, action_space=space)
    data = load("mixed-v0")
    np.testing.assert_array_equal(data.trajectories.actions[:, 0], [[1, 0, 0.5], [0, 1, 0.5]])
    assert data.provenance.parameters == {"actions": "discrete parts as one-hot numbers beside the others"}


@pytest.mark.filterwarnings("ignore:.* None:UserWarning")
def test_what_was_added_and_left_out_is_said(plain):
    from gymnasium import spaces

    box = spaces.Box(-9, 9, (2,), np.float32)
    space = spaces.Dict(desired_goal=box, achieved_goal=box, mission=spaces.Text(9))
    goals = lambda n, t: {"achieved_goal": counting(n, t), "desired_goal": counting(5, t), "mission": ["go"] * t}
    write_other("goal-v0", goals, space)
    data = load("goal-v0")
    np.testing.assert_array_equal(data.trajectories.observations[1, 1], [1, 1, 5, 1, 4, 0])
    assert data.provenance.parameters == {
        "left_out": ["mission"],
        "goal": "desired_goal - achieved_goal, behind the other parts",
        **BOUNDS,
    }


@pytest.mark.filterwarnings("ignore:.* None:UserWarning")
def test_names_of_every_kind(plain, root, tmp_path, monkeypatch):
    plain("ns/toy-v0")
    plain("b-v0")
    (root / "ns").rename(root / "my data + more")
    prints = {load("b-v0").provenance.fingerprint}
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(root)
    name = "my data + more/toy-v0"
    for source in (name, f" {name}/ ", f"./{name}", f"~/{root.name}/{name}", f"{root}/{name}"):
        prints |= {load(source).provenance.fingerprint}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", f"~/{root.name}")
    prints |= {load("my data + more/toy-v0").provenance.fingerprint}
    assert len(prints) == 1
    assert load(f" b-v0/ + ~/{root.name}/b-v0").trajectories.num_trajectories == 4
    with pytest.raises(DataError, match="File name too long: check the name"):
        load_minari("x" * 300 + "-v0")


@pytest.mark.filterwarnings("ignore:.* None:UserWarning")
def test_packages_and_spaces_that_are_missing(plain, root):
    def change(**fields):
        (root / "b-v0/data/metadata.json").write_text(json.dumps({**described, **fields}))

    plain("b-v0")
    described = json.loads((root / "b-v0/data/metadata.json").read_text())
    change(observation_space=json.dumps({"type": "Dict", "subspaces": {"a": {"type": "Sequence"}}}))
    with pytest.raises(DataError, match="observation_space part 'a' has space 'Sequence', which Minari does not read"):
        load("b-v0")
    change(total_episodes=10**15)
    with pytest.raises(DataError, match=f"total_episodes is {10**15}"):
        load("b-v0")
    change(data_format="feather")
    with pytest.raises(DataError, match=r"metadata\.json cannot be read \(missing: feather\)"):
        load("b-v0")


@pytest.mark.filterwarnings("ignore:.* None:UserWarning")
def test_a_missing_package_is_named(plain, monkeypatch):
    from minari.dataset import _storages

    def absent():
        raise ImportError('pyarrow is not installed. Please install it using `pip install "minari[arrow]"`')

    plain("b-v0")
    monkeypatch.setitem(_storages._registry, "hdf5", absent)
    with pytest.raises(DataError, match=r'b-v0: needs a package that is missing: .*pip install "minari\[arrow\]"'):
        load("b-v0")


@pytest.mark.filterwarnings("ignore:.* None:UserWarning")
def test_names_that_are_no_text(plain):
    stored = plain("b-v0")
    stored.storage.update_episode_metadata([{"policy": np.bytes_(b"\xff\xc3\xa9")}, {"policy": "b"}])
    assert load("b-v0").spec.policy_names == ("b", "\ufffdé")


def test_without_a_home_folder(continuous, same, root, monkeypatch):
    """A container's user without an entry in passwd: files are read, and nothing is written to a folder named ~."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: os.fspath(path))
    monkeypatch.delenv("MINARI_DATASETS_PATH")
    monkeypatch.delenv("TRAJCLUST_CACHE", raising=False)
    data = build(continuous())
    folder = save_minari(data, "toy-v0", root)
    monkeypatch.setattr("trajclust_jax.data.cache.CACHE_BYTES", 0)
    same(data, load(folder))
    with pytest.raises(DataError, match="set MINARI_DATASETS_PATH to a folder"):
        save_minari(data, "toy-v0")
    with pytest.raises(DataError, match="nor of this id in MINARI_DATASETS_PATH, which is not set"):
        load_minari("toy-v0")
    monkeypatch.setenv("TRAJCLUST_CACHE", str(root / "cache"))
    same(data, load(folder))
    assert len(list((root / "cache").glob("*.npz"))) == 1
    monkeypatch.setenv("TRAJCLUST_CACHE", "")
    same(data, load(folder))


def test_arrow_storage_is_read_as_hdf5_is(tmp_path, monkeypatch):
    """Where pyarrow is installed: Minari's other format gives the same dataset, of plain and of Dict observations."""
    pytest.importorskip("pyarrow")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    rng = np.random.default_rng(0)
    box, action = gym.spaces.Box(-10, 10, (3,), np.float32), gym.spaces.Box(-1, 1, (2,), np.float32)
    goals = gym.spaces.Dict({"achieved_goal": box, "desired_goal": box, "observation": box})
    for name, space in (("plain", box), ("goals", goals)):
        episodes = []
        for t in (5, 3):
            seen = lambda t=t: rng.normal(size=(t + 1, 3)).astype(np.float32)
            observations = seen() if space is box else {part: seen() for part in goals.spaces}
            ends = {"terminations": [False] * t, "truncations": [False] * (t - 1) + [True], "rewards": [1.0] * t}
            actions = rng.uniform(-1, 1, (t, 2)).astype(np.float32)
            episodes.append(EpisodeBuffer(observations=observations, actions=actions, **ends))
        found = []
        for form in ("arrow", "hdf5"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an author and the like that are not given
                minari.create_dataset_from_buffers(
                    f"{name}-{form}-v0", episodes, observation_space=space, action_space=action, data_format=form
                )
            found.append(load(f"{name}-{form}-v0"))
        assert found[0].provenance.fingerprint == found[1].provenance.fingerprint
        np.testing.assert_array_equal(found[0].trajectories.lengths, [5, 3])
