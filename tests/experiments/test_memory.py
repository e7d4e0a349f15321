"""Images stay bytes until a network reads them: a run's memory grows by less than three times what the data do. Reading
takes less than twice a file's size.
"""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from trajclust_jax.data import load, save_minari

ROOT = Path(__file__).parents[2]
FEW, MANY, T = 10, 400, 40  # episodes; steps of each
# Peak memory in bytes, of a command that ends well; `getrusage` would count its parent's, too. Small heaps go back to
# the system: what is alive counts.
MEASURED = """
import re, sys
from trajclust_experiments.cli import main
try:
    main(sys.argv[1:])
finally:
    print("PEAK", int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024)
"""


def _images(path, episodes):
    """Frames of bytes and two-dimensional actions; the size of the frames in bytes."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (episodes, T, 64, 64), np.uint8)
    actions = rng.normal(size=(episodes, T, 2)).astype(np.float32)
    rewards = rng.normal(size=(episodes, T)).astype(np.float32)
    np.savez(path, observations=frames, actions=actions, rewards=rewards, lengths=np.full(episodes, T))
    return frames.nbytes


def _peak(*command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_TRIM_THRESHOLD_": "100000"}
    code = [sys.executable, "-c", MEASURED, *map(str, command)]
    done = subprocess.run(code, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    peaks = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("PEAK")]
    return int(peaks[0])


COMMANDS = {
    "train": ("--learner", "bc", "--seeds", "1", "--set", "updates=1000"),
    "cluster": ("--k", "2", "--restarts", "2", "--iterations", "1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_memory_grows_by_less_than_three_times_the_data(command, tmp_path):
    peaks, sizes = {}, {}
    for episodes in (FEW, MANY):
        data = tmp_path / f"images-{episodes}.npz"
        sizes[episodes] = _images(data, episodes)
        peaks[episodes] = _peak(command, data, *COMMANDS[command], "--out", tmp_path / f"out-{episodes}")
    growth = (peaks[MANY] - peaks[FEW]) / (sizes[MANY] - sizes[FEW])
    print(f"{command}: {growth:.2f} times, {peaks}")
    assert growth < 3


def _flat(episodes):
    """Episodes of 1,000 steps of 20 numbers, as D4RL stores them."""
    steps, rng = 1_000 * episodes, np.random.default_rng(0)
    observations = rng.standard_normal((steps, 20), np.float32)
    return {
        "observations": observations,
        "next_observations": np.roll(observations, -1, 0),
        "actions": rng.uniform(-1, 1, (steps, 4)).astype(np.float32),
        "rewards": rng.standard_normal(steps, np.float32),
        "terminals": np.zeros(steps, bool),
        "timeouts": np.arange(steps) % 1_000 == 999,
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["d4rl", "minari"])
def test_reading_takes_less_than_twice_a_files_size(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("TRAJCLUST_CACHE", str(tmp_path / "cache"))
    peaks, sizes = {}, {}
    for episodes in (10, 1_000):
        path = tmp_path / f"{episodes}.hdf5"
        with h5py.File(path, "w") as file:
            for name, values in _flat(episodes).items():
                file[name] = values
        if kind == "minari":
            save_minari(load(path), f"own/n{episodes}-v0", root=tmp_path / "minari")
            path = tmp_path / "minari" / "own" / f"n{episodes}-v0"
        files = path.rglob("*") if path.is_dir() else [path]
        sizes[episodes] = sum(file.stat().st_size for file in files if file.is_file())
        peaks[episodes] = _peak("data", "info", path)
    growth = (peaks[1_000] - peaks[10]) / (sizes[1_000] - sizes[10])
    print(f"{kind}: {growth:.2f} times, {peaks}")
    assert growth < 2
