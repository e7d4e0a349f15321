"""OTR against Sinkhorn's algorithm in NumPy float64, and against couplings that are seen by eye."""

import sys

import numpy as np
import pytest
from relabelling_data import some_data

from trajclust_jax.data import DataError, from_episodes, transitions
from trajclust_jax.relabelling import OTR, of_classes, of_demonstrations

needs_ott = pytest.mark.skipif("__import__('importlib.util').util.find_spec('ott') is None", reason="an extra")


def cosine(one, other):
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    return 1 - unit(one) @ unit(other).T


def sinkhorn(cost, epsilon, iterations=2000):
    """The coupling of uniform weights."""
    kernel = np.exp(-cost / epsilon)
    rows, columns = np.full(len(cost), 1 / len(cost)), np.full(len(cost.T), 1 / len(cost.T))
    left = np.ones(len(cost))
    for _ in range(iterations):
        right = columns / (kernel.T @ left)
        left = rows / (kernel @ right)
    return left[:, None] * kernel * right


@needs_ott
def test_rewards_are_sinkhorns():
    """Of two demonstrations, each episode is measured by the one that gives it more."""
    data, demonstrations = some_data(4), some_data(2, seed=5)
    otr = OTR(epsilon=0.5, iterations=2000)
    found = otr.relabel(of_demonstrations(data, demonstrations), (0, 1)).rewards
    assert found.shape[:2] == (2, 1)
    flat, shown = transitions(data), transitions(demonstrations)
    for n in range(4):
        own, rows = flat.trajectory == n, []
        for m in range(2):
            episode = np.asarray(flat.observations[own], np.float64)
            cost = cosine(episode, np.asarray(shown.observations[shown.trajectory == m], np.float64))
            shares = len(episode) * (sinkhorn(cost, 0.5) * cost).sum(1)
            rows.append(5 * np.exp(-5 / 3 * shares))
        np.testing.assert_allclose(found[0, 0, own], max(rows, key=np.sum), rtol=1e-3)


@needs_ott
def test_a_worked_example():
    """The same directions in another order cost nothing; opposite ones cost 2 each."""
    steps = lambda *points: np.array([*points, (0, 0)], np.float32)
    rewards, actions = np.zeros(2, np.float32), np.zeros((2, 1), np.float32)
    right, up = (1, 0), (0, 1)
    data = from_episodes(
        [
            (steps((0, 3), (2, 0)), actions, rewards, False),
            (steps((-1, 0), (0, -1)), actions, rewards, False),
            (steps(right, right), actions, rewards, False),
        ]
    )
    demonstration = from_episodes([(steps(right, up), actions, rewards, False)])
    found = OTR(by_size=False, beta=1.0).relabel(of_demonstrations(data, demonstration), (0,)).rewards[0, 0]
    # Opposite: each step goes to the other axis, at cost 1. Twice right: half of each goes right, half up.
    np.testing.assert_allclose(found, 5 * np.exp([0, 0, -1, -1, -0.5, -0.5]), rtol=1e-3)


@needs_ott
def test_single_steps_are_no_expert():
    data = some_data()
    classes = np.arange(len(transitions(data).rewards)) % 2
    with pytest.raises(DataError, match="aligns whole trajectories"):
        OTR().relabel(of_classes(data, classes, [0]), (0,))


def test_the_extra_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ott.solvers.linear", None)
    with pytest.raises(DataError, match=r"pip install 'trajclust-jax\[otr\]'"):
        OTR().relabel(of_demonstrations(some_data(), some_data(1, seed=5)), (0,))
