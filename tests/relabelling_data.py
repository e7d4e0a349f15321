"""Small data for tests of relabelling."""

import numpy as np

from trajclust_jax.data import from_episodes

D, A = 3, 2


def some_data(count=6, seed=0):
    """Two policies in turn, whose actions differ by a sign."""
    rng = np.random.default_rng(seed)
    episodes = []
    for n in range(count):
        length = int(rng.integers(3, 9))
        observations = rng.standard_normal((length + 1, D)).astype(np.float32)
        actions = (1 - 2 * (n % 2)) * np.tanh(observations[:-1, :A]) + 0.05 * rng.standard_normal((length, A))
        episodes.append((observations, actions.astype(np.float32), rng.standard_normal(length), False))
    return from_episodes(episodes)
