"""Cells of the navigation task: what their records say of ways, and of the high level's choices."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from trajclust_envs import Ways
from trajclust_envs.navigation import SUBGOALS
from trajclust_experiments.cells import navigation
from trajclust_experiments.cells.navigation import NavigationCell, of_clusters, walked
from trajclust_experiments.cells.runner import run_cells
from trajclust_experiments.papers.empo import figure1, stitching, table5
from trajclust_experiments.tables import get_table
from trajclust_jax.data import make
from trajclust_jax.evaluation import Episodes
from trajclust_jax.learners import EMPO, Offline, Scaling, TrainedPolicy
from trajclust_jax.records import Results

TINY = {
    **dict.fromkeys(("actor_features", "features"), (8,)),
    **dict.fromkeys(("critic_updates", "value_updates", "updates"), 20),
    **{"bias_epochs": 1, "pretrain_epochs": 1, "em_epochs": 1, "epochs": 1, "batch_size": 8, "block": 10, "k": 2},
}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    cell = NavigationCell("navigation", 500, "empo", (0, 1), tuple(sorted(TINY.items())), episodes=3)
    (record,) = run_cells([cell], Results(tmp_path_factory.mktemp("results")), preset="smoke")
    return record


@pytest.mark.slow
def test_a_record_has_the_ways(record):
    assert record["config"]["bounds"] == [0.2, 0.2], "the environment's, whatever the data have"
    names = ("return", "reached", "penalty_steps", "short", "ri", "agreement", "unrestricted_return", "bias")
    assert all(len(record["scores"][name]) == 2 for name in names)
    assert np.shape(record["episode_returns"]) == np.shape(record["routes"]) == (2, 3)
    assert record["scores"]["return"] == pytest.approx(np.mean(record["episode_returns"], 1).tolist())
    assert np.shape(record["paths"])[:2] == (2, 3)
    assert record["behaviours"]["behaviour 1"] > record["behaviours"]["behaviour 0"]
    assert json.loads(json.dumps(record)) == record
    text, figures = get_table("empo/table1").render([record])
    assert "EMPO, K = 2" in text
    assert "costs 299" in text
    assert list(figures) == ["returns"]
    for name in ("figure3", "figure5", "ablations"):
        assert "| " in get_table(f"empo/{name}").render([record])[0]


def _walk(*corners):
    """Positions at full speed, and rewards as the task has them but for the penalty."""
    points = [np.zeros(2)]
    for corner in corners:
        while np.abs(np.array(corner) - points[-1]).max() > 1e-6:
            points.append(points[-1] + np.clip(np.array(corner) - points[-1], -0.2, 0.2))
    return np.array(points, np.float32)


def test_ways_by_hand():
    """The short way, and one through the penalty area that the limit cuts."""
    ways = [_walk((10, 0), (10, 15), (20, 15), (20, 30), (30, 30)), _walk((20, 0))]
    observations = np.zeros((1, 2, 301, 2), np.float32)
    rewards = np.zeros((1, 2, 300), np.float32)
    for row, way in enumerate(ways):
        observations[0, row, : len(way)] = way
        rewards[0, row, : len(way) - 1] = np.where(way[1:, 0] >= 15 - 1e-4, -1 - (way[1:, 1] < 10), -1)
    rewards[0, 0, 299] = 0
    found = walked(Episodes(observations, rewards, np.array([[300, 100]])))
    assert found["routes"].tolist() == [["short", "lost"]]
    assert found["return"].tolist() == [[-299, -126]]
    assert found["penalty_steps"].tolist() == [[0, 26]]
    assert found["reached"].tolist() == [[1, 0]]


@pytest.mark.parametrize(("right", "agreement"), [(True, 1.0), (False, 0.0)])
def test_agreement_with_the_shortest_path(right, agreement, monkeypatch):
    """On x = 10 behaviour 1 is right, on x = 20 behaviour 0; clusters are numbered the other way round."""
    dataset = make("navigation", 500)
    learner = EMPO(2, k=2)
    policy = TrainedPolicy(
        {"clusters": jnp.asarray(1 - dataset.labels)[None]},
        Scaling(jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.full((1, 2), 0.2)),
    )
    on_the_first = lambda observations: jnp.where((observations[:, 0] < 15) == right, 0, 1)
    monkeypatch.setattr(EMPO, "chosen", lambda self, actor, observations: on_the_first(observations))
    monkeypatch.setattr(navigation, "returns_of", lambda learner, *given: np.array([[-learner.restriction]]))
    way = np.concatenate([_walk((10, 0), (10, 15))[60:], _walk((20, 0), (20, 15))[110:]])
    episodes = Episodes(way[None, None], np.zeros((1, 1, len(way) - 1)), np.array([[len(way)]]))
    found = of_clusters(Offline(learner), policy, dataset, episodes, 1)
    assert found == {"ri": [1.0], "agreement": [agreement], "unrestricted_return": [-np.inf]}


def test_the_share_of_a_gain():
    best = Ways(SUBGOALS).best
    record = {
        "data": {"parameters": {"subgoals": [[list(point) for point in points] for points in SUBGOALS]}},
        "behaviours": {"behaviour 0": -844.0, "behaviour 1": -752.0},
        "scores": {"return": [-752.0, best, (best - 752) / 2, -1000.0]},
    }
    np.testing.assert_allclose(stitching.gain(record), [0, 1, 0.5, -248 / (752 + best)])


def test_disagreement_by_hand():
    """Two squares that both pass: one the same way, one at a right angle; a third that one alone passes."""
    paths = [[[0.2, 0.5], [0.8, 0.5]], [[1.2, 0.5], [1.8, 0.5]], [[2.2, 0.5], [2.8, 0.5]]]
    others = [[[0.3, 0.4], [0.7, 0.4]], [[1.5, 0.1], [1.5, 0.9]]]
    found = figure1.disagreement([*paths, *others], [0, 0, 0, 1, 1])
    assert found == {(0, 0): pytest.approx(1), (1, 0): pytest.approx(0, abs=1e-9)}


def test_a_grids_lines_have_the_papers_numbers():
    settings = [(b, p, mu) for b in (0, 3) for p in (0, 20) for mu in (0.0, 0.9)]
    grid = [
        {"setting": dict(zip(("bias_epochs", "pretrain_epochs", "momentum"), each, strict=True)), "ri": [1.0, 0.5]}
        for each in settings
    ]
    cell = {"dataset": "walker2d-medium-expert", "method": "empo_grid"}
    lines = table5.lines([{"cell": cell, "grid": grid}])
    assert [line.setting for line in lines] == sorted((mu, p, b) for b, p, mu in settings)
    assert [table5.published(line)[0] for line in lines] == [77.07, 91.85, 96.58, 95.16, 98.42, 98.71, 99.89, 99.93]
    assert lines[0].rand.tolist() == [100, 50]
