"""Sweeps: which cells they have, who computes them, what becomes of those that fail or whose process dies."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from sweep_cells import toys

from trajclust_experiments.cells.learners import LearnerCell, side_by_side
from trajclust_experiments.cells.methods import MethodCell
from trajclust_experiments.cells.runner import key, progress_file, run_cells
from trajclust_experiments.commands.status import _expected_end, state_of
from trajclust_experiments.commands.sweep import crossed
from trajclust_experiments.launchers import local, on_ray, slurm
from trajclust_experiments.launchers.task import Task, failed_log, perform
from trajclust_experiments.progress import Progress
from trajclust_experiments.rendering.stored import record_of
from trajclust_experiments.sweeps import Sweep, missing, saved
from trajclust_experiments.usage import UsageError
from trajclust_jax.records import Results, comparable

SMALL = (
    "pgkmeans/table1",
    "--preset",
    "smoke",
    "--datasets",
    "diagonal",
    "--methods",
    "return_kmeans",
    "length_kmeans",
)


def launched(folder, cells, jobs=2):
    found = {}
    tasks = [Task("toy/table", "smoke", cell) for cell in cells]
    local.launch(tasks, str(folder), "off", jobs, lambda task, outcome: found.update({task.cell.method: outcome}))
    return found


def learners(**values):
    common = {"updates": 200, "block": 100, "batch_size": 32, "features": (16, 16), "actor_features": (16, 16)}
    cell = LearnerCell("hopper-medium-expert", 3, "td3_bc", (0, 1), tuple(sorted(common.items())), episodes=2)
    ((name, values),) = values.items()
    return [dataclasses.replace(cell, settings=tuple(sorted({**common, name: value}.items()))) for value in values]


def test_learners_that_differ_in_numbers_train_side_by_side():
    cells = learners(alpha=(1.0, 2.5, 5.0))
    told = side_by_side(cells, lambda cell: False)
    assert told == cells, "it is no part of what a cell is"
    assert {cell.beside.sweep for cell in told} == {(("alpha", (1.0, 2.5, 5.0)),)}
    assert told[0].beside.members() == cells
    assert told[0].beside.essential() != cells[0].essential()
    # One is there already: the others, unless the program of all has run.
    others = side_by_side(cells, lambda cell: cell == cells[1])
    assert others[1].beside is None
    assert {cell.beside.sweep for cell in (others[0], others[2])} == {(("alpha", (1.0, 5.0)),)}
    after = side_by_side(cells, lambda cell: cell in (cells[1], told[0].beside))
    assert {cell.beside for cell in after} == {told[0].beside}


def test_learners_that_differ_in_more_than_numbers_train_alone():
    widths = learners(features=((16, 16), (32, 32)))
    lone = learners(alpha=(1.0,))
    toys_too = [MethodCell("diagonal", 20, "return_kmeans", (0,))]
    for cells in (widths, lone, toys_too):
        assert all(getattr(cell, "beside", None) is None for cell in side_by_side(cells, lambda cell: False))


@pytest.mark.slow
def test_side_by_side_gives_the_records_of_lone_cells(tmp_path):
    cells = learners(alpha=(1.0, 5.0))
    alone = run_cells(cells, Results(tmp_path / "alone"), preset="smoke")
    together = run_cells(side_by_side(cells, lambda cell: False), Results(tmp_path / "together"), preset="smoke")
    for one, other in zip(alone, together, strict=True):
        assert other["timing"].pop("beside") == 2
        for name in ("id", "cell", "config", "policies"):
            assert one[name] == other[name]
        assert one.keys() == other.keys()
        for name, values in one["scores"].items():
            np.testing.assert_allclose(other["scores"][name], values, rtol=1e-4)
    assert len(Results(tmp_path / "together").ids()) == 3, "theirs, and the program's"


def test_one_that_fails_does_not_end_the_others(tmp_path):
    cells = toys(tmp_path, "a", "fails", "b")
    results = Results(tmp_path / "results")
    found = launched(results.folder, cells)
    assert {name: outcome.state for name, outcome in found.items()} == {"a": "done", "b": "done", "fails": "failed"}
    assert found["fails"].reason == "ValueError: no luck here"
    assert len(results.ids()) == 2
    log = failed_log(results.folder, cells[1])
    assert "computing fails" in log.read_text()
    assert log.read_text().strip().endswith("ValueError: no luck here")
    assert not list((results.folder / "logs").iterdir())
    assert not list(results.cells.glob("*.lease"))
    assert not list((results.folder / "work").glob("*.json"))
    cores = len(os.sched_getaffinity(0))
    assert {record["cores"] for record in results.all()} == {max(1, cores // 2)}, "two workers share the cores"


@pytest.mark.slow
def test_a_process_that_dies_takes_no_cell_with_it(tmp_path):
    """One dies once, one always: the others are done."""
    cells = toys(tmp_path, "a", "dies-once", "dies", "b")
    results = Results(tmp_path / "results")
    found = launched(results.folder, cells)
    assert {name: outcome.state for name, outcome in found.items()} == {
        **dict.fromkeys(("a", "b", "dies-once"), "done"),
        "dies": "failed",
    }
    assert "died 3 times" in found["dies"].reason
    assert len(results.ids()) == 3
    logs = {cell.method: failed_log(results.folder, cell) for cell in cells}
    assert [name for name, log in logs.items() if log.exists()] == ["dies"]
    assert not list((results.folder / "logs").iterdir())
    for left in (*results.cells.glob("*.lease"), *(results.folder / "work").glob("*.json")):
        assert not results.held(left.stem), "of processes that died"
    again = Task("toy/table", "smoke", toys(tmp_path, "a", "mended")[1])
    assert perform(again, str(results.folder)).state == "done"


def test_a_cell_that_another_process_computes_is_left_to_it(tmp_path):
    (cell,) = toys(tmp_path, "a")
    results = Results(tmp_path / "results")
    (record,) = run_cells([cell], results, preset="smoke")
    results.cells.joinpath(f"{record['id']}.json").unlink()
    with results.lease(record["id"]):
        assert perform(Task("toy/table", "smoke", cell), str(results.folder)).state == "elsewhere"
    assert perform(Task("toy/table", "smoke", cell), str(results.folder)).state == "done"


def test_settings_are_crossed():
    asked = Sweep(
        ("pgkmeans/table1", "empo/table2"),
        "smoke",
        ("hopper-medium-expert",),
        ("pg_kmeans_mlp", "iql", "bc"),
        None,
        (("learning_rate", (1e-3, 1e-4)), ("expectile", (0.7, 0.9))),
    )
    tasks = asked.tasks()
    assert {task.cell.method for task in tasks} == {"iql"}, "bc has no expectile"
    assert len(tasks) == 4
    assert len({json.dumps(task.cell.essential()) for task in tasks}) == 4
    assert tasks[1].cell.build().learner.expectile == 0.9
    whole = Sweep(("pgkmeans/table1", "pgkmeans/table3"), "smoke", ("diagonal",), ("pg_kmeans_tabular",)).tasks()
    assert len(whole) == len({task.cell for task in whole})
    for wrong, message in (
        (Sweep((), "smoke"), "name at least one table"),
        (Sweep(("pgkmeans/table99",), "smoke"), "unknown table"),
        (Sweep(("pgkmeans/table1",), "smoke", ("mars",)), "unknown dataset 'mars'"),
        (Sweep(("pgkmeans/table1",), "huge"), "unknown preset 'huge'"),
        (Sweep(("pgkmeans/table1",), "smoke", settings=(("colour", (1,)),)), "no cell of pgkmeans/table1 has all of"),
        (Sweep(("empo/table2",), "smoke", settings=(("expectile", (7.0,)),)), "expectile is 7"),
    ):
        with pytest.raises(UsageError, match=message):
            wrong.tasks()


def test_values_of_settings_are_read():
    assert crossed(("a=1,2.5", "b=x", "c=[1,2],[3]", "d=true")) == (
        ("a", (1, 2.5)),
        ("b", ("x",)),
        ("c", ((1, 2), (3,))),
        ("d", (True,)),
    )
    for wrong in ("a", "=1", "a="):
        with pytest.raises(UsageError, match="give name=value"):
            crossed((wrong,))
    with pytest.raises(UsageError, match="given twice"):
        crossed(("a=1", "a=2"))


def test_what_is_missing_is_what_has_no_record_of_its_seeds(tmp_path):
    results = Results(tmp_path)
    asked = Sweep(("pgkmeans/table1",), "smoke", ("diagonal",), ("return_kmeans",), 1)
    tasks = asked.tasks()
    assert missing(tasks, []) == tasks
    records = run_cells([task.cell for task in tasks], results, preset="smoke")
    assert missing(tasks, records) == []
    more = Sweep(("pgkmeans/table1",), "smoke", ("diagonal",), ("return_kmeans",), 2).tasks()
    assert [task.cell.method for task in missing(more, records)] == ["return_kmeans"], "the oracle has no seeds"
    asked.save(results)
    for name, content in {"a": "{}", "b": "[]", "c": '{"tables": ["gone"], "preset": "cpu"}', "d": "{"}.items():
        (results.folder / "sweeps" / f"{name}.json").write_text(content)
    told = []
    assert saved(results, told.append) == [asked.tasks()]
    assert sorted(line.partition(": ")[0][-6:] for line in told) == ["a.json", "b.json", "c.json", "d.json"]


def test_the_command_computes_what_a_run_does(trajclust, tmp_path):
    code, out, err = trajclust("sweep", *SMALL, "--results", "swept", "--jobs", "2", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["cells"], found["computed"], found["failed"]) == (3, 3, [])
    code, *_ = trajclust("run", *SMALL, "--results", "run")
    assert code == 0
    swept, run = Results(tmp_path / "swept"), Results(tmp_path / "run")
    assert swept.ids() == run.ids()
    for id in run.ids():
        assert comparable(swept.read(id)) == comparable(run.read(id))
    assert (tmp_path / "swept/pgkmeans/table1/smoke/table.md").read_text() != ""
    again = trajclust("sweep", *SMALL, "--results", "swept", "--json")
    assert json.loads(again[1])["computed"] == 0
    nothing = trajclust("sweep", *SMALL, "--results", "swept", "--launcher", "slurm", "--dry-run")
    assert (nothing[0], "0 of them missing" in nothing[2]) == (0, True)
    dry = trajclust("sweep", *SMALL, "--results", "swept", "--seeds", "3", "--dry-run")
    assert [line.split()[0] for line in dry[1].splitlines()] == ["stored", "missing", "missing"]
    cells = json.loads(trajclust("sweep", *SMALL, "--results", "swept", "--seeds", "3", "--dry-run", "--json")[1])
    assert [cell["stored"] for cell in cells] == [True, False, False]
    assert [cell["seconds"] is None for cell in cells] == [True, False, False]
    assert trajclust("sweep", *SMALL, "--jobs", "0")[0] == 2


def test_the_agents_of_a_wandb_sweep_compute_its_cells(trajclust, tmp_path):
    """Every key's command line, as an agent would write it, computes that cell alone."""
    asked = ("sweep", *SMALL, "--write-wandb", "sweep.yaml", "--results", "swept", "--track", "offline")
    (tmp_path / "sweep.yaml").write_text("mine: 1\n")
    code, _, err = trajclust(*asked)
    assert (code, "sweep.yaml is another file: remove it, or name another" in err) == (2, True)
    (tmp_path / "sweep.yaml").unlink()
    for _ in range(2):  # its own it writes anew
        code, out, err = trajclust(*asked)
        assert code == 0, err
    assert "3 cells" in out
    found = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    assert (found["program"], found["method"]) == ("trajclust", "grid")
    keys = found["parameters"]["only"]["values"]
    assert len(keys) == 3
    (program, *command), last = found["command"][:-1], found["command"][-1]
    assert (program, last) == ("trajclust", "${args}")
    code, _, err = trajclust(*command, f"--only={keys[2]}")
    assert code == 0, err
    (record,) = Results(tmp_path / "swept").all()
    assert record["cell"]["method"] == "length_kmeans"
    runs = list((tmp_path / "swept/wandb").glob("offline-run-*"))
    assert len(runs) == len(record["cell"]["seeds"]) + 2, "and one for the cell, and one for the table"
    assert "--dry-run lists them" in trajclust(*command, "--only=nonsense")[2]


def test_slurms_script_has_what_was_asked(tmp_path):
    """In a process of its own: submitit keeps the standard output that it finds when it is imported."""
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    given = ("--launcher", "slurm", "--minutes", "30", "--partition", "gpu", "--gpus-per-cell", "1", "--memory-gb", "8")
    command = [sys.executable, "-m", "trajclust_experiments.cli", "sweep", *SMALL, *given]
    run = lambda *more: subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True)
    shown = run("--cpus-per-cell", "4", "--jobs", "2", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    asked = {line.removeprefix("#SBATCH --") for line in shown.stdout.splitlines() if line.startswith("#SBATCH")}
    assert {"array=0-2%2", "time=30", "partition=gpu", "gpus-per-node=1", "mem=8GB", "cpus-per-task=4"} <= asked
    assert any(line.startswith("signal=USR2@") for line in asked)
    refused = run()
    assert refused.returncode == 2
    assert "--dry-run shows the script" in refused.stderr, "there is no Slurm here"


@pytest.mark.slow
def test_a_slurm_job_that_is_preempted_goes_on(tmp_path, monkeypatch):
    """submitit's local executor: the signal ends the running iteration, the job is queued again and goes on."""
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    settings = (("iterations", 150), ("patience", 150), ("polish_iterations", 0), ("restarts", 2), ("tolerance", 0.0))
    cell = MethodCell("diagonal", 20, "pg_kmeans_mlp", (0, 1), settings)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    asked = slurm.options(minutes=30, partition=None, jobs=1, cpus=1, gpus=None, memory_gb=None)
    results = Results(tmp_path)
    (job,) = slurm.launch([Task("t", "smoke", cell)], str(tmp_path), "off", asked, cluster="local")
    deadline = time.monotonic() + 300

    def note():
        notes = [json.loads(path.read_text()) for path in (tmp_path / "work").glob("[!.]*.json")]
        return max(notes, key=lambda note: note["done"], default={"done": 0})

    while note()["done"] < 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(note()["pid"], signal.SIGUSR2)
    assert job.result() == "done"
    (record,) = results.all()
    assert record["timing"]["resumed"]
    (whole,) = run_cells([cell], Results(tmp_path / "quiet"), preset="smoke")
    assert comparable(record) == comparable(whole)


@pytest.mark.slow
def test_ray_loses_no_cell_with_a_worker_or_a_node(tmp_path, monkeypatch):
    """Three nodes, 40 cells; a worker and a node are killed on the way."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    store = {"object_store_memory": 80 * 2**20}
    checks = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_timeout_ms": 1000}
    head = {
        "num_cpus": 0,
        "include_dashboard": False,
        "_system_config": {**checks, "health_check_failure_threshold": 5},
    }
    cluster = Cluster(initialize_head=True, head_node_args={**head, **store})
    nodes = [cluster.add_node(num_cpus=1, **store) for _ in range(2)]
    cells = toys(tmp_path, *(f"short{number}" for number in range(40)))
    outcomes, killed = {}, []

    def report(task, outcome):
        outcomes.setdefault(task.cell.method, []).append(outcome.state)
        if len(outcomes) == 8:
            found = lambda: subprocess.run(["pgrep", "-f", "ray::perform"], capture_output=True, text=True).stdout
            while not (workers := found().split()):  # between two cells
                time.sleep(0.1)
            os.kill(int(workers[0]), signal.SIGKILL)
            killed.append("worker")
        if len(outcomes) == 16:
            cluster.remove_node(nodes[1], allow_graceful=False)
            killed.append("node")

    try:
        tasks = [Task("toy/table", "smoke", cell) for cell in cells]
        on_ray.launch(tasks, str(tmp_path / "results"), "off", report, address=cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert killed == ["worker", "node"]
    assert outcomes == {cell.method: ["done"] for cell in cells}
    swept, quiet = Results(tmp_path / "results"), Results(tmp_path / "quiet")
    run_cells(cells, quiet, preset="smoke")
    assert len(swept.ids()) == 40
    strip = lambda record: {name: value for name, value in comparable(record).items() if name not in ("cores", "cell")}
    for id in quiet.ids():
        assert strip(swept.read(id)) == strip(quiet.read(id))
    assert not any(swept.held(path.stem) for path in swept.cells.glob("*.lease"))


def test_status_tells_done_running_failed_and_waiting(tmp_path, trajclust):
    results = Results(tmp_path / "results")
    asked = Sweep(("pgkmeans/table1",), "smoke", ("diagonal",), ("return_kmeans", "length_kmeans", "mean_kmeans"), 1)
    asked.save(results)
    by_method = {task.cell.method: task.cell for task in asked.tasks()}
    run_cells([by_method["oracle"]], results, preset="smoke")
    log = failed_log(results.folder, by_method["mean_kmeans"])
    log.parent.mkdir(parents=True)
    log.write_text("first\nValueError: no luck\n")
    cell = by_method["return_kmeans"]
    note = {"key": key(cell), "title": cell.title, "since": 100.0, "time": 160.0, "pid": 7, "host": "here"}
    note |= {"phase": "em", "iteration": 3, "budget": 9, "done": 13, "first": 10, "total": 19}
    path = progress_file(results, "0123456789abcdef")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(note))
    assert state_of(results, Progress(quiet=True))["tables"]["pgkmeans/table1"]["running"] == 0, "nobody holds it"
    with results.lease("0123456789abcdef"):
        found = state_of(results, Progress(quiet=True))
        code, out, _ = trajclust("status", "--results", "results")
    assert found["tables"]["pgkmeans/table1"] == {"done": 1, "running": 1, "failed": 1, "waiting": 1}
    states = {entry["cell"].split()[1]: entry for entry in found["cells"]}
    assert states["mean_kmeans"]["lines"] == ["first", "ValueError: no luck"]
    assert states["return_kmeans"]["iteration"] == 3
    assert code == 1
    assert "1 done, 1 running, 1 failed, 1 waiting" in out
    assert "em 3/9" in out
    assert "no luck" in out
    code, _, err = trajclust("status", "--results", "resutls")
    assert (code, "--results resutls is no folder" in err) == (2, True)
    # 3 iterations took 60 s: the 6 that are left take 120.
    assert _expected_end(note) == time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(280))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_ended_ends_its_processes(number, tmp_path):
    """No process outlives it, and what was done stays done."""
    code = (
        "from sweep_cells import toys; from trajclust_experiments.launchers import local;"
        "from trajclust_experiments.launchers.task import Task; from pathlib import Path; import sys;"
        "from trajclust_jax.interrupts import Ending;"
        "cells = toys(Path(sys.argv[1]), 'a', 'slow', 'slow');"
        "tasks = [Task('t', 'smoke', cell) for cell in cells];"
        "run = lambda: local.launch(tasks, sys.argv[1] + '/results', 'off', 2, print)\n"
        "if __name__ == '__main__':\n"
        "    with Ending(): run()\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, script, tmp_path], env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("slow-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(60) != 0
    while time.monotonic() < deadline + 30:
        alive = subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, text=True).stdout.split()
        if not alive:
            break
        time.sleep(0.2)
    assert not alive
    results = Results(tmp_path / "results")
    assert len(results.ids()) == 1
    assert record_of(toys(tmp_path, "a")[0], results.all()) is not None
    assert not any(results.held(path.stem) for path in results.cells.glob("*.lease"))
