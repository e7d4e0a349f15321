"""The oracle on likelihoods worked by hand."""

import numpy as np
import pytest

from trajclust_jax.clustering.oracle import bayes_assignment, oracle
from trajclust_jax.data import make
from trajclust_jax.metrics import nmi

INF = np.inf


def test_ties_go_to_the_first_or_at_random():
    scores = np.array([[0.0, 0.0], [-INF, -3.0], [-2.0, -INF]])
    assert bayes_assignment(scores).tolist() == [0, 1, 0]
    drawn = [bayes_assignment(scores, rng=np.random.default_rng(seed)).tolist() for seed in range(40)]
    assert {tuple(row[1:]) for row in drawn} == {(1, 0)}
    assert {row[0] for row in drawn} == {0, 1}


def test_the_prior_counts():
    assert bayes_assignment(np.zeros((1, 2)), np.log([0.2, 0.8])).tolist() == [1]


def test_perfect_and_hopeless():
    labels = np.array([0, 1, 0, 1])
    known = np.where(np.eye(2)[labels] > 0, 0.0, -INF)
    assert oracle(labels, known) == {"nmi": 1.0, "nmi_random_ties": 1.0, "tied": 0.0}
    assert oracle(labels, np.zeros((4, 2)))["tied"] == 1.0
    assert oracle(labels, np.zeros((4, 2)))["nmi"] == 0.0


@pytest.mark.parametrize(("name", "low", "high"), [("diagonal", 0.93, 0.95), ("takeball", 0.99, 1.0)])
def test_gridworld_ceilings_are_those_of_the_design(name, low, high):
    dataset = make(name, 1000, 0)
    scores = oracle(dataset.labels, dataset.true_log_likelihoods)
    assert low <= scores["nmi"] <= high
    assert scores["nmi_random_ties"] <= scores["nmi"] + 0.002
    # The true policy of each trajectory explains it.
    assert (dataset.true_log_likelihoods[np.arange(len(dataset.labels)), dataset.labels] == 0).all()
    assert nmi(dataset.labels, dataset.labels) == 1
