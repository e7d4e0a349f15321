"""Cells with plug-ins on reduced data, and the C^4 paper's tables made of them."""

import copy
import dataclasses

import numpy as np
import pytest

from trajclust_experiments.catalogue import learner_entry
from trajclust_experiments.cells.cell import record_id
from trajclust_experiments.cells.cost import CostCell
from trajclust_experiments.cells.learners import LearnerCell, SweptCell
from trajclust_experiments.cells.runner import run_cells
from trajclust_experiments.cells.views import SNAPSHOTS, ViewCell
from trajclust_experiments.papers import c4
from trajclust_experiments.rendering.stored import record_of
from trajclust_experiments.tables import get_table, table_names
from trajclust_jax.records import Results

DATASET = "hopper-medium-expert"
TINY = {
    **{"features": (8,), "actor_features": (8,), "batch_size": 8, "block": 10, "updates": 20},
    **{"recluster_every": 10, "pool_size": 64, "cluster_points": 64, "em_iterations": 1, "clusters": 2},
}
TABLES = tuple(name for name in table_names() if name.startswith("c4/"))


def cell(kind=LearnerCell, seeds=(0, 1), **more):
    settings = tuple(sorted({**TINY, **more.pop("settings", {})}.items()))
    chosen = {"plugin": "c4", "transitions": 1_000, "draw": 3, "episodes": 1, "evaluate_every": 10}
    return kind(DATASET, 3, "td3_bc", seeds, settings, **{**chosen, **more})


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def record(results):
    """One of a learner with C^4."""
    return run_cells([cell()], results, preset="smoke")[0]


def test_records_say_what_was_plugged_in_and_drawn(record):
    assert record["cell"]["plugin"] == {"name": "c4", "revisions": [1]}
    assert (record["cell"]["transitions"], record["cell"]["draw"]) == (1_000, 3)
    drawn = record["data"]["parameters"]["reduced"]
    dataset = cell().load()[0]
    assert drawn["transitions"] == np.asarray(dataset.trajectories.lengths).sum() >= 1_000
    assert len(drawn["trajectories"]) == dataset.trajectories.num_trajectories
    assert record_id(record["cell"]) == record["id"]
    others = [cell(draw=4), cell(transitions=900), cell(plugin="dr3+c4"), cell(settings={"weight": 0.2})]
    identities = [str(each.essential()) for each in (cell(), *others)]
    assert len(set(identities)) == 5
    assert "plugin" not in LearnerCell(DATASET, 3, "td3_bc", (0,)).essential()


def variants(record):
    """As if every variant of it had been run."""
    found = []
    for name in c4.METHODS[: len(c4.VARIANTS)]:
        _, plug_in, own = c4.VARIANTS[c4.split(name)[1]]
        other = copy.deepcopy(record)
        other["cell"]["plugin"]["name"] = plug_in
        other["config"]["learner"] |= own
        found.append(other)
        assert c4.method_of(other) == name
    return found


def swept(record, values):
    """As if these values of a setting had been swept."""
    found = copy.deepcopy(record)
    found["config"]["sweep"] = [["weight", list(values)]]
    for name, scores in record["scores"].items():
        found["scores"] |= {f"{name} {value:g}": scores for value in values}
    for entry in found["history"]:
        entry |= {
            name: [[each] * len(values) for each in value]
            for name, value in entry.items()
            if name.startswith("clusters/")
        }
    return found


@pytest.mark.parametrize("name", [name for name in TABLES if name not in ("c4/table13", "c4/figure12", "c4/figure13")])
def test_tables_of_records(record, name):
    table = get_table(name)
    records = [record]
    if name in ("c4/table10", "c4/table12", "c4/table14"):
        records = [swept(record, (0.1, 0.3))]
    elif name in ("c4/table1", "c4/figure1", "c4/figure11"):
        records = variants(record)
    elif name == "c4/figure4":
        records = [*variants(record), swept(record, (1.0, 2.0))]
    text, figures = table.render(records)
    assert "| Hopper | TD3+BC + C^4 |" in text
    assert figures or "/table" in name
    if name == "c4/table1":
        assert len([line for line in text.splitlines() if line.startswith("| Hopper")]) == len(c4.VARIANTS)
        assert "TD3+BC, penalty alone" in text


def test_a_record_is_of_its_own_cell_alone(record):
    """Not of the learner without the plug-in, on all the data, or of one whose time is measured."""
    assert record_of(cell(), [record]) == record
    plain = {name: value for name, value in TINY.items() if name in learner_entry("td3_bc").names()}
    others = (
        LearnerCell(DATASET, 3, "td3_bc", (0, 1), tuple(sorted(plain.items())), episodes=1, evaluate_every=10),
        cell(transitions=0),
        cell(CostCell),
        cell(ViewCell),
        cell(plugin="dr3+c4"),
    )
    assert [record_of(each, [record]) for each in others] == [None] * len(others)


def test_every_cell_of_every_table_is_described():
    ids = set()
    for name in TABLES:
        table = get_table(name)
        for preset in table.presets.values():
            for each in table.cells(preset, table.datasets[:1], table.methods, (0,)):
                assert each.essential()["dataset"] == table.datasets[0]
                ids.add(str((type(each), each.essential())))
    assert len(ids) > 50


@pytest.mark.slow
def test_sweeps_are_named_by_value(results):
    found = run_cells([cell(SweptCell, sweep=(("weight", (0.1, 0.5)),))], results, preset="smoke")[0]
    assert set(found["scores"]) == {
        f"{which}_{what} {value:g}"
        for which in ("last", "best")
        for what in ("return", "score")
        for value in (0.1, 0.5)
    }
    assert all(len(values) == 2 for values in found["scores"].values())
    lines = c4.settings_in([found])
    assert [line.value for line in lines] == [0.1, 0.5]
    assert np.isfinite(lines[1].late("clusters/c"))
    lone = run_cells([cell(settings={"weight": 0.5})], results, preset="smoke")[0]
    np.testing.assert_allclose(lines[1].scores(), c4.score_of(lone), atol=0.5)


@pytest.mark.slow
def test_costs_are_measured(results):
    found = run_cells([cell(CostCell, seeds=(0,))], results, preset="smoke")[0]
    assert 0 < found["scores"]["share"][0] < 1
    assert found["scores"]["times_base"][0] > 0.5
    assert "| Hopper | TD3+BC + C^4 |" in get_table("c4/table13").render([found])[0]
    assert dataclasses.replace(cell(CostCell), transitions=0).load()[0].trajectories.num_trajectories == 6


@pytest.mark.slow
def test_clusters_are_looked_at_over_a_training(results):
    found = run_cells([cell(ViewCell)], results, preset="smoke")[0]
    views, seeds = found["views"], len(found["cell"]["seeds"])
    assert [view["gradient_steps"] for view in views] == sorted({view["gradient_steps"] for view in views})
    assert 1 < len(views) <= SNAPSHOTS + 1
    assert {len(view[name]) for view in views for name in ("x", "y", "cluster", "policy")} == {64}
    assert all(np.isfinite(view["x"]).all() and set(view["policy"]) <= {0, 1} for view in views)
    assert views[0]["policy"] == views[-1]["policy"], "the same transitions"
    for name in ("nmi", "used", "largest"):
        assert np.array(found["scores"][name]).shape == (seeds, len(views))
    assert np.array(found["scores"]["nmi"]).max() <= 1
    text, figures = get_table("c4/figure13").render([found])
    assert text.count("| Hopper | TD3+BC + C^4 |") == len(views)
    assert set(figures) == {f"clusters-{DATASET}"}
