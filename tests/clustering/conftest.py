"""Small data sets with known answers."""

import numpy as np
import pytest

from trajclust_jax.data import Codebook, Trajectories


@pytest.fixture
def dense():
    """The same trajectories with dense float32 observations."""

    def expand(trajectories):
        def flat(observations):
            return np.asarray(observations.table)[np.asarray(observations.ids)]

        return trajectories.replace(
            observations=flat(trajectories.observations), final_observations=flat(trajectories.final_observations)
        )

    return expand


@pytest.fixture
def random_data():
    """Trajectories of random length over `rows` one-hot observations, with random actions."""

    def make(n=30, t=9, rows=6, num_actions=4, seed=0, **_):
        rng = np.random.default_rng(seed)
        lengths = rng.integers(1, t + 1, n).astype(np.int32)
        return Trajectories(
            observations=Codebook(np.eye(rows, dtype=np.uint8), rng.integers(0, rows, (n, t)).astype(np.int32)),
            actions=rng.integers(0, num_actions, (n, t)).astype(np.int32),
            rewards=np.zeros((n, t), np.float32),
            lengths=lengths,
            terminated=np.ones(n, bool),
            final_observations=Codebook(np.eye(rows, dtype=np.uint8), np.zeros(n, np.int32)),
            num_actions=num_actions,
        )

    return make


@pytest.fixture
def conflict():
    """`(trajectories, labels)` of `k` policies that disagree on one of three observations and agree elsewhere."""

    def make(k=2, n=40, t=8, seed=0, share=None):
        rng = np.random.default_rng(seed)
        labels = rng.choice(k, n, p=share).astype(np.int32)
        ids = rng.integers(0, 3, (n, t)).astype(np.int32)
        ids[:, 0] = 2  # everyone passes the state of conflict
        actions = np.where(ids == 2, labels[:, None], ids).astype(np.int32)
        table = np.eye(3, dtype=np.uint8)
        trajectories = Trajectories(
            observations=Codebook(table, ids),
            actions=actions,
            rewards=np.zeros((n, t), np.float32),
            lengths=rng.integers(1, t + 1, n).astype(np.int32),
            terminated=np.ones(n, bool),
            final_observations=Codebook(table, np.zeros(n, np.int32)),
            num_actions=max(k, 3),
        )
        return trajectories, labels

    return make


@pytest.fixture
def opposed():
    """`(trajectories, labels)` of two Gaussian policies, one acting up where the other acts down."""

    def make(n=32, t=6, size=2, seed=0):
        rng = np.random.default_rng(seed)
        labels = np.arange(n) % 2
        observations = rng.normal(size=(n, t, size)).astype(np.float32)
        actions = observations[..., :1] * np.where(labels == 1, 1, -1)[:, None, None]
        trajectories = Trajectories(
            observations=observations,
            actions=(actions + 0.1 * rng.normal(size=actions.shape)).astype(np.float32),
            rewards=np.zeros((n, t), np.float32),
            lengths=np.full(n, t, np.int32),
            terminated=np.zeros(n, bool),
            final_observations=observations[:, -1],
        )
        return trajectories, labels

    return make
