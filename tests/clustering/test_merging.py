"""Merging on matrices worked by hand."""

import jax.numpy as jnp
import numpy as np

from trajclust_jax.clustering.merging import merge_clusters

# Cluster 3 is empty; 1 and 2 are alike (2 into 1 loses 1); 0 is apart. Row: cluster, column: policy.
SCORES = jnp.array(
    [
        [-10.0, -90.0, -80.0, -70.0],
        [-60.0, -20.0, -24.0, -50.0],
        [-40.0, -6.0, -5.0, -30.0],
        [0.0, 0.0, 0.0, 0.0],
    ]
)


def test_the_pair_that_loses_least_is_merged_and_an_empty_cluster_first():
    target, kept = merge_clusters(SCORES, 3)
    assert kept.tolist() == [0, 1, 2]
    assert target[:3].tolist() == [0, 1, 2]  # only the empty cluster went
    target, kept = merge_clusters(SCORES, 2)
    assert kept.tolist() == [0, 1]
    assert target[:3].tolist() == [0, 1, 1]


def test_sums_follow_the_merged_cluster():
    # 2 into 1 (loses 1), then {1, 2} into 0 would lose 75 and 0 into 1 would lose 80.
    target, kept = merge_clusters(SCORES[:3, :3], 1)
    assert kept.tolist() == [0]
    assert target.tolist() == [0, 0, 0]
    loss = SCORES[0, 0] - SCORES[0, 1]
    both = (SCORES[1, 1] + SCORES[2, 1]) - (SCORES[1, 0] + SCORES[2, 0])
    assert both < loss


def test_the_printed_rule_merges_the_worst_pair():
    target, _ = merge_clusters(SCORES[:3, :3], 2, "printed")
    assert target[0] == target[1]  # the smallest sum is -90: cluster 0 under policy 1


def test_nothing_to_merge():
    target, kept = merge_clusters(SCORES, 4)
    np.testing.assert_array_equal(target, np.arange(4))
    np.testing.assert_array_equal(kept, np.arange(4))


def test_clusters_out_of_use_take_no_part():
    """Policies out of use score well everywhere; merging (1 of 4 away) looks at the first three only."""
    scores = SCORES.at[:, 3].set(0.0)
    target, kept = merge_clusters(scores, 3, active=jnp.array([True, True, True, False]))
    assert target[:3].tolist() == [0, 1, 1]
    assert kept.tolist() == [0, 1, 0]  # two are left; the third is no one's
