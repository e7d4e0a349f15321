"""Settings follow from the data alone, the same for Python and the commands."""

import dataclasses

import numpy as np
import pytest

from trajclust_experiments.catalogue import entries
from trajclust_jax.clustering import CAAE, PGKmeans, Sorl, suited_method
from trajclust_jax.clustering import suited as rule
from trajclust_jax.data import Codebook, Trajectories


def _data(t, discrete, coded=False):
    observations = np.zeros((3, t, 2), np.float32)
    final = observations[:, -1]
    if coded:
        table = np.zeros((1, 2), np.float32)
        observations, final = Codebook(table, np.zeros((3, t), np.int32)), Codebook(table, np.zeros(3, np.int32))
    return Trajectories(
        observations=observations,
        actions=np.zeros((3, t), np.int32) if discrete else np.zeros((3, t, 1), np.float32),
        rewards=np.zeros((3, t), np.float32),
        lengths=np.array([1, 2, t], np.int32),
        terminated=np.zeros(3, bool),
        final_observations=final,
        num_actions=2 if discrete else 0,
    )


def test_long_data_are_looked_at_in_part_but_counts_are_not():
    sampled = {"policy_settings": (("scored_steps", 100),)}
    assert rule.suited(PGKmeans, _data(200, True)) == sampled
    assert rule.suited(PGKmeans, _data(200, True, coded=True)) == {}
    assert rule.suited(PGKmeans, _data(200, False)).items() >= sampled.items()
    for discrete in (True, False):
        assert rule.suited(CAAE, _data(200, discrete))["window"] == 32
        assert rule.suited(PGKmeans, _data(200, discrete), "gru")["policy_settings"] == (("window", 32),)


def test_short_data_have_defaults_and_longer_m_steps_where_actions_are_continuous():
    assert rule.suited(PGKmeans, _data(199, True)) == {}
    assert rule.suited(CAAE, _data(100, False)) == {}
    assert rule.suited(CAAE, _data(101, False))["window"] == 32
    assert rule.suited(PGKmeans, _data(199, False))["steps"] > PGKmeans(2).steps
    assert rule.suited(Sorl, _data(199, False))["steps"] > Sorl(2).steps


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("t", [20, 300])
@pytest.mark.parametrize("name", entries("clusterer"))
def test_commands_and_python_have_the_same_settings(name, t, discrete):
    data, entry = _data(t, discrete), entries("clusterer")[name]
    built = entry.build(2, **entry.suited(data))
    assert isinstance(built, entry.algorithm)
    if name in ("pg_kmeans_mlp", "pg_kmeans_gru", "sorl", "caae", "dec", "vae_kmeans"):
        settings = {} if entry.policy is None else {"policy": entry.policy}
        assert dataclasses.asdict(suited_method(entry.algorithm, 2, data, **settings)) == dataclasses.asdict(built)
    if t == 300 and not discrete:
        assert entry.long_settings() == entry.suited(data)


def test_settings_given_override():
    assert suited_method(PGKmeans, 2, _data(300, False), iterations=3).iterations == 3
