"""`load` finds the right reader; D4RL files; light imports."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from trajclust_jax import data
from trajclust_jax.data import DataError, load, loading


@pytest.fixture
def flat():
    return {
        "observations": np.arange(24.0).reshape(12, 2),
        "actions": np.arange(12.0)[:, None],
        "rewards": np.ones(12),
        "terminals": np.arange(12) == 4,
        "timeouts": np.arange(12) == 8,
    }


def write_hdf5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file["infos/qpos"] = np.zeros(3)


def test_hdf5(tmp_path, flat):
    write_hdf5(tmp_path / "walker.hdf5", flat)
    (tmp_path / "WALKER.HDF5").symlink_to("walker.hdf5")
    loaded = load(str(tmp_path / "walker.hdf5"))
    assert load(str(tmp_path / "WALKER.HDF5")).provenance.fingerprint == loaded.provenance.fingerprint
    assert (loaded.spec.name, loaded.provenance.source) == ("walker", "walker.hdf5")
    np.testing.assert_array_equal(loaded.trajectories.lengths, [5, 4, 3])
    np.testing.assert_array_equal(loaded.trajectories.terminated, [True, False, False])
    assert loaded.labels is None


@pytest.mark.parametrize("name", ["observations", "actions", "terminals"])
def test_bad_hdf5(tmp_path, flat, name):
    path = tmp_path / "walker.hdf5"
    del flat[name]
    if name == "terminals":
        del flat["timeouts"]
    write_hdf5(path, flat)
    with pytest.raises(DataError, match=rf"walker\.hdf5: {name} is missing"):
        load(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"walker\.hdf5: cannot be read"):
        load(path)


def test_hdf5_groups_are_no_arrays(tmp_path, flat):
    del flat["rewards"]
    write_hdf5(tmp_path / "a.hdf5", {**flat, "rewards/raw": np.zeros(12)})
    with pytest.raises(DataError, match="rewards is a group"):
        load(tmp_path / "a.hdf5")
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "b.h5")


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        ("takeball", {}),
        ("takeball:size=3,seed=1", {"size": 3, "seed": 1}),
        ("takeball-permuted:seed=4", {"seed": 4}),
    ],
)
def test_registry_names(monkeypatch, source, arguments):
    monkeypatch.setattr(loading, "make", lambda name, **options: (name, options))
    assert load(source) == (source.partition(":")[0], arguments)


@pytest.mark.parametrize("options", ["size=x", "size=1.5", "colour=3", "size", "size=true", "noise=x", "noise=true"])
def test_bad_options(options):
    with pytest.raises(DataError, match="give size, seed or noise as numbers"):
        load(f"takeball:{options}")
    with pytest.raises(DataError, match="has size twice"):
        load("takeball:size=2,size=3")


def test_files_and_minari(tmp_path, same, continuous, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    made = data.build_dataset(continuous(), name="x", source="x")
    data.save_npz(made, tmp_path / "a.npz")
    folder = data.save_minari(made, "demo/x-v0")
    for source in (tmp_path / "a.npz", folder, "demo/x-v0"):
        same(load(source), made)


@pytest.mark.parametrize("source", ["nonsense", "nothing-v0", "", "takebal:size=3", "a.csv"])
def test_unknown(tmp_path, monkeypatch, source):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"takeball.*\.npz.*\.hdf5.*Minari") as caught:
        load(source)
    assert "\n" not in str(caught.value)


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match="a folder without a Minari dataset"):
        load(tmp_path)


def test_every_name_is_there():
    for name in data.__all__:
        assert hasattr(data, name)


def test_import_is_light():
    code = "import sys, trajclust_jax.data; sys.exit(bool({'minari', 'h5py', 'wandb'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
