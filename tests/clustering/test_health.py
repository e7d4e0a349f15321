"""A bad run is recognised without the truth."""

import numpy as np
import pytest

from trajclust_jax.clustering.health import diagnose
from trajclust_jax.clustering.types import lone


def _run(latents, assignments, k=2, objective=0.0):
    one_hot = np.eye(k)[assignments]
    return lone(np.asarray(assignments), one_hot, np.float32(objective), None, latents=latents)


GROUPS = np.random.default_rng(0).normal(size=(40, 3)) * 0.1 + 5 * (np.arange(40) % 2)[:, None]


def test_a_good_run():
    health, warnings = diagnose(_run(GROUPS, np.arange(40) % 2))
    assert warnings == []
    assert health["used_clusters"] == 2
    assert health["silhouette"] > 0.9
    assert health["spread"] == pytest.approx(GROUPS.var(0).sum())


@pytest.mark.parametrize(
    ("latents", "assignments", "objective", "words"),
    [
        (GROUPS, np.zeros(40, int), 0, ["1 of 2 clusters"]),
        (GROUPS * 1e-3, np.arange(40) % 2, 0, ["one point"]),
        (np.zeros((40, 3)), np.zeros(40, int), 0, ["1 of 2 clusters", "one point"]),
        (np.random.default_rng(1).normal(size=(40, 3)), np.arange(40) % 2, 0, ["no clear groups"]),
        (np.full((40, 3), np.nan), np.zeros(40, int), np.nan, ["diverged", "1 of 2"]),
        (None, np.zeros(40, int), 0, ["1 of 2 clusters"]),
        (None, np.arange(40) % 2, np.inf, ["diverged"]),
    ],
)
def test_bad_runs(latents, assignments, objective, words):
    _, warnings = diagnose(_run(latents, assignments, objective=objective))
    assert len(warnings) == len(words), warnings
    assert all(any(word in warning for warning in warnings) for word in words), warnings


def test_policies_that_are_alike():
    """Are told, and what is apart has groups, however its latents are scattered."""
    scattered = np.random.default_rng(1).normal(size=(40, 3))
    for latents in (GROUPS, scattered):
        health, warnings = diagnose(_run(latents, np.arange(40) % 2).replace(separation=np.float32(2.0)))
        assert (health["separation"], warnings) == (2.0, [])
        _, warnings = diagnose(_run(latents, np.arange(40) % 2).replace(separation=np.float32(0.016)))
        assert warnings[-1:] == [
            "collapsed: a trajectory is 0.016 nats a step likelier by its cluster's policy than by the others', which "
            "are nearly alike"
        ]
    health, warnings = diagnose(_run(GROUPS, np.zeros(40, int)).replace(separation=np.float32(np.nan)))
    assert (health["separation"], warnings) == (None, ["1 of 2 clusters are used"])


def test_the_silhouettes_sample_is_fixed():
    latents = np.random.default_rng(2).normal(size=(2500, 2)) + 8 * (np.arange(2500) % 2)[:, None]
    runs = [diagnose(_run(latents, np.arange(2500) % 2))[0]["silhouette"] for _ in range(2)]
    assert runs[0] == runs[1] > 0.7
