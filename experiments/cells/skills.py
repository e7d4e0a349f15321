"""Cells of skills: each part of a reward-free dataset is an expert by itself, and a learner follows each.

Parts are classes of single transitions by k-means (CLUE, appendix 8.3), or the trajectories of a clustering's clusters.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trajclust_experiments.cells.cell import Cell, Job
from trajclust_experiments.cells.evaluation import action_bounds
from trajclust_experiments.cells.learners import CLUSTER_SEED
from trajclust_experiments.cells.methods import MethodCell
from trajclust_experiments.cells.relabelling import RelabelledCell
from trajclust_jax.data import REGISTRY, Dataset, Trajectories, dense, transitions
from trajclust_jax.data.d4rl import ENVIRONMENTS
from trajclust_jax.evaluation import act, gymnax_episodes
from trajclust_jax.lazy import lazy
from trajclust_jax.learners import IQL, Clustered, TrainedPolicy
from trajclust_jax.metrics import policy_divergences, state_distances
from trajclust_jax.relabelling import ExpertData, of_classes, of_clusters, rewarded_copies

envs = lazy("trajclust_envs")
mujoco = lazy("trajclust_envs.mujoco")

TRANSITIONS = "transitions"
CLASSES = 100  # of transitions: appendix 8.3, as what follows
KMEANS = {"random_state": 1, "n_init": 1, "max_iter": 300}
STATES = 2_000  # of each skill's, that policies and visits are compared on
DRAWN = 200  # of an episode's steps that a record keeps


@dataclasses.dataclass(frozen=True)
class SkillCell(RelabelledCell):
    """CLUE and IQL for several experts, all in one program; `clusters` is `transitions` or a clusterer's name.

    Of the classes of transitions so many as `skills`: the largest one, then always the one whose centre is farthest
    from those that are chosen. Of a clusterer as many clusters.
    """

    clusters: str = TRANSITIONS
    skills: int = 6
    episodes: int = 3

    @property
    def title(self) -> str:
        return f"skills of {self.dataset} by {self.clusters}"

    def clustering(self) -> MethodCell:
        settings = tuple(sorted({**dict(self.cluster_settings), "num_clusters": self.skills}.items()))
        return MethodCell(self.dataset, self.size, self.clusters, (CLUSTER_SEED,), settings, self.data_seed)

    def needs(self) -> tuple[Cell, ...]:
        return () if self.clusters == TRANSITIONS else (self.clustering(),)

    def essential(self) -> dict[str, Any]:
        plain = dataclasses.replace(self, clusters=None)
        described = super(SkillCell, plain).essential()
        described |= {"kind": "skills", "clusters": self.clusters, "skills": self.skills}
        if self.clusters != TRANSITIONS:
            described["clustering"] = self.clustering().essential()
        return described

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        environment = REGISTRY[self.dataset].environment
        data = self._parts(dataset, job)
        found = self.relabelled(data, job)
        offline = self.build(dataset.trajectories.action_size)
        offline = dataclasses.replace(offline, bounds=action_bounds(dataset, environment))
        copies, whose = rewarded_copies(self.build_relabeller(), data, found.rewards[0])
        with job.fitted(self, offline, Clustered(copies, whose, len(data.experts)), folder="learner") as (outcome, _):
            policy = jax.tree.map(lambda x: x[0], jax.device_get(outcome.result))  # [E, ...]
        visited, episode_returns, paths = walked(environment, offline.learner, policy, self.episodes)
        scale = np.asarray(policy.scaling.std)[0]
        distances = state_distances([(states / scale)[:STATES] for states in visited])
        kl = policy_divergences(*_gaussians(offline.learner, policy, visited))
        return {
            "scores": {"distance": [_off_diagonal(distances)], "kl": [_off_diagonal(kl)]},
            "config": dataclasses.asdict(offline),
            "distances": distances.tolist(),  # [E, E]
            "divergences": kl.tolist(),  # [E, E]
            "returns": episode_returns.tolist(),  # [E, N]
            "sizes": [len(steps) for steps in data.experts],
            "paths": paths,
            "history": [*found.outcome.history, *outcome.history],
            "timing": outcome.timing | {"relabelling_seconds": found.outcome.run_seconds},
        }

    def _parts(self, dataset: Dataset, job: Job) -> ExpertData:
        trajectories = dataset.trajectories
        if self.clusters == TRANSITIONS:
            classes, centres = classes_of(trajectories)
            return of_classes(trajectories, classes, spread_out(classes, centres, self.skills))
        assignments = job.needed[self.clustering()].arrays["assignments"][0]
        return of_clusters(trajectories, assignments, np.unique(assignments).tolist())


def classes_of(trajectories: Trajectories, count: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """The class of each transition `[P]` and the classes' centres: k-means on (s, a, s'), columns standardised."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    flat = transitions(trajectories)
    columns = [np.asarray(dense(each), np.float32) for each in (flat.observations, flat.next_observations)]
    points = np.concatenate([columns[0], np.asarray(flat.actions, np.float32), columns[1]], axis=1)
    points = (points - points.mean(0)) / (points.std(0) + 1e-6)
    with threadpool_limits(1):  # sums over several threads differ in their last bits
        found = KMeans(min(count, len(points)), **KMEANS).fit(points)
    return found.labels_, found.cluster_centers_


def spread_out(classes: np.ndarray, centres: np.ndarray, count: int) -> list[int]:
    """So many classes, far from each other: the largest, then always the farthest from those chosen."""
    chosen = [int(np.bincount(classes, minlength=len(centres)).argmax())]
    while len(chosen) < min(count, len(centres)):
        apart = np.linalg.norm(centres[:, None] - centres[chosen], axis=-1).min(1)
        chosen.append(int(apart.argmax()))
    return chosen


def walked(
    environment: str, learner: Any, policy: TrainedPolicy, episodes: int
) -> tuple[list[np.ndarray], np.ndarray, list]:
    """States that each of E policies visits `[n, D]`, returns `[E, N]`, and a thinned episode of each to draw."""
    count = policy.scaling.mean.shape[0]
    if environment in envs.ENVIRONMENTS:
        key = jax.random.fold_in(jax.random.key(0x6576), 0)
        found = gymnax_episodes(envs.make(environment), learner, policy, episodes, key)
        each = lambda e: [found.observations[e, n, : found.lengths[e, n] + 1] for n in range(episodes)]
        runs = [each(e) for e in range(count)]
        totals = found.rewards.sum(-1)
    else:
        task = next(task for task, name in ENVIRONMENTS.items() if name == environment)
        acting = lambda observations, normal: np.asarray(
            act(learner, policy, observations.reshape(count, -1, observations.shape[-1]))
        ).reshape(normal.shape)
        numbers = list(range(episodes)) * count
        flat = list(mujoco.run_episodes(task, acting, numbers, 10**6, copies=len(numbers)))
        runs = [[each.observations for each in flat[e * episodes : (e + 1) * episodes]] for e in range(count)]
        totals = np.reshape([each.rewards.sum(dtype=np.float64) for each in flat], (count, episodes))
    paths = []
    for run in runs:
        rows = np.unique(np.linspace(0, len(run[0]) - 1, DRAWN).round().astype(int))
        paths.append({"steps": rows.tolist(), "states": np.round(run[0][rows].astype(float), 3).tolist()})
    rng = np.random.default_rng(0)
    states = [np.concatenate(run) for run in runs]
    return [each[rng.permutation(len(each))] for each in states], np.asarray(totals), paths


def _gaussians(learner: IQL, policy: TrainedPolicy, visited: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Means `[E, E, n, A]` of policy j at the states of i, and stds `[E, A]`."""
    size = min(STATES, *map(len, visited))
    scaled = np.stack([np.asarray(policy.scaling.observations(states[None, :size]))[0] for states in visited])

    @jax.jit
    def of_policy(actor):
        distribution = learner.actor.apply(actor, jnp.asarray(scaled)).distribution
        return distribution.loc, distribution.scale

    means, stds = jax.lax.map(of_policy, policy.actor)  # [j, i, n, A]
    return np.swapaxes(np.asarray(means), 0, 1), np.asarray(stds)[:, 0, 0]


def _off_diagonal(matrix: np.ndarray) -> float:
    return float(matrix[~np.eye(len(matrix), dtype=bool)].mean())
