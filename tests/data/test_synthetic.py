"""Algorithm 2's reduction, both ways, and A.3's bandit."""

import itertools

import numpy as np
import pytest

from trajclust_jax.clustering import PGKmeans
from trajclust_jax.clustering.conflict import conflict_distance, total_conflict
from trajclust_jax.clustering.oracle import oracle
from trajclust_jax.data import DataError, bandit_dataset, colouring_dataset, validate
from trajclust_jax.metrics import nmi
from trajclust_jax.training import fit

CYCLE = [(i, (i + 1) % 5) for i in range(5)]
COMPLETE = list(itertools.combinations(range(4), 2))
BIPARTITE = [(i, j) for i in range(2) for j in range(2, 5)]
PETERSEN = [
    *((i, (i + 1) % 5) for i in range(5)),
    *((i, i + 5) for i in range(5)),
    *((5 + i, 5 + (i + 2) % 5) for i in range(5)),
]
GRAPHS = {  # edges, nodes, chromatic number
    "cycle of 5": (CYCLE, 5, 3),
    "K4": (COMPLETE, 4, 4),
    "bipartite": (BIPARTITE, 5, 2),
    "path": ([(0, 1), (0, 2), (1, 3)], 4, 2),
    "two edges and a lone node": ([(0, 1), (2, 3)], 5, 2),
    "no edges": ([], 3, 1),
}


def proper(edges, colours):
    return all(colours[i] != colours[j] for i, j in edges)


@pytest.mark.parametrize(("edges", "num_nodes", "chromatic"), GRAPHS.values(), ids=GRAPHS.keys())
def test_assignments_without_conflict_are_the_proper_colourings(edges, num_nodes, chromatic):
    trajectories = colouring_dataset(edges, num_nodes).trajectories
    for num_colours in range(1, chromatic + 1):
        solved = False
        for colours in itertools.product(range(num_colours), repeat=num_nodes):
            valid = total_conflict(trajectories, np.array(colours)) == 0
            assert valid == proper(edges, colours)
            solved |= valid
        assert solved == (num_colours == chromatic)


def test_the_petersen_graph_conflicts_on_its_edges_alone():
    """So that all of its assignments are judged at once: conflicts are edges."""
    trajectories = colouring_dataset(PETERSEN).trajectories
    edges = {frozenset(edge) for edge in PETERSEN}
    for i, j in itertools.product(range(10), repeat=2):
        assert conflict_distance(trajectories, i, j) == (frozenset((i, j)) in edges)
    assert trajectories.max_length == 3  # its degree
    assert total_conflict(trajectories, np.zeros(10, int)) == 2 * len(PETERSEN)


def test_the_printed_algorithm_adds_conflicts():
    """Path 2-0-1-3: state 0 serves edge (0, 1), state 1 serves (0, 2) and also (1, 3), so that 0 conflicts with 3."""
    edges = [(0, 1), (0, 2), (1, 3)]
    printed = colouring_dataset(edges, rule="printed").trajectories
    conflicts = {(i, j) for i, j in itertools.combinations(range(4), 2) if conflict_distance(printed, i, j)}
    assert conflicts == {*edges, (0, 3), (1, 2)}
    colourings = [np.array(c) for c in itertools.product(range(2), repeat=4) if proper(edges, c)]
    assert len(colourings) == 2
    assert all(total_conflict(printed, c) > 0 for c in colourings)


@pytest.mark.parametrize(("edges", "num_colours"), [(CYCLE, 3), (COMPLETE, 4)])
def test_pg_kmeans_colours_easy_graphs(edges, num_colours):
    """Tabular, many restarts, no merging: the best objective is a colouring. (Of the Petersen graph, 1 restart in 400
    finds one: NP-complete is not easy.)"""
    trajectories = colouring_dataset(edges).trajectories
    settings = {"restarts": 40, "extra_clusters": 0, "polish_iterations": 0, "iterations": 30}
    result = fit(PGKmeans.default(num_colours, "tabular", **settings), trajectories, 1).result
    assert proper(edges, np.asarray(result.assignments[0]))
    assert total_conflict(trajectories, np.asarray(result.assignments[0])) == 0


def test_colouring_datasets_are_sound():
    dataset = colouring_dataset([(1, 0), (0, 1), (2, 1)], 4)
    validate(dataset.trajectories)
    assert dataset.labels is None
    assert dataset.provenance.parameters["edges"] == [[0, 1], [1, 2]]
    assert dataset.provenance.fingerprint == colouring_dataset([(0, 1), (1, 2)], 4).provenance.fingerprint
    for bad in ([(0, 0)], [(0, 4)], [(-1, 2)]):
        with pytest.raises(DataError, match="different nodes"):
            colouring_dataset(bad, 4)
    with pytest.raises(DataError, match="at least one node"):
        colouring_dataset([])


def test_the_bandit_has_two_unrelated_clusterings_without_conflict():
    dataset = bandit_dataset(500, 0)
    trajectories = dataset.trajectories
    validate(trajectories)
    state = np.asarray(trajectories.observations.table)[np.asarray(trajectories.observations.ids)[:, 0]].argmax(-1)
    action = np.asarray(trajectories.actions)[:, 0]
    by_action, by_agreement = action, state ^ action
    np.testing.assert_array_equal(dataset.labels, by_action)
    assert total_conflict(trajectories, by_action) == total_conflict(trajectories, by_agreement) == 0
    assert nmi(by_action, by_agreement) < 0.01
    assert total_conflict(trajectories, state) > 0
    other = bandit_dataset(500, 0, policies=(1, 2))  # the same trajectories, told apart the other way
    assert set(zip(state.tolist(), action.tolist(), strict=True)) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert nmi(other.labels, np.asarray(other.trajectories.actions)[:, 0]) < 0.01
    assert oracle(dataset.labels, dataset.true_log_likelihoods)["nmi"] == 1


@pytest.mark.parametrize("settings", [{"size": 0}, {"policies": (1, 1)}, {"policies": (0, 4)}])
def test_bad_bandits_are_refused(settings):
    with pytest.raises(DataError, match=r"give two|at least 1"):
        bandit_dataset(**settings)
