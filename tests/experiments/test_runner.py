"""Cells: identity, sharing between processes, tracking."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trajclust_experiments.catalogue import entries
from trajclust_experiments.cells.cell import load, record_id, tracked
from trajclust_experiments.cells.joining import joined
from trajclust_experiments.cells.methods import ORACLE, MethodCell
from trajclust_experiments.cells.runner import Run, run_cells
from trajclust_experiments.launchers.task import Task, perform
from trajclust_experiments.papers.own.data import SOURCES
from trajclust_experiments.rendering.stored import table_records
from trajclust_experiments.tables import get_table, select, table_names
from trajclust_jax.clustering import PGKmeans
from trajclust_jax.data import REGISTRY
from trajclust_jax.records import Results, comparable

ROOT = Path(__file__).parents[2]
SETTINGS = (("iterations", 3), ("polish_iterations", 1), ("restarts", 2))
CELL = MethodCell("diagonal", 10, "pg_kmeans_tabular", (0, 1), SETTINGS)


def _id(cell):
    return record_id(cell.identity(load(cell.dataset, cell.size, cell.data_seed)[0]))


def test_identity_is_everything_that_determines_the_result(monkeypatch):
    changed = [
        {"dataset": "takeball"},
        {"size": 11},
        {"data_seed": 1},
        {"method": "pg_kmeans_mlp"},
        {"seeds": (0, 2)},
        {"settings": (("iterations", 4),)},
    ]
    ids = {_id(CELL), *(_id(dataclasses.replace(CELL, **change)) for change in changed)}
    assert len(ids) == 1 + len(changed)
    monkeypatch.setattr(PGKmeans, "VERSION", PGKmeans.VERSION + 1)
    assert _id(CELL) not in ids


def test_defaults_do_not_enter_an_id():
    described = CELL.identity(load(CELL.dataset, CELL.size, CELL.data_seed)[0])
    stored = described["hyperparameters"]
    older = {
        **described,
        "hyperparameters": {k: v for k, v in stored.items() if k != "merging"},
    }  # of before it existed
    assert record_id(older) == record_id(described)
    other = {**described, "hyperparameters": {**stored, "merging": "printed"}}
    assert record_id(other) != record_id(described)


@pytest.mark.parametrize("name", table_names())
def test_every_table_and_preset_constructs(name):
    table = get_table(name)
    assert table.name == name
    assert {"smoke", "cpu", "paper"} <= set(table.presets)
    for preset in table.presets.values():
        cells = table.cells(preset, table.datasets, table.methods, tuple(range(preset.seeds)))
        assert cells
        for cell in cells:
            assert cell.dataset in (*REGISTRY, *SOURCES)
            if cell.method != ORACLE:
                method = cell.build()
                learner = getattr(method, "learner", method)
                held = {name: getattr(learner, name, getattr(method, name, None)) for name, _ in cell.settings}
                assert held == dict(cell.settings)


def test_selection_by_name_and_family():
    names = tuple(entries("clusterer"))
    assert select((), names, "method") == names
    assert select(("pg_kmeans",), names, "method") == tuple(n for n in names if n.startswith("pg_kmeans"))
    assert select(("caae",), names, "method") == ("caae",)
    assert select(("caae_",), names, "method") == tuple(n for n in names if n.startswith("caae_"))
    assert select(("sorl", "sorl_"), names, "method") == ("sorl", "sorl_sum")
    assert select(("pg_kmeans_gru",), names, "method") == ("pg_kmeans_gru",)
    tasks = ("takeball", "takeball-permuted", "hopper-medium-expert", "hopper-late-expert")
    assert select(("takeball",), tasks, "dataset") == ("takeball",)
    assert select(("hopper",), tasks, "dataset") == tasks[2:]
    for nothing in ("dbscan", ""):
        with pytest.raises(ValueError, match=f"unknown method '{nothing}'"):
            select((nothing,), names, "method")


def test_a_record_says_everything(tmp_path):
    record = run_cells([CELL], Results(tmp_path), preset="test")[0]
    assert record["cell"]["hyperparameters"]["iterations"] == 3
    assert record["cell"]["fingerprint"] == load("diagonal", 10, 0)[0].provenance.fingerprint
    assert len(record["scores"]["nmi"]) == len(record["scores"]["objective"]) == 2
    assert {entry["phase"] for entry in record["history"]} == {"em", "merge", "polish"}
    assert np.array(record["history"][-1]["nmi"]).shape == (2, 2)
    assert sum(record["sample"]["counts"]) == 50
    assert record["environment"]["versions"]["jax"]
    assert record["timing"]["run_seconds"] > 0
    assert not (tmp_path / "work" / record["id"]).exists(), "checkpoints go when the record stands"


def test_a_record_says_how_well_each_seed_is(tmp_path):
    settings = (("batch_size", 4), ("iterations", 1), ("steps", 1))
    record = run_cells([MethodCell("diagonal", 4, "caae_plain", (0, 1), settings)], Results(tmp_path), preset="test")[0]
    assert set(record["health"]) == {"used_clusters", "spread", "silhouette"}
    assert len(record["warnings"]) == len(record["health"]["spread"]) == 2
    for used, warnings in zip(record["health"]["used_clusters"], record["warnings"], strict=True):
        assert (used < 5) == any("clusters are used" in warning for warning in warnings)
    assert np.array(record["history"][-1]["nmi"]).shape == (2, 1)
    assert {"objective", "reconstruction", "used_clusters", "spread"} <= set(record["history"][-1])


def test_a_ceilings_record_is_of_held_out_trajectories_and_asks_nothing_of_restarts(tmp_path):
    settings = (("iterations", 1), ("steps", 2))
    record = run_cells([MethodCell("diagonal", 10, "cloning_mlp", (0, 1), settings)], Results(tmp_path), preset="test")[
        0
    ]
    scores, history = record["scores"], record["history"]
    assert scores["restart"] == [0, 0]
    assert scores["nmi"] == [held_out for held_out, in_sample in history[-1]["nmi"]]
    assert {"behavioural_kl", "objective"} <= set(scores)
    assert "ambiguity" not in record


def test_a_method_without_an_answer_leaves_its_reason(tmp_path):
    cell = MethodCell("diagonal", 4, "return_kmeans", (0, 1))
    record = run_cells([cell], Results(tmp_path), preset="test")[0]
    assert record["not_applicable"] == "every return is equal"
    assert record["scores"] == {}
    assert run_cells([cell], Results(tmp_path), preset="test") == [record]


def test_a_second_run_equals_the_first(tmp_path):
    first, second = (run_cells([CELL], Results(tmp_path / name), preset="test")[0] for name in ("a", "b"))
    assert comparable(first) == comparable(second)


def _without_seconds(record):
    return {name: value for name, value in comparable(record).items() if name != "parts"}


def test_further_seeds_are_computed_alone(tmp_path, monkeypatch):
    """One seed, then three: two are trained, and the record is that of three trained at once."""
    trained = []
    compute = MethodCell.compute
    monkeypatch.setattr(MethodCell, "compute", lambda self, *given: trained.append(self.seeds) or compute(self, *given))
    cells = [dataclasses.replace(CELL, seeds=tuple(range(n))) for n in (1, 3)]
    results = Results(tmp_path / "grown")
    grown = [run_cells([cell], results, preset="test")[0] for cell in cells][1]
    assert trained == [(0,), (1, 2)]
    assert run_cells(cells[1:], results, preset="test") == [grown]
    at_once = Results(tmp_path / "at_once")
    whole = run_cells(cells[1:], at_once, preset="test")[0]
    assert trained[2:] == [(0, 1, 2)]
    assert _without_seconds(grown) == _without_seconds(whole)
    assert (results.arrays(grown["id"])["assignments"] == at_once.arrays(whole["id"])["assignments"]).all()
    assert [part["seeds"] for part in grown["parts"]] == [[0], [1, 2]]
    seconds = [part["timing"]["run_seconds"] for part in grown["parts"]]
    assert grown["timing"]["run_seconds"] == pytest.approx(sum(seconds))


def test_what_further_seeds_cannot_be_added_to_is_computed_whole(tmp_path):
    """A damaged record of fewer seeds, and one with what nobody has told how to join."""
    cells = [dataclasses.replace(CELL, seeds=tuple(range(n))) for n in (1, 2)]
    results = Results(tmp_path)
    one = run_cells(cells[:1], results, preset="test")[0]
    for damage in ("unknown", "cut"):
        if damage == "unknown":
            results.write(one["id"], {**one, "of_all_seeds_together": 1.0})
        else:
            path = results.cells / f"{one['id']}.json"
            path.write_bytes(path.read_bytes()[:-9])
        whole = run_cells(cells[1:], results, preset="test")[0]
        assert "parts" not in whole
        assert len(whole["scores"]["nmi"]) == 2
        (results.cells / f"{whole['id']}.json").unlink()


def test_histories_of_different_lengths_are_joined():
    """Seeds that had converged stay as they were."""
    entry = lambda phase, iteration, *losses: {"phase": phase, "iteration": iteration, "loss": list(losses)}
    first = {"history": [entry("em", 0, 1.0), entry("polish", 0, 0.5)], "timing": {"run_seconds": 1.0}}
    first |= {"cell": {"seeds": [0]}, "environment": {"host": "a"}}
    rest = {
        "history": [entry("em", 0, 2.0, 3.0), entry("em", 1, 1.5, 2.5), entry("polish", 0, 0.1, 0.2)],
        "timing": {"run_seconds": 2.0},
    }
    body = joined(first, {}, rest, seeds=(1, 2), environment={"host": "b"})
    assert body["history"] == [
        entry("em", 0, 1.0, 2.0, 3.0),
        entry("em", 1, 1.0, 1.5, 2.5),
        entry("polish", 0, 0.5, 0.1, 0.2),
    ]
    assert body["timing"] == {"run_seconds": 3.0, "resumed": False}
    assert body["parts"] == [
        {"seeds": [0], "environment": {"host": "a"}, "timing": {"run_seconds": 1.0}},
        {"seeds": [1, 2], "environment": {"host": "b"}, "timing": {"run_seconds": 2.0}},
    ]


def test_two_processes_compute_each_cell_once(tmp_path):
    """Both get the whole table; every cell was computed by one of them."""
    command = ["-m", "trajclust_experiments.cli", "run", "pgkmeans/table1", "--preset", "smoke"]
    command += ["--datasets", "diagonal", "takeball", "--methods", "pg_kmeans_tabular"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, *command, "--results", str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    while not list(tmp_path.glob("cells/*.lease")) and all(process.poll() is None for process in processes):
        time.sleep(0.05)
    assert all(process.poll() is None for process in processes), "both are at work"
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    done = sum(err.count(": done in") for _, err in outputs)
    assert done == 2, outputs
    assert len(Results(tmp_path).all()) == 4


def test_a_lost_lease_gives_the_work_up(tmp_path):
    """Another process took the cell over while this one slept: it computes again only when the lease is free."""

    class Fading:
        def __init__(self, lease):
            self.lease, self.asked = lease, 0

        @property
        def lost(self):
            self.asked += 1
            return self.asked > 3

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.lease.release()

    results, handed = Results(tmp_path), []
    lease_of = results.lease

    def lease(id):
        handed.append(Fading(lease_of(id)) if not handed else lease_of(id))
        return handed[-1]

    results.lease = lease
    record = run_cells([CELL], results, preset="test", poll_seconds=0.01)[0]
    assert len(handed) == 2
    assert handed[0].asked == 4
    assert record["scores"]["nmi"]


def test_checkpoints_of_a_process_killed_after_its_record_go(tmp_path, monkeypatch):
    """Nothing else is done for a finished cell; while another process holds it, that one clears up."""
    record = run_cells([CELL], Results(tmp_path), preset="test")[0]
    work = Results(tmp_path).work(record["id"])
    work.mkdir(parents=True)
    monkeypatch.setattr(MethodCell, "needs", lambda self: pytest.fail("a finished cell needs nothing"))
    monkeypatch.setattr(Run, "_of_fewer_seeds", lambda *_: pytest.fail("a finished cell is not added to"))
    with Results(tmp_path).lease(record["id"]):
        assert run_cells([CELL], Results(tmp_path), preset="test") == [record]
        assert work.exists()
    assert run_cells([CELL], Results(tmp_path), preset="test") == [record]
    assert not work.exists()


def test_records_of_an_older_version_do_not_count(tmp_path, monkeypatch):
    table = get_table("pgkmeans/table1")
    cells = table.cells(table.presets["smoke"], ("diagonal",), ("pg_kmeans_tabular",), (0,))
    records = run_cells(cells, Results(tmp_path), preset="smoke")
    assert len(table_records(table, "smoke", records)) == 2
    monkeypatch.setattr(PGKmeans, "VERSION", PGKmeans.VERSION + 1)
    assert table_records(table, "smoke", records) == []


def test_tracking_offline_has_one_run_a_seed(tmp_path):
    from wandb_reader import read_runs

    assert perform(Task("test", "test", CELL), str(tmp_path), track="offline").state == "done"
    record = run_cells([CELL], Results(tmp_path), preset="test")[0]
    import wandb

    wandb.teardown()
    whole, *runs = sorted(read_runs(tmp_path), key=lambda run: run.name)
    name = "diagonal-pg_kmeans_tabular"
    assert [run.name for run in (whole, *runs)] == [name, f"{name}-seed0", f"{name}-seed1"]
    assert whole.job_type == "cell"
    assert {run.group for run in runs} == {whole.group}
    assert len(whole.artifacts) == 2  # its table, and its record
    shown = {name.removesuffix("/path") for name in whole.history[0] if name.endswith("/path")}
    assert shown == {"table", "sample", "curves"}
    pictures = [tmp_path / "wandb" / path for path in (tmp_path / "wandb").rglob("media/images/*.png")]
    assert sorted(path.stem.partition("_")[0] for path in pictures) == ["curves", "sample"]
    assert all(np.ptp(np.asarray(Image.open(path))) > 100 for path in pictures)
    assert not Results(tmp_path).work(record["id"]).exists()
    for seed, run in enumerate(runs):
        assert run.summary["health/used_clusters"] == record["health"]["used_clusters"][seed]
        assert run.group.startswith("diagonal-pg_kmeans_tabular")
        assert {"table:test", "dataset:diagonal", f"seed:{seed}"} <= set(run.tags)
        assert run.summary["final/nmi"] == pytest.approx(record["scores"]["nmi"][seed])
        assert len(run.history) == len(record["history"])
        last = run.history[-1]
        assert last["polish/objective/best"] == pytest.approx(max(record["history"][-1]["objective"][seed]))


def test_of_an_evaluations_episodes_the_mean_is_tracked():
    metrics = {"return": np.arange(12.0).reshape(2, 2, 3), "actor/loss": np.zeros((2, 2))}
    found = tracked("train", metrics)
    assert found["train/return"].tolist() == [[1, 4], [7, 10]]
    assert found["train/actor/loss"].shape == (2, 2)
