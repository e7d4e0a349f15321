"""The practical ceiling: what cloning from true labels can tell, on trajectories it has seen and on others."""

import numpy as np
import pytest

from trajclust_jax.clustering import Cloning
from trajclust_jax.clustering.oracle import oracle
from trajclust_jax.data import Codebook, Trajectories, make
from trajclust_jax.metrics import batch_scores
from trajclust_jax.training import fit


def clone(trajectories, labels, **settings):
    return fit(Cloning(int(labels.max()) + 1, **settings).labelled(labels), trajectories, [0]).result


def scored(labels, found, name):
    """Of trajectories held out, and of trajectories that were seen."""
    return [batch_scores(labels, np.asarray(each))[name][0] for each in (found.assignments, found.in_sample)]


def test_with_enough_data_it_reaches_the_oracle():
    data = make("diagonal", 100, 0)
    found = clone(data.trajectories, data.labels, policy="tabular", iterations=1)
    ceiling = oracle(data.labels, data.true_log_likelihoods)["nmi"]
    held_out, in_sample = scored(data.labels, found, "nmi")
    assert held_out == pytest.approx(ceiling, abs=0.05)
    assert in_sample == pytest.approx(ceiling, abs=0.02)


def test_a_trajectory_is_scored_by_policies_that_did_not_see_it():
    """Every trajectory has an observation of its own: seen, it gives its label away; held out, it says nothing."""
    num = 200
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1], num // 2)).astype(np.int32)
    table = np.eye(num, dtype=np.uint8)
    trajectories = Trajectories(
        observations=Codebook(table, np.arange(num, dtype=np.int32)[:, None]),
        actions=rng.integers(0, 3, (num, 1)).astype(np.int32),
        rewards=np.zeros((num, 1), np.float32),
        lengths=np.ones(num, np.int32),
        terminated=np.ones(num, bool),
        final_observations=Codebook(table, np.arange(num, dtype=np.int32)),
        num_actions=3,
    )
    found = clone(trajectories, labels, policy="tabular", iterations=1)
    held_out, in_sample = scored(labels, found, "accuracy")
    assert in_sample == 1.0
    assert held_out < 0.6
