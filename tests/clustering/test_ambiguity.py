"""Agreement, entropy, and groups of equally good solutions: hand-made cases, then the bandit and Takeball."""

import json

import jax
import numpy as np
import pytest

from trajclust_jax.clustering import Clustering, PGKmeans
from trajclust_jax.clustering.ambiguity import ambiguity, posterior_entropy, restart_agreement, solution_groups
from trajclust_jax.data import bandit_dataset, make
from trajclust_jax.metrics import nmi
from trajclust_jax.training import fit


def clustering(restart_assignments, restart_objectives, num_clusters=2):
    assignments = np.asarray(restart_assignments, np.int32)
    posterior = np.eye(num_clusters, dtype=np.float32)[assignments[0]]
    return Clustering(
        assignments=assignments[0],
        posterior=posterior,
        log_likelihoods=np.log(posterior + 1e-6),
        objective=np.float32(restart_objectives[0]),
        restart=np.int32(0),
        restart_assignments=assignments,
        restart_objectives=np.asarray(restart_objectives, np.float32),
        params=None,
    )


A, RENAMED, B = [0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1]  # B says nothing of A


def test_agreement_is_pairwise_nmi():
    agreement = restart_agreement([A, RENAMED, B, [0, 0, 0, 1]])
    np.testing.assert_array_equal(agreement, agreement.T)
    np.testing.assert_allclose(agreement[0, :3], [1, 1, 0], atol=1e-12)
    assert agreement[0, 3] == nmi(A, [0, 0, 0, 1])
    np.testing.assert_array_equal(restart_agreement([A]), [[1]])


def test_entropy_of_worked_posteriors():
    posterior = [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]]
    np.testing.assert_allclose(posterior_entropy(posterior), [0, 1, np.log(2) / np.log(3)], atol=1e-12)
    np.testing.assert_array_equal(posterior_entropy(np.ones((2, 1))), [0, 0])


def test_groups_hold_equally_good_restarts_only():
    agreement = restart_agreement([A, B, RENAMED, B, A, A])
    objectives = [-1.0, -0.5, -0.9, -0.7, -9.0, np.nan]
    assert solution_groups(agreement, objectives, 4, tolerance=0.2) == [[1, 3], [2, 0]]
    assert solution_groups(agreement, objectives, 4, tolerance=0.01) == [[1]]
    assert solution_groups(agreement, objectives, 4, tolerance=9.0) == [[1, 3], [2, 0, 4]]
    assert solution_groups(agreement, objectives, 4, tolerance=0.2, threshold=0.0) == [[1, 3, 2, 0]]
    assert solution_groups(agreement[:1, :1], [np.nan], 4) == []


@pytest.mark.parametrize(
    ("restarts", "objectives", "unique", "words"),
    [
        ([A, RENAMED, A], [-1.0, -1.1, -1.0], True, "looks unique: the 3 best of 3"),
        ([A, B, RENAMED], [-1.0, -1.1, -1.0], False, "not unique: 2 groups of equally good"),
        ([A, B, B], [-1.0, -8.0, -8.0], None, "1 of 3 restarts reached the best objective, and no other has its"),
        ([B, A, RENAMED], [-8.0, -1.0, -8.0], None, "restarts agree: 2 of 3 found the best one's clustering"),
        ([A], [-1.0], None, "1 of 1"),
    ],
)
def test_summary_says_whether_the_answer_is_unique(restarts, objectives, unique, words):
    summary = ambiguity(clustering(restarts, objectives))
    assert summary["unique"] is unique
    assert words in summary["message"]
    json.dumps(summary, allow_nan=False)
    assert summary["mean_entropy"] == 0
    assert (summary["mean_agreement"] is None) == (len(restarts) == 1)


def summary_of(trajectories, num_clusters, **settings):
    result = fit(PGKmeans.default(num_clusters, "tabular", **settings), trajectories, 1).result
    return ambiguity(jax.tree.map(lambda x: np.asarray(x[0]), result))


def test_the_bandit_is_ambiguous():
    """A.3: exactly two clusterings without conflict, independent of each other."""
    summary = summary_of(bandit_dataset(50).trajectories, 2, restarts=12, extra_clusters=0, polish_iterations=0)
    assert summary["unique"] is False
    assert len(summary["groups"]) == 2


def test_takeball_is_not_and_its_permuted_variant_is():
    assert summary_of(make("takeball", 100, 0).trajectories, 4)["unique"] is True
    permuted = summary_of(make("takeball-permuted", 100, 0).trajectories, 4)
    assert permuted["unique"] is False
    assert permuted["mean_agreement"] < 0.3
