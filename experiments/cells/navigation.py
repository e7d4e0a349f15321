"""Cells of the navigation task: which way trained policies take, and whether its choices are the best ones."""

import dataclasses
from typing import Any

import jax
import numpy as np

from trajclust_experiments.cells.cell import Job
from trajclust_experiments.cells.evaluation import returns_of, summarise
from trajclust_experiments.cells.learners import LearnerCell
from trajclust_jax.data import Dataset, returns
from trajclust_jax.evaluation import Episodes, gymnax_episodes
from trajclust_jax.lazy import lazy
from trajclust_jax.learners import EMPO, Offline, TrainedPolicy
from trajclust_jax.metrics import scores

envs = lazy("trajclust_envs")
navigation = lazy("trajclust_envs.navigation")

ENVIRONMENT = "Navigation-v0"
WRONG = 1.5  # a step that costs so much more than the best one: the wrong way costs 2, a step there and one back
POINTS = 64  # of an episode that a record keeps


@dataclasses.dataclass(frozen=True)
class NavigationCell(LearnerCell):
    """A learner on the navigation task, and what its policies do there: returns, routes, steps under penalty."""

    def build(self, action_size: int = 1) -> Offline:
        return dataclasses.replace(super().build(action_size), bounds=(navigation.SPEED,) * 2)

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        trajectories = dataset.trajectories
        offline = self.build(trajectories.action_size)
        with job.fitted(self, offline, trajectories, folder="learner") as (outcome, tracker):
            policy = jax.device_get(outcome.result)
            key = jax.random.fold_in(jax.random.key(0x6576), 0)
            episodes = gymnax_episodes(envs.make(ENVIRONMENT), offline.learner, policy, self.episodes, key)
            measured = walked(episodes)
            final = {name: values.mean(-1).tolist() for name, values in measured.items() if name != "routes"}
            if isinstance(offline.learner, EMPO):
                final |= of_clusters(offline, policy, dataset, episodes, self.episodes)
                bias = [entry["critic/bias"] for entry in outcome.history if "critic/bias" in entry]
                final["bias"] = (np.array(bias[-1]) / offline.reward_scale).tolist()
            for index, seed in enumerate(self.seeds):
                tracker.summary(seed, {f"final/{name}": values[index] for name, values in final.items()})
        found = returns(trajectories)
        behaviours = {
            name: float(found[dataset.labels == k].mean()) for k, name in enumerate(dataset.spec.policy_names)
        }
        return {
            "config": dataclasses.asdict(offline),
            **summarise(offline, outcome, None),
            "scores": final,
            "behaviours": behaviours,  # mean returns in the data
            "episode_returns": measured["return"].tolist(),  # [S, E]
            "routes": measured["routes"].tolist(),  # [S, E]
            "paths": [
                [_thinned(path, length) for path, length in zip(*seed, strict=True)]
                for seed in zip(episodes.observations, episodes.lengths, strict=True)
            ],  # [S, E]
            "history": outcome.history,
        }


def walked(episodes: Episodes) -> dict[str, np.ndarray]:
    """`[S, E]` each: return, whether the goal was reached, steps in the penalty area, the route's name, and whether it
    is the short one."""
    shape = episodes.lengths.shape
    flat = episodes.observations.reshape(-1, *episodes.observations.shape[2:])
    names = envs.routes(flat, episodes.lengths.ravel() + 1).reshape(shape)
    return {
        "return": episodes.rewards.sum(-1, dtype=np.float64),
        "reached": (names != "lost").astype(float),
        "penalty_steps": (episodes.rewards < -1.5).sum(-1).astype(float),
        "short": (names == "short").astype(float),
        "routes": names,
    }


def of_clusters(
    offline: Offline, policy: TrainedPolicy, dataset: Dataset, episodes: Episodes, count: int
) -> dict[str, list[float]]:
    """Of each seed: the clusters' Rand index, the share of steps at which the high level follows a behaviour that costs
    no more than the best one, and the return where it may choose clusters that have never been at a state."""
    learner = offline.learner
    free = dataclasses.replace(learner, restriction=float("inf"))
    unrestricted = returns_of(free, ENVIRONMENT, policy, count, 0)
    subgoals = dataset.provenance.parameters.get("subgoals", navigation.SUBGOALS)
    ways = envs.Ways(tuple(tuple(map(tuple, points)) for points in subgoals))
    rand, agreed = [], []
    for seed in range(len(policy.scaling.mean)):
        one = jax.tree.map(lambda x, seed=seed: x[seed], policy)
        clusters = np.asarray(learner.assignments(one.actor))
        rand.append(scores(dataset.labels, clusters)["ri"])
        behaviour = _behaviour_of(dataset.labels, clusters, learner.k)
        agreed.append(_agreement(offline, one, behaviour, ways, episodes.observations[seed], episodes.lengths[seed]))
    return {"ri": rand, "agreement": agreed, "unrestricted_return": unrestricted.mean(-1).tolist()}


def _behaviour_of(labels: np.ndarray, clusters: np.ndarray, num_clusters: int) -> np.ndarray:
    """`[K]`: the behaviour of most of each cluster's trajectories; -1 for an empty one."""
    table = np.zeros((int(labels.max()) + 1, num_clusters), np.int64)
    np.add.at(table, (labels, clusters), 1)
    return np.where(table.sum(0) > 0, table.argmax(0), -1)


def _agreement(offline, policy, behaviour, ways, observations, lengths) -> float:
    """At the steps of episodes `[E, T + 1, 2]` where more than one behaviour has been; 1 where there are none."""
    visited = np.concatenate([path[:length] for path, length in zip(observations, lengths, strict=True)])
    following = ways.following(visited)
    choice = np.isfinite(following).sum(1) > 1
    if not choice.any():
        return 1.0
    chosen = offline.learner.chosen(policy.actor, policy.scaling.observations(visited[choice]))
    taken = behaviour[np.asarray(chosen)]
    costs = np.where(taken < 0, np.inf, following[choice, taken])
    return float((costs < following[choice].min(1) + WRONG).mean())


def _thinned(path: np.ndarray, length: int) -> list[list[float]]:
    """At most POINTS places of an episode, the first and the last among them."""
    rows = np.unique(np.linspace(0, length, POINTS).round().astype(int))
    return path[rows].astype(float).round(1).tolist()
