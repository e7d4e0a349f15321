"""Tracking: what a reader of the runs finds, and what tracking must never do."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from wandb_reader import read_runs

from trajclust_jax.tracking import TrackingError, log_table, make_tracker, run_id, track_cell

ROOT = Path(__file__).parents[1]
SEEDS = [3, 7]
NAMED = {"name": "takeball-pg_kmeans", "id": "0123456789abcdef", "tags": ["table1", "takeball"]}
COMMON = {**NAMED, "seeds": SEEDS}
IDS = [run_id("takeball-pg_kmeans", "0123456789abcdef", seed) for seed in SEEDS]


@pytest.fixture(autouse=True)
def _stop_wandb():
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def _python(code: str, **environment: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_off_does_nothing_and_never_imports_wandb(tmp_path):
    output = _python(f"""
import sys
from trajclust_jax.tracking import make_tracker
with make_tracker("off", directory={str(tmp_path)!r}, name="g", id="a", seeds=[0]) as tracker:
    tracker.log(0, {{"objective": [1.0]}})
    tracker.summary(0, {{"nmi": 1.0}})
assert "wandb" not in sys.modules
""")
    assert output == ""
    assert not list(tmp_path.iterdir())


def test_offline_runs_hold_all_that_was_logged(tmp_path, capfd):
    config = {"lr": np.float32(0.5), "layers": (128, 128), "nested": {"k": 4}}
    with make_tracker("offline", directory=tmp_path / "new", config=config, **COMMON) as tracker:
        for i in range(3):
            metrics = {
                "temperature": np.array([0.25, 0.5]) + i,
                "objective": np.array([[-3.0, -1.0, np.nan], [-5.0, -4.0, -8.0]]),
                "entropy": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 9.0]]),
                "grad": np.arange(12.0).reshape(2, 3, 2),
            }
            tracker.log(10 * i, metrics)
        tracker.summary(7, {"nmi": np.float64(0.75), "restart": np.int32(1)})

    runs = read_runs(tmp_path / "new")
    assert [run.name for run in runs] == ["takeball-pg_kmeans-seed3", "takeball-pg_kmeans-seed7"]
    assert [run.id for run in runs] == IDS
    assert {run.job_type for run in runs} == {"train"}
    for seed, run in zip(SEEDS, runs, strict=True):
        assert (run.project, run.group) == ("trajclust", "takeball-pg_kmeans-0123456789abcdef")
        assert sorted(run.tags) == sorted(["table1", "takeball", f"seed:{seed}"])
        assert run.config["lr"] == 0.5
        assert run.config["layers"] == [128, 128]
        assert run.config["nested"] == {"k": 4}
        assert run.config["seed"] == seed
        assert [row["_step"] for row in run.history] == [0, 10, 20]
        assert run.exit_code == 0
    first, second = runs[0].history[-1], runs[1].history[-1]
    assert [row["temperature"] for row in runs[1].history] == [0.5, 1.5, 2.5]
    assert (first["objective/best"], second["objective/best"]) == (-1, -4)  # the diverged restart is passed over
    assert (first["objective/r0"], second["objective/r2"]) == (-3, -8)
    assert np.isnan(first["objective/r2"])
    assert (first["entropy/mean"], second["entropy/mean"], second["entropy/r2"]) == (2, 6, 9)
    assert (second["grad/mean"], second["grad/min"], second["grad/max"]) == (8.5, 6, 11)
    assert runs[1].summary["nmi"] == 0.75
    assert runs[1].summary["restart"] == 1
    assert "nmi" not in runs[0].summary
    assert capfd.readouterr() == ("", "")


def test_a_resumed_job_continues_its_runs_and_a_failed_one_says_so(tmp_path):
    for start, fails in ((0, True), (1, False)):
        try:
            with make_tracker("offline", directory=tmp_path, **COMMON) as tracker:
                tracker.log(start, {"objective": np.zeros(2)})
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert fails
    runs = read_runs(tmp_path)
    assert [run.id for run in runs] == [IDS[0], IDS[0], IDS[1], IDS[1]]
    assert [run.exit_code for run in runs] == [1, 0, 1, 0]
    assert [[row["_step"] for row in run.history] for run in runs] == [[0], [1], [0], [1]]


def test_one_restart_is_logged_once_and_learners_against_gradient_steps(tmp_path):
    with make_tracker("offline", directory=tmp_path, **{**COMMON, "seeds": [0]}) as tracker:
        for step in range(2):
            tracker.log(step, {"objective": np.array([[-1.0]]), "critic/loss": np.array([2.0])}, 500 * step)
    (run,) = read_runs(tmp_path)
    own = [{name: value for name, value in row.items() if not name.startswith("_")} for row in run.history]
    expected = {"objective/best": -1, "critic/loss": 2}
    assert own == [{**expected, "gradient_steps": 0}, {**expected, "gradient_steps": 500}]
    assert run.axes["*"] == "gradient_steps"


def test_wandbs_own_variables_are_honoured(tmp_path, monkeypatch):
    for name in ("DIR", "PROJECT", "ENTITY", "RUN_GROUP", "TAGS", "NAME", "MODE"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    given = {"DIR": str(tmp_path / "own"), "PROJECT": "mine", "RUN_GROUP": "night", "TAGS": "a, b", "NAME": "try"}
    for name, value in {**given, "MODE": "offline"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    make_tracker("online", directory=tmp_path, **{**COMMON, "seeds": [4]}).finish()  # a node without a network
    (run,) = read_runs(tmp_path / "own")
    assert (run.project, run.group, run.name) == ("mine", "night", "try-seed4")
    assert set(run.tags) == {"table1", "takeball", "seed:4", "a", "b"}
    monkeypatch.setenv("WANDB_MODE", "disabled")
    make_tracker("online", directory=tmp_path / "none", **COMMON).finish()
    assert not (tmp_path / "none").exists()


def test_a_cells_run_has_the_scores_the_record_and_the_machine(tmp_path):
    record = tmp_path / "record.json"
    record.write_text('{"nmi": 1}')
    with track_cell("offline", directory=tmp_path, config={"k": 4}, **NAMED) as tracker:
        tracker.page(["seed", "nmi"], [["3", 0.5], ["7", 1.0]], [], record)
        deadline = time.monotonic() + 20
        while not any(run.machine for run in read_runs(tmp_path, 0)) and time.monotonic() < deadline:
            time.sleep(0.1)  # for the first sample
    (run,) = read_runs(tmp_path)
    assert (run.job_type, run.name, run.config["k"]) == ("cell", "takeball-pg_kmeans", 4)
    assert run.group == "takeball-pg_kmeans-0123456789abcdef"  # that of its seeds
    assert (run.history[0]["table/nrows"], run.history[0]["table/ncols"]) == (2, 2)
    ((kind, files),) = [found for name, found in run.artifacts.items() if name.startswith("record-")]
    assert (kind, files) == ("record", ["record.json"])
    assert any("memory" in name for name in run.machine), run.machine


def test_run_ids_depend_on_all_three_parts():
    ids = {run_id(group, cell, seed) for group in "ab" for cell in "ab" for seed in (0, 1)}
    assert len(ids) == 8
    assert run_id("a", "b", 0) == run_id("a", "b", 0)


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(TrackingError, match="give off, offline or online"):
        make_tracker("on", directory=tmp_path, **COMMON)
    with make_tracker("offline", directory=tmp_path, **COMMON) as tracker:
        with pytest.raises(ValueError, match=r"metric nmi: shape \(3,\)"):
            tracker.log(0, {"nmi": np.zeros(3)})
        tracker.finish()
        tracker.finish()
        tracker.log(1, {"nmi": np.zeros(2)})  # nothing left to log to


def test_names_that_wandb_does_not_take_are_made_to_fit(tmp_path):
    """Tags of more than 64 characters stay distinct; bytes of a file's name that are no UTF-8 are spelled out."""
    long = ["dataset:" + "x" * 80 + end for end in "ab"]
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")
    given = {"tags": [*long, odd, "t" * 64], "config": {"dataset": [odd]}, "seeds": [0]}
    make_tracker("offline", directory=tmp_path, name=odd + "g" * 200, id="id", **given).finish()
    (run,) = read_runs(tmp_path)
    assert len(set(run.tags)) == 5
    assert max(map(len, run.tags)) == 64
    assert {"caf\\udce9", "t" * 64, "seed:0"} <= set(run.tags)
    assert run.config["dataset"] == ["caf\\udce9"]
    assert len(run.group) == 128


class Broken:
    """A run that fails where it is told to."""

    def __init__(self, where):
        self.where, self.summary, self.finished = where, self, 0

    def log(self, *_, **__):
        self._do("log")

    def update(self, *_):
        self._do("update")

    def finish(self, **_):
        self.finished += 1
        self._do("finish")

    def _do(self, what):
        if what == self.where:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("where", ["init", "log", "update", "finish"])
def test_what_wandb_refuses_is_a_warning(tmp_path, monkeypatch, caplog, where):
    import wandb

    runs = []

    def init(**_):
        if where == "init" and runs:  # the second seed's
            raise wandb.errors.CommError("the network is unreachable\nfor now")
        runs.append(Broken(where))
        return runs[-1]

    monkeypatch.setattr(wandb, "init", init)
    with make_tracker("offline", directory=tmp_path, **COMMON) as tracker:
        for step in range(3):
            tracker.log(step, {"nmi": np.zeros(2)})
        tracker.summary(7, {"nmi": 1.0})
    assert len(caplog.messages) == 1
    assert "the training goes on untracked" in caplog.messages[0]
    assert "\n" not in caplog.messages[0]
    assert [run.finished for run in runs] == [1] * len(runs)


def test_online_without_a_key_fails_at_once_even_at_a_terminal(tmp_path):
    """At a terminal wandb would ask for an account, and wait for ever."""
    code = f"""
from trajclust_jax.tracking import TrackingError, make_tracker
try:
    make_tracker("online", directory={str(tmp_path)!r}, name="g", id="a", seeds=[0])
except TrackingError as error:
    print("ERROR:", error)
"""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "NETRC"))}
    ours, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**clean, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            timeout=60,
            check=False,
        )
        output = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(terminal)
    assert done.returncode == 0, output
    assert output.count("\n") == 1, output
    assert output.startswith("ERROR: W&B has no API key"), output
    assert "wandb login" in output


def test_a_tables_run_has_its_rows_and_figures(tmp_path):
    figure = tmp_path / "nmi.png"
    image = Image.new("RGB", (4, 3), "red")
    image.save(figure)
    header, rows = ["method", "NMI"], [["PG-Kmeans", "0.95"], ["CAAE", "0.93"]]
    for _ in range(2):  # a table that is made again goes on in its run
        log_table("offline", "pgkmeans/table1 smoke", header, rows, [figure], directory=tmp_path, tags=["table:t"])
    runs = read_runs(tmp_path)
    assert {run.id for run in runs} == {run_id("table", "pgkmeans/table1 smoke", 0)}
    run = runs[0]
    assert (run.name, run.group, run.config["table"]) == ("pgkmeans/table1 smoke", "tables", "pgkmeans/table1 smoke")
    (row,) = run.history
    assert (row["table/nrows"], row["table/ncols"]) == (2, 2)
    assert (row["nmi/width"], row["nmi/height"]) == (4, 3)
    stored = json.loads(next((tmp_path / "wandb").rglob("table_*.table.json")).read_text())
    assert (stored["columns"], stored["data"]) == (header, rows)
    log_table("off", "t", header, rows, [figure], directory=tmp_path / "none")
    assert not (tmp_path / "none").exists()
