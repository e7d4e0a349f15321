"""Online training on MuJoCo: snapshots, resume, bad settings."""

import numpy as np
import pytest

from trajclust_jax.learners import SAC
from trajclust_jax.learners.online import Online, snapshot_policy, train_online

AGENT = SAC(3, batch_size=16, features=(16, 16), actor_features=(16,))
SETTINGS = Online(
    steps=1200,
    random_steps=400,
    copies=4,
    block=100,
    capacity=1000,
    evaluate_every=300,
    episodes=2,
    checkpoint_every=300,
)


def test_a_killed_training_goes_on(tmp_path):
    seen = []

    def stop(snapshot):
        seen.append(snapshot)
        if snapshot.step == 900:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train_online("hopper", AGENT, SETTINGS, 0, tmp_path, stop)
    snapshots = train_online("hopper", AGENT, SETTINGS, 0, tmp_path, seen.append)
    assert [snapshot.step for snapshot in snapshots] == [300, 600, 900, 1200]
    assert snapshots[:2] == seen[:2]  # not trained again
    assert (tmp_path / "curve.csv").read_text().count("\n") == 5
    observations = np.random.default_rng(0).normal(size=(4, 11)).astype(np.float32)
    first, last = (snapshot_policy(tmp_path, step).mode(observations) for step in (300, 1200))
    assert np.abs(first - last).max() > 1e-3  # it learned something
    assert train_online("hopper", AGENT, SETTINGS, 0, tmp_path, seen.append) == snapshots  # complete: nothing to do


def test_settings_that_do_not_fit():
    with pytest.raises(ValueError, match="multiple of 3 copies"):
        train_online("hopper", AGENT, Online(copies=3), 0, None, print)
