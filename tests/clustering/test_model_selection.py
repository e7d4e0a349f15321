"""Choosing K: known answers, criteria against NumPy, what is held out and what is out of use has no influence."""

import dataclasses

import jax
import numpy as np
import pytest

from trajclust_jax.clustering.model_selection import (
    PRIOR,
    PGKmeansRange,
    Selection,
    _tabular_score,
    select_num_clusters,
)
from trajclust_jax.data import make
from trajclust_jax.records import plain
from trajclust_jax.training import fit

QUICK = {"restarts": 2, "iterations": 12, "polish_iterations": 0}


@pytest.mark.parametrize("num_policies", [1, 3])
def test_the_number_of_policies_is_found(conflict, num_policies):
    trajectories, _ = conflict(k=num_policies, n=80)
    selection = select_num_clusters(PGKmeansRange.over(range(1, 6)), trajectories, 2)
    for criterion in ("held_out", "integrated"):
        np.testing.assert_array_equal(selection.chosen(criterion), [num_policies, num_policies])
    assert selection.held_out.shape == selection.integrated.shape == selection.objective.shape == (2, 5)
    assert (selection.used_clusters <= selection.counts).all()
    assert set(plain(selection.to_dict(), finite=True)["chosen"]) == {"held_out", "integrated"}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_policies"), [("diagonal", 5), ("takeball", 4)])
def test_gridworlds(name, num_policies):
    selection = select_num_clusters(PGKmeansRange.over(range(2, num_policies + 4)), make(name, 1000, 0).trajectories, 5)
    for criterion in ("held_out", "integrated"):
        assert (selection.chosen(criterion) == num_policies).sum() >= 4


def test_criteria_equal_numpy(conflict):
    trajectories, _ = conflict(k=2, n=24, seed=1)
    method = PGKmeansRange.over((2, 4), held_out=0.25, **QUICK)
    selection = select_num_clusters(method, trajectories, 1)
    trained = fit(method, trajectories, 1)
    trained = np.asarray(trained.result.trained[0])
    lengths = trajectories.lengths
    assert (~trained).sum() == 6
    codes = []
    for g, k in enumerate((2, 4)):
        found = jax.tree.map(lambda x, g=g: x[0, g], selection.clusterings)
        log_likelihoods = np.asarray(found.log_likelihoods, np.float64)
        assert np.isneginf(log_likelihoods[:, k:]).all()
        assert (found.posterior[:, k:] == 0).all()
        np.testing.assert_array_equal(found.assignments, log_likelihoods.argmax(1))
        shares = [(np.sum(found.assignments[trained] == j) + 0.5) / (18 + k / 2) for j in range(k)]
        code = (log_likelihoods[:, :k] + np.log(shares)).max(1)
        np.testing.assert_allclose(selection.held_out[0, g], code[~trained].sum() / lengths[~trained].sum())
        codes.append(code[~trained])
        best = log_likelihoods.max(1)
        np.testing.assert_allclose(selection.objective[0, g], best[~trained].sum() / lengths[~trained].sum())
        np.testing.assert_allclose(selection.train_objective[0, g], best[trained].sum() / lengths[trained].sum())
    error = np.sqrt(6) * np.std(codes[0] - codes[1]) / lengths[~trained].sum()
    np.testing.assert_allclose(np.sort(selection.held_out_error[0]), [0, error], atol=1e-12)


def test_the_fewest_used_clusters_within_one_standard_error_are_chosen():
    nothing = dict.fromkeys([field.name for field in dataclasses.fields(Selection)])
    selection = Selection(
        **nothing
        | {
            "counts": (1, 2, 5),
            "used_clusters": np.array([[1, 2, 3], [1, 2, 5], [1, 2, 3]]),
            "held_out": np.array([[-3.0, -1.1, -1.0], [-3.0, -1.1, -1.0], [-1.0, -2.0, -2.0]]),
            "held_out_error": np.array([[0.5, 0.2, 0.0], [0.5, 0.05, 0.0], [0.0, 2.0, 2.0]]),
            "integrated": np.array([[-3.0, -1.1, -1.0], [-3.0, -1.0, -1.0], [-1.0, -2.0, -2.0]]),
        }
    )
    assert selection.chosen("held_out").tolist() == [2, 5, 1]
    assert selection.chosen("integrated").tolist() == [3, 2, 1]


def test_the_integrated_likelihood_is_that_of_predicting_one_step_after_the_other(random_data):
    """Chain rule: with a Dirichlet prior, the next action has probability (count + 1/2) / (total + A/2)."""
    trajectories = random_data(n=9)
    assignments = np.arange(9) % 2
    counts, sizes, expected = np.full((2, 6, 4), PRIOR), np.full(2, PRIOR), 0.0
    for n, k in enumerate(assignments):
        expected += np.log(sizes[k] / sizes.sum())
        sizes[k] += 1
        for t in range(trajectories.lengths[n]):
            row, action = counts[k, trajectories.observations.ids[n, t]], trajectories.actions[n, t]
            expected += np.log(row[action] / row.sum())
            row[action] += 1
    np.testing.assert_allclose(_tabular_score(trajectories)(assignments, 2), expected)


def test_held_out_trajectories_influence_nothing_but_their_own_scores(conflict):
    trajectories, _ = conflict(k=2, n=24)
    method = PGKmeansRange.over((2, 4), held_out=0.25, **QUICK)
    first = jax.tree.map(lambda x: np.asarray(x[0]), fit(method, trajectories, 1).result)
    actions = np.where(first.trained[:, None], trajectories.actions, (trajectories.actions + 1) % 3)
    second = fit(method, trajectories.replace(actions=actions), 1).result
    np.testing.assert_array_equal(second.trained[0], first.trained)
    np.testing.assert_array_equal(second.clusterings.params[0], first.clusterings.params)
    for name in ("assignments", "log_likelihoods"):
        one, other = getattr(first.clusterings, name), np.asarray(getattr(second.clusterings, name)[0])
        np.testing.assert_array_equal(one[:, first.trained], other[:, first.trained])
    assert not np.array_equal(first.clusterings.log_likelihoods, second.clusterings.log_likelihoods[0])


def test_networks_on_dense_observations(conflict, dense):
    """Minibatches of the training part alone; there is no table to integrate over."""
    trajectories, _ = conflict(k=2, n=40)
    settings = {**QUICK, "restarts": 3, "extra_clusters": 0, "iterations": 8, "policy_settings": (("batch_size", 64),)}
    selection = select_num_clusters(PGKmeansRange.over((1, 2), "mlp", **settings), dense(trajectories), 1)
    assert selection.chosen() == [2]
    assert selection.integrated is None
    assert set(selection.to_dict()["chosen"]) == {"held_out"}


def test_bad_input_is_refused(conflict):
    for bad in ({"counts": ()}, {"counts": (3, 2)}, {"counts": (0, 2)}, {"counts": (1, 3)}, {"held_out": 1.0}):
        with pytest.raises(ValueError, match=r"counts is|must be"):
            PGKmeansRange.default(2, "tabular", **{"counts": (1, 2), **bad})
    with pytest.raises(ValueError, match="at least 2"):
        select_num_clusters(PGKmeansRange.over((1,)), conflict(n=1)[0], 1)
