"""Images stay bytes until a network reads them: a run's memory grows by less than three times what the data do."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FEW, MANY, T = 10, 400, 40  # episodes; steps of each
# Peak memory in bytes, of a command that ends well. Small heaps go back to the system: what is alive counts.
MEASURED = """
import resource, sys
from trajclust_experiments.cli import main
try:
    main(sys.argv[1:])
finally:
    print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
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
