"""Cells of learners and of clusterings' policies, and the tables made of them."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from trajclust_envs.mujoco import TASKS
from trajclust_experiments.catalogue import CATALOGUE
from trajclust_experiments.cells.cell import load, record_id
from trajclust_experiments.cells.evaluation import best_cluster
from trajclust_experiments.cells.learners import CentreCell, LearnerCell, centre_policies
from trajclust_experiments.cells.methods import MethodCell
from trajclust_experiments.cells.runner import run_cells
from trajclust_experiments.papers.pgkmeans import table4
from trajclust_experiments.rendering.report import write_report
from trajclust_experiments.tables import get_table
from trajclust_jax.data.transforms import action_scaling
from trajclust_jax.evaluation import act
from trajclust_jax.networks import PolicyNetwork
from trajclust_jax.records import Results, comparable
from trajclust_jax.training import fit

TINY = (("actor_features", (8,)), ("batch_size", 8), ("block", 10), ("updates", 20))
EM = (("iterations", 1), ("polish_first_steps", 2), ("polish_iterations", 1), ("polish_steps", 2), ("restarts", 1))
DATASET = "hopper-medium-expert"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def records(results):
    """Records of a learner, of one on a cluster, and of a clustering's policies."""
    cells = [
        LearnerCell(DATASET, 3, "bc", (0, 1), TINY, episodes=2, evaluate_every=10),
        LearnerCell(DATASET, 3, "bc", (0, 1), TINY, clusters="return_kmeans", episodes=2, evaluate_every=10),
        CentreCell(DATASET, 3, "centres", (0, 1), EM, episodes=2),
    ]
    records = run_cells(cells, results, preset="smoke")
    assert run_cells(cells, results, preset="smoke") == records  # nothing is computed again
    return records


def test_records_say_what_a_table_needs(records):
    bc, on_cluster, centres = records
    assert bc["cell"]["settings"] == {"actor_features": [8], "batch_size": 8, "block": 10, "updates": 20}
    assert [len(values) for values in bc["scores"].values()] == [2] * 4
    evaluated = [entry for entry in bc["history"] if "return" in entry]
    assert np.shape([entry["return"] for entry in evaluated]) == (2, 2, 2)  # evaluations, seeds, episodes
    assert bc["scores"]["last_return"] == pytest.approx(np.mean(evaluated[-1]["return"], 1).tolist())
    assert bc["scores"]["best_return"] == pytest.approx(np.mean([e["return"] for e in evaluated], 2).max(0).tolist())
    assert bc["policies"]["expert"] > bc["policies"]["medium"] + 20
    assert on_cluster["clustering"]["size"] <= 3
    assert "clustering" not in bc
    assert {"best_score", "chosen_score", "nmi"} <= set(centres["scores"])
    assert sum(map(len, centres["cluster_returns"])) == 6
    assert np.shape(centres["centre_returns"]) == (2, 2, 2)  # seeds, clusters, episodes
    means = TASKS["hopper"].normalised(np.mean(centres["centre_returns"], -1))
    assert np.array(centres["centre_scores"]) == pytest.approx(means)
    assert np.all(np.array(centres["scores"]["best_score"]) >= np.array(centres["scores"]["chosen_score"]))


def test_learners_of_further_seeds_are_trained_alone(records, results):
    """A learner on a cluster and a clustering's policies: one seed, then two, equal two at once."""
    with_two = [
        LearnerCell(DATASET, 3, "bc", (0, 1), TINY, clusters="return_kmeans", episodes=2, evaluate_every=10),
        CentreCell(DATASET, 3, "centres", (0, 1), EM, episodes=2),
    ]
    elsewhere = Results(results.folder / "grown")
    for number in (1, 2):
        grown = run_cells([cell.of_seeds(tuple(range(number))) for cell in with_two], elsewhere, preset="smoke")
    for one, other in zip(grown, records[1:], strict=True):
        assert [part["seeds"] for part in one.pop("parts")] == [[0], [1]]
        assert comparable(one) == comparable(other)


def test_a_clustering_is_trained_once_for_all_that_learn_from_it(records, results, tmp_path, monkeypatch):
    """Two learners on its clusters, from empty results; then a third beside them; a lost file is made again."""
    begun = []
    compute = MethodCell.compute
    monkeypatch.setattr(MethodCell, "compute", lambda self, *given: begun.append(self.method) or compute(self, *given))
    on_clusters = lambda name: LearnerCell(DATASET, 3, name, (0,), TINY, clusters="return_kmeans", episodes=1)
    results = Results(tmp_path)
    first = run_cells([on_clusters("bc"), on_clusters("bc_gaussian")], results, preset="smoke")
    assert begun == ["return_kmeans"]
    assert [record["clustering"] for record in first] == [first[0]["clustering"]] * 2
    run_cells([on_clusters("bc_10")], results, preset="smoke")
    assert begun == ["return_kmeans"]
    (kept,) = tmp_path.glob("cells/*.npz")
    assignments = results.arrays(kept.stem)["assignments"]
    assert assignments.shape == (1, 6)
    before = results.read(kept.stem)
    kept.unlink()
    run_cells([dataclasses.replace(on_clusters("bc"), seeds=(1,))], results, preset="smoke")
    assert begun == ["return_kmeans"] * 2
    np.testing.assert_array_equal(results.arrays(kept.stem)["assignments"], assignments)
    assert comparable(results.read(kept.stem)) == comparable(before)


def test_the_report_lists_what_learners_were_told(records, results, tmp_path):
    write_report(results, tmp_path)
    rows = [line for line in (tmp_path / "report.md").read_text().splitlines() if "updates 20" in line]
    assert len(rows) == 2
    assert sum("clusters return_kmeans" in row for row in rows) == 1


def test_identity(records):
    cell = LearnerCell(DATASET, 3, "bc", (0, 1), TINY, episodes=2, evaluate_every=10)
    dataset = load(DATASET, 3, 0)[0]
    assert record_id(cell.identity(dataset)) == records[0]["id"]
    assert len({record["id"] for record in records}) == 3
    for other in (
        LearnerCell(DATASET, 3, "bc_10", (0, 1), TINY, episodes=2, evaluate_every=10),
        LearnerCell(DATASET, 3, "bc", (0, 1), TINY, episodes=3, evaluate_every=10),
        LearnerCell(DATASET, 3, "bc", (0,), TINY, episodes=2, evaluate_every=10),
        LearnerCell(DATASET, 3, "bc", (0, 1), (*TINY, ("best", 0.5)), episodes=2, evaluate_every=10),
    ):
        assert record_id(other.identity(dataset)) != records[0]["id"]
    iql = LearnerCell("hopper-medium-expert", 3, "iql", (0,))
    assert iql.build().reward_range == 1000
    assert json.dumps(iql.essential())


@pytest.mark.parametrize("name", ["pgkmeans/table4", "offline/returns", "pgkmeans/figure5"])
def test_tables_of_records(records, name):
    of_table = {"pgkmeans/figure5": records[2:], "offline/returns": records[:1]}.get(name, records)
    text, figures = get_table(name).render(of_table)
    assert len(figures) == 1
    assert "| Hopper |" in text
    if name == "pgkmeans/table4":
        assert "| 52.3 |" in text  # CORL's BC
        assert "BC on PG-Kmeans' better cluster" in text
    if name == "offline/returns":
        assert "BC over 1 task: mean " in text


def test_table8(records):
    text, figures = get_table("pgkmeans/table8").render([_with_clusters(records[2], k) for k in (3, 15)])
    assert "| 101.33 |" in text
    assert set(figures) == {"score-against-k"}


def _with_clusters(record, k):
    cell = {**record["cell"], "hyperparameters": {**record["cell"]["hyperparameters"], "num_clusters": k}}
    return {**record, "cell": cell}


def test_presets_reach_every_cell():
    for preset in table4.PRESETS.values():
        for name in ("pgkmeans/table4", "offline/returns"):
            table = get_table(name)
            for cell in table.cells(preset, table.datasets[:1], table.methods, (0,)):
                assert cell.essential()["method"] == cell.method


def test_best_cluster_has_the_best_data():
    assert best_cluster(np.array([2, 2, 0, 0]), np.array([1.0, 2.0, 5.0, -3.0])) == 2


def test_centres_act_as_their_networks():
    dataset = load(DATASET, 3, 0)[0]
    method = CATALOGUE["centres"].build(2, **dict(EM))
    assert type(method) is type(CATALOGUE["pg_kmeans_mlp"].build(2))
    clustering = fit(method, dataset.trajectories, 2).result
    policies, learner = centre_policies(method, dataset, clustering)
    observations = 3 * np.random.default_rng(0).normal(size=(2, 2, 5, 11)).astype(np.float32)
    found = act(learner, policies, observations)
    inputs = method.preprocessing(dataset.trajectories).inputs
    for s in range(2):
        for k in range(2):
            params = jax.tree.map(lambda x, s=s, k=k: x[s, k], clustering.params)
            policy = PolicyNetwork(3, discrete=False).apply(params, inputs(observations[s, k]))
            moved = action_scaling(dataset.trajectories).undo(policy.mean())
            np.testing.assert_allclose(found[s, k], np.clip(moved, -1, 1), atol=1e-5)
