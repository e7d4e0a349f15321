"""Killed at random moments and started again, a run ends with the record of an undisturbed one."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import numpy as np
import pytest

from trajclust_jax.checkpoint import load_tree
from trajclust_jax.records import Results, comparable

ROOT = Path(__file__).parents[2]


def _start(*command: object) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRAJCLUST_CHECKPOINT_SECONDS": "0.5"}
    return subprocess.Popen(
        [sys.executable, "-m", "trajclust_experiments.cli", *map(str, command)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def _finish(*command: object) -> float:
    """Seconds that a whole run took."""
    began = time.monotonic()
    process = _start(*command)
    _, err = process.communicate()
    assert process.returncode == 0, err
    return time.monotonic() - began


def _kill(seconds: float, *command: object) -> bool:
    """Whether a run was still going when it was killed after so many seconds."""
    process = _start(*command)
    time.sleep(seconds)
    going = process.poll() is None
    if going:
        process.send_signal(signal.SIGKILL)
    _, err = process.communicate()
    assert going or process.returncode == 0, err
    return going


def _checkpointed(folder: Path) -> bool:
    """Whether a sealed checkpoint is there, asked while another process makes and renames folders."""
    return any("sha256" in files for _, _, files in os.walk(folder))  # passes over a folder that is gone; rglob raises


LONG = {
    "train": ("train", "{data}", "--learner", "bc", "--seeds", 1, "--out", "{out}", "--set", "updates=100000000"),
    "cluster": ("cluster", "{data}", "--k", 2, "--method", "sorl", "--iterations", 100000, "--out", "{out}"),
    "run": ("run", "pgkmeans/table1", "--datasets", "diagonal", "--methods", "pg_kmeans_mlp", "--results", "{out}"),
}


@pytest.mark.parametrize(
    ("command", "number"), [("train", signal.SIGTERM), ("cluster", signal.SIGHUP), ("run", signal.SIGINT)]
)
def test_a_signal_ends_a_command_with_its_state_kept(tmp_path, command, number):
    rng = np.random.default_rng(0)
    arrays = {"observations": rng.normal(size=(20, 9, 2)), "actions": rng.uniform(-1, 1, (20, 9, 1))}
    np.savez(tmp_path / "data.npz", **{k: x.astype(np.float32) for k, x in arrays.items()}, lengths=np.full(20, 9))
    places = {"data": tmp_path / "data.npz", "out": tmp_path / "out"}
    process = _start(*(str(argument).format(**places) for argument in LONG[command]))
    try:
        while not _checkpointed(tmp_path):  # it trains
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:  # what fails here must not leave a process and its pipe to the tests after it
        process.kill()
        process.communicate()
    assert process.returncode == 128 + number, err
    lines = err.strip().splitlines()
    assert lines[-1] == "trajclust: interrupted: give the same command again to go on"
    assert f"{number.name}: stopping after this iteration; once more to stop at once" in lines
    assert not list(tmp_path.rglob("*lease")), "another process may go on at once"
    assert _checkpointed(tmp_path)


@pytest.mark.slow
def test_a_table_killed_20_times(tmp_path):
    table = ("run", "pgkmeans/table1", "--preset", "smoke", "--methods", "pg_kmeans_mlp", "--datasets", "diagonal")
    records = lambda name: {record["id"]: comparable(record) for record in Results(tmp_path / name).all()}
    whole = _finish(*table, "--results", tmp_path / "undisturbed")
    expected = records("undisturbed")
    rng, killed, resumed = random.Random(0), 0, False
    while killed < 20:
        killed += _kill(rng.uniform(0.1, 0.9) * whole, *table, "--results", tmp_path / "killed")
        resumed |= any(r["timing"].get("resumed", False) for r in Results(tmp_path / "killed").all())
        # Once the table is whole, begin again: a finished run has nothing left to kill.
        if len(Results(tmp_path / "killed").ids()) == len(expected):
            assert records("killed") == expected
            shutil.rmtree(tmp_path / "killed")
    _finish(*table, "--results", tmp_path / "killed")
    assert records("killed") == expected
    assert resumed, "at least one record was finished from a checkpoint"


@pytest.mark.slow
def test_ten_seeds_of_iql_killed_five_times(tmp_path):
    """100,000 gradient steps of small networks: checkpoints don't depend on their size."""
    train = ("train", "hopper-medium-expert:size=20", "--learner", "iql", "--seeds", 10, "--episodes", 2, "--set")
    train = (*train, "updates=100000", "batch_size=32", "features=[32,32]", "actor_features=[32,32]", "--out")
    whole = _finish(*train, tmp_path / "undisturbed")
    rng = random.Random(0)
    kills = [_kill(rng.uniform(0.15, 0.3) * whole, *train, tmp_path / "killed") for _ in range(5)]
    _finish(*train, tmp_path / "killed")
    assert sum(kills) >= 3, "most lives ended before the run did"
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("undisturbed", "killed")]
    assert [summary["timing"]["resumed"] for summary in summaries] == [False, True]
    assert summaries[0]["scores"] == summaries[1]["scores"]
    for file in ("losses.csv", "evaluations.csv"):
        assert (tmp_path / "undisturbed" / file).read_bytes() == (tmp_path / "killed" / file).read_bytes()
    chex.assert_trees_all_equal(*(load_tree(tmp_path / name / "policy") for name in ("undisturbed", "killed")))


SWEPT = ("sweep", "pgkmeans/table1", "--preset", "smoke", "--datasets", "diagonal", "--methods", "pg_kmeans_tabular")
SWEPT = (*SWEPT, "pg_kmeans_mlp", "sorl", "mean_kmeans")


def _processes(session: int) -> dict[int, str]:
    """Of a session those that live, with their commands, Ray's own left out: a cluster that dies is asked nothing."""
    listed = subprocess.run(["ps", "-s", str(session), "-o", "pid=,args="], capture_output=True, text=True).stdout
    lines = [line.split(None, 1) for line in listed.splitlines()]
    # Ray's agents take names of their own, and outlive their cluster by minutes. The defunct wait for who adopted them.
    others = ("ray/", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "resource_tracker", "<defunct>")
    return {int(pid): args for pid, args in lines if not any(other in args for other in others)}


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "kills"), [(("--jobs", 2), 60), (("--launcher", "ray"), 40)])
def test_sweeps_whose_processes_are_killed(tmp_path, launcher, kills):
    """100 times, at random moments, a launcher or a worker: nothing is lost, different, half-written or held."""
    if "ray" in launcher:
        pytest.importorskip("ray", reason="the extra ray is not installed")
    results = Results(tmp_path / "killed")
    _finish("run", *SWEPT[1:], "--results", tmp_path / "undisturbed")
    expected = {record["id"]: comparable(record) for record in Results(tmp_path / "undisturbed").all()}
    rng, killed, of_workers = random.Random(0), 0, 0

    def check():
        assert {record["id"]: comparable(record) for record in results.all()} == expected
        held = [path for path in results.cells.glob("*.lease") if results.held(path.stem)]
        left = [path for path in results.folder.rglob("*") if path.is_file() and path.suffix == ".tmp"]
        assert not held + left

    command = list(map(str, (*SWEPT, *launcher, "--results", results.folder)))
    while killed < kills:
        process = subprocess.Popen(
            [sys.executable, "-m", "trajclust_experiments.cli", *command],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TRAJCLUST_CHECKPOINT_SECONDS": "0.2"},
        )  # fmt: skip
        time.sleep(rng.uniform(1, 15))
        running = _processes(process.pid)
        wanted = rng.random() < 0.5  # a worker, however long they take to start
        while wanted and not running.keys() - {process.pid} and process.poll() is None:
            time.sleep(0.1)
            running = _processes(process.pid)
        if running and process.poll() is None:
            victim = rng.choice(sorted(running.keys() - {process.pid} if wanted else running))
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed += 1
                of_workers += victim != process.pid
            if victim != process.pid:  # the sweep goes on
                process.wait(300)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 60
        while (left := _processes(process.pid)) and time.monotonic() < deadline:  # workers notice that it is gone
            time.sleep(0.1)
        assert left == {}  # asked again, one that is ending may have lost the name by which it is left out
        if len(results.ids()) == len(expected):  # whole: begin again
            check()
            shutil.rmtree(results.folder)
    _finish(*SWEPT, *launcher, "--results", results.folder)
    check()
    assert of_workers > kills / 10


@pytest.mark.slow
def test_a_sweep_goes_on_where_a_worker_dies_that_waits_for_work(tmp_path):
    """It holds the queue's lock while it waits, and nobody gives that back."""
    command = [*SWEPT[:6], "--methods", "pg_kmeans_gru", "--jobs", "2", "--results", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "trajclust_experiments.cli", *command],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    while process.poll() is None and not list(tmp_path.glob("cells/*.json")):  # the oracle's, which costs nothing
        time.sleep(0.1)
    [busy] = [int(log.stem.split(".")[1]) for log in tmp_path.glob("logs/*.log")]
    [idle] = [pid for pid in _processes(process.pid) if pid not in (process.pid, busy)]
    time.sleep(1)
    os.kill(idle, signal.SIGKILL)
    assert process.wait(300) == 0
    assert len(Results(tmp_path).ids()) == 2
