"""Killed at random moments and started again, a run ends with the record of an undisturbed one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trajclust_jax.records import Results, comparable

ROOT = Path(__file__).parents[2]
KILLS = 20
COMMAND = [
    "-m",
    "experiments.cli",
    "run",
    "pgkmeans/table1",
    "--preset",
    "smoke",
    "--methods",
    "pg_kmeans_mlp",
    "--datasets",
    "diagonal",
]


def _start(results: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRAJCLUST_CHECKPOINT_SECONDS": "0.5"}
    return subprocess.Popen(
        [sys.executable, *COMMAND, "--results", str(results)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def _finish(results: Path) -> dict:
    process = _start(results)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return {record["id"]: comparable(record) for record in Results(results).all()}


@pytest.mark.slow
def test_sigkill_20_times(tmp_path):
    began = time.monotonic()
    expected = _finish(tmp_path / "undisturbed")
    whole = time.monotonic() - began
    rng, killed, resumed = random.Random(0), 0, False
    while killed < KILLS:
        process = _start(tmp_path / "killed")
        time.sleep(rng.uniform(0.1, 0.9) * whole)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
        resumed |= any(r["timing"].get("resumed", False) for r in Results(tmp_path / "killed").all())
        # Once the table is whole, begin again: a finished run has nothing left to kill.
        if len(Results(tmp_path / "killed").ids()) == len(expected):
            found = {record["id"]: comparable(record) for record in Results(tmp_path / "killed").all()}
            assert found == expected
            shutil.rmtree(tmp_path / "killed")
    assert _finish(tmp_path / "killed") == expected
    assert resumed, "at least one record was finished from a checkpoint"
