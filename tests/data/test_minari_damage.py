"""Damaged copies of Minari datasets: each is read, or refused in one line."""

import json
import shutil

import h5py
import numpy as np
import pytest

from trajclust_jax.data import DataError, Dataset, load, save_minari

ODD_VALUES = (
    *(None, [], {}, [1, [2]], {"a": {}}, "", "\u00e9\ud800", "a" * 300, True, float("nan")),
    *(10**15, 10**40, 2**31, 2**63, -1, 0, 1.5),
)
ODD_ARRAYS = (
    *(np.float64(1), np.zeros(0), np.zeros((2, 3, 4)), np.full(4, np.nan), np.full((4, 2), 1e300), np.full(4, 2**62)),
    *(np.array([b"\xff"] * 4), "text", np.zeros(4, [("a", int)]), np.arange(4) + 1j, None),
)
ODD_ATTRIBUTES = (10**15, -1, 1.5, np.nan, "x", b"\xff", [1, 2], np.zeros((2, 2)), np.array([b"a"]))
COPIES = 300


def mutated(value, rng):
    """A JSON value with something in it of another kind, or gone."""
    if isinstance(value, str) and value.startswith("{"):  # a space
        return json.dumps(mutated(json.loads(value), rng))
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = list(value)[rng.integers(len(value))]
        if rng.random() < 0.2:
            return {other: kept for other, kept in value.items() if other != key}
        return {**value, key: mutated(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.integers(len(value))
        return [*value[:place], mutated(value[place], rng), *value[place + 1 :]]
    return ODD_VALUES[rng.integers(len(ODD_VALUES))]


def damage(folder, rng):
    """Damages one of the dataset's two files, and returns how."""
    kind = ("flip", "cut", "json", "array", "attribute")[rng.integers(5)]
    described, arrays = folder / "data/metadata.json", folder / "data/main_data.hdf5"
    file = (described, arrays)[rng.integers(2)]
    content = bytearray(file.read_bytes())
    if kind == "flip":
        for _ in range(rng.integers(1, 6)):
            content[rng.integers(len(content))] = rng.integers(256)
        file.write_bytes(content)
    elif kind == "cut":
        file.write_bytes(content[: rng.integers(len(content))])
    elif kind == "json":
        described.write_text(json.dumps(mutated(json.loads(described.read_text()), rng)))
    else:
        with h5py.File(arrays, "r+") as stored:
            episode = stored[f"episode_{rng.integers(3)}"]
            if kind == "attribute":
                name = ("total_steps", "label", "policy")[rng.integers(3)]
                episode.attrs[name] = ODD_ATTRIBUTES[rng.integers(len(ODD_ATTRIBUTES))]
                return kind, name
            names = []
            episode.visit(names.append)
            name, array = names[rng.integers(len(names))], ODD_ARRAYS[rng.integers(len(ODD_ARRAYS))]
            del episode[name]
            if array is not None:
                episode[name] = array
            elif rng.random() < 0.5:  # declared, and never written
                episode.create_dataset(name, shape=(2**33,), dtype="f4", chunks=(1024,))
            return kind, name
    return kind, file.name


@pytest.mark.filterwarnings("ignore")  # of damaged data, by those who read it first
def test_damaged_copies(tmp_path, monkeypatch):
    import minari
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("TRAJCLUST_CACHE", "")
    rng = np.random.default_rng(0)
    box = spaces.Box(-9, 9, (2,))
    parts = {"achieved_goal": box, "desired_goal": box, "kind": spaces.Discrete(3), "mission": spaces.Text(9)}
    buffers = [
        EpisodeBuffer(
            observations={
                "achieved_goal": rng.normal(size=(t + 1, 2)),
                "desired_goal": rng.normal(size=(t + 1, 2)),
                "kind": rng.integers(3, size=t + 1),
                "mission": ["go"] * (t + 1),
            },
            actions=(rng.integers(2, size=(t, 2)), rng.integers(3, size=t)),
            rewards=np.ones(t),
            terminations=np.zeros(t, bool),
            truncations=np.arange(t) == t - 1,
        )
        for t in (3, 2, 4)
    ]
    stored = minari.create_dataset_from_buffers(
        "theirs-v0",
        buffers,
        observation_space=spaces.Dict(parts),
        action_space=spaces.Tuple((spaces.MultiDiscrete([2, 2]), spaces.Discrete(3))),
    )
    stored.storage.update_episode_metadata([{"label": n % 2, "policy": "ab"[n % 2]} for n in range(3)])
    save_minari(load("theirs-v0"), "ours-v0")

    copy, refused = tmp_path / "copy-v0", 0
    for number in range(COPIES):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / ("theirs-v0", "ours-v0")[number % 2], copy)
        how = damage(copy, rng)
        try:
            assert isinstance(load("copy-v0"), Dataset)
        except DataError as error:
            refused += 1
            message = str(error)
            assert message.startswith("copy-v0: "), (how, message)
            assert message.isprintable(), (how, message)
    assert refused > COPIES / 2
