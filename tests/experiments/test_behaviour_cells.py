"""Cells of learners on several policies' data, and their tables: relative returns, K swept, clusters given, maps."""

import json

import numpy as np
import pytest

from trajclust_experiments.cells.behaviours import (
    LABELS,
    BehaviourSetCell,
    HeterogeneousCell,
    plane_of,
    scored,
    swept,
)
from trajclust_experiments.cells.cell import record_id
from trajclust_experiments.cells.runner import run_cells
from trajclust_experiments.papers import lbrac_v
from trajclust_experiments.papers.lbrac_v import brac_v
from trajclust_experiments.papers.lbrac_v._results import Line
from trajclust_experiments.papers.lbrac_v.table1 import at_fewest
from trajclust_experiments.sweeps import Sweep
from trajclust_experiments.tables import get_table
from trajclust_jax.records import Results

SIZES = {"features": (4, 4, 4), "actor_features": (4, 4, 4), "batch_size": 8, "block": 10}
TINY = {**SIZES, "updates": 20, "behaviour_updates": 20}


def cell(method="lbrac_v", clusters=None, dataset="gates-2", **settings):
    given = tuple(sorted({**TINY, **settings}.items()))
    return HeterogeneousCell(dataset, 3, method, (0, 1), given, clusters=clusters, episodes=2, evaluate_every=10)


SWEEP = (("k", (1, 5, 10, 15, 20)),)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    cells = [
        cell(k=2),
        cell(k=2, clusters=LABELS),
        cell(k=1, room=20, sweep=SWEEP),
        cell("brac_v", sweep=(("penalty", brac_v.PENALTIES),)),
        BehaviourSetCell("gates-2", 3, "behaviour_set", (0, 1), (("iterations", 1), ("num_clusters", 3), ("steps", 5))),
    ]
    return run_cells(cells, Results(tmp_path_factory.mktemp("results")), preset="smoke")


@pytest.mark.slow
def test_records_say_what_a_table_needs(records):
    own, labels, swept_k, _, behaviours = records
    worth = np.mean(list(own["policies"].values()))
    assert worth > 70
    assert own["scores"]["relative"] == pytest.approx((np.array(own["scores"]["last_return"]) / worth).tolist())
    assert {"nmi", "homogeneity"} <= set(own["scores"])
    assert labels["clustering"]["nmi"] == pytest.approx(1)
    assert "nmi" not in labels["scores"]
    assert np.shape(swept_k["scores"]["relative"]) == np.shape(swept_k["scores"]["nmi"]) == (2, 5)
    assert [each["k"] for each in swept_k["maps"]] == [1, 5, 10, 15, 20]
    assert [len(each["codes"]) for each in swept_k["maps"]] == [1, 5, 10, 15, 20]
    assert np.shape(swept_k["maps"][0]["trajectories"]) == (6, 2)
    assert len(behaviours["maps"][0]["codes"]) == 3
    assert len({record["id"] for record in records}) == len(records)
    for record in records:
        assert record_id(record["cell"]) == record["id"]
        assert json.loads(json.dumps(record)) == record
    assert lbrac_v.name_of(labels) == "lbrac_v_labels"
    assert lbrac_v.name_of(own) == "lbrac_v"


@pytest.mark.slow
def test_tables_of_records(records):
    own, labels, swept_k, of_brac, behaviours = records
    shown = {
        "figure4": [own, labels],
        "table5": [swept_k],
        "figure6": [swept_k],
        "figure7": [behaviours],
        "clusters": [own, labels],
        "brac-v": [of_brac],
    }
    swept = {"table5": 5, "figure6": 5, "brac-v": len(brac_v.PENALTIES)}
    for name, given in shown.items():
        text, _ = get_table(f"lbrac_v/{name}").render(given)
        assert text.count("| Gates, k = 2 |") == swept.get(name, len(given)), name
    text, _ = get_table("lbrac_v/table1").render([swept_k])
    assert text.count("| Gates, k = 2 |") == 1


@pytest.mark.parametrize("name", ["table1", "table4", "table5", "figure4", "figure5", "figure7", "clusters", "brac-v"])
def test_presets_reach_every_cell(name):
    table = get_table(f"lbrac_v/{name}")
    for preset in table.presets.values():
        cells = table.cells(preset, table.datasets[:2], table.methods, (0,))
        described = [json.dumps(each.essential(), sort_keys=True) for each in cells]
        assert len(set(described)) == len(described) > 0


def test_scores_are_compared_after_equal_gradient_steps():
    """Of a learner trained for longer the evaluation where the other ends; of a sweep its K's own."""

    def line(updates, sweep, scores, k=None):
        history = [{"iteration": i, "return": np.zeros((2, 3)), "score": score} for i, score in enumerate(scores, 1)]
        config = {"block": 10, "sweep": sweep, "learner": {"updates": updates}}
        return Line({"cell": {"dataset": "hopper"}, "config": config, "history": history}, *np.zeros((2, 2)), k)

    long = line(30, [], [[1, 2], [3, 5], [8, 8]])
    short = line(20, [["k", [1, 5]]], [[[0, 9], [0, 9]], [[0, 6], [0, 8]]], k=5)
    shown = at_fewest([long, short])
    assert shown(long) == "4.0 ± 1.4 (20)"  # between samples: n - 1
    assert shown(short) == "7.0 ± 1.4 (20)"


@pytest.mark.parametrize("asked", [None, 2, 3])
def test_seeds_that_are_asked_for_are_taken_on_gates_too(asked):
    """By default it has ten where other tasks have three."""
    sweep = Sweep(("lbrac_v/figure4",), "cpu", ("gates-2", "hopper-heterogeneous-3"), ("brac_v",), asked)
    counts = [len(task.cell.seeds) for task in sweep.tasks()]
    assert counts == ([10, 3] if asked is None else [asked, asked])


def test_a_heterogeneous_set_is_as_large_whatever_k():
    preset = lbrac_v.PRESETS["cpu"]
    totals = [int(name[-1]) * lbrac_v.size_of(preset, name) for name in lbrac_v.GATES]
    assert min(totals) >= 0.95 * max(totals) == 0.95 * 240


def test_scores_keep_the_axes_of_runs():
    """Pure clusters beyond the labels cost NMI, not homogeneity."""
    labels = np.array([0, 0, 1, 1])
    found = scored(labels, np.array([[[0, 1, 2, 3], [0, 0, 0, 0]], [[1, 1, 0, 0], [0, 1, 0, 1]]]))
    assert np.array(found["homogeneity"]) == pytest.approx(np.array([[1, 0], [1, 0]]))
    assert found["nmi"][0][0] < 0.99 < found["nmi"][1][0]


def test_a_plane_of_directions():
    """Lengths do not count; codes out of use are left out."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(9, 5))
    shown = plane_of(embeddings, np.concatenate([embeddings[:2] * 7, np.zeros((1, 5))]), 3 * embeddings[4])
    np.testing.assert_allclose(shown["codes"], np.array(shown["trajectories"])[:2], atol=1e-9)
    np.testing.assert_allclose(shown["policy"], shown["trajectories"][4], atol=1e-9)
    np.testing.assert_allclose(np.mean(shown["trajectories"], 0), 0, atol=1e-3)


def test_swept_settings():
    config = {"sweep": [["k", [1, 5]], ["penalty", [0.1, 1.0]]]}
    assert swept(config) == [{"k": 1, "penalty": 0.1}, {"k": 5, "penalty": 1.0}]
