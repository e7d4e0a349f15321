"""Cells that train or evaluate policies: a learner on a dataset, the policies of a clustering's centres."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trajclust_experiments.catalogue import learner_entry, revisions
from trajclust_experiments.cells.cell import Cell, Job, changed
from trajclust_experiments.cells.evaluation import best_cluster, evaluator, normaliser, returns_of, summarise
from trajclust_experiments.cells.methods import MethodCell
from trajclust_jax.clustering import Clustering, PGKmeans
from trajclust_jax.data import REGISTRY, Dataset, reduced, returns
from trajclust_jax.data.transforms import ActionScaling
from trajclust_jax.learners import Clustered, Offline, Scaling, TrainedPolicy
from trajclust_jax.metrics import scores
from trajclust_jax.networks import PolicyNetwork

# What a learner's cell says of itself only where it has it: a cell without is another one.
OPTIONAL = frozenset({"plugin", "transitions", "draw", "measures"})
CLUSTER_SEED = 0  # of a clustering that learners learn from


@dataclasses.dataclass(frozen=True)
class LearnerCell(Cell):
    """A learner on a registered dataset, evaluated where the data is from; `method` is its name in the catalogue.

    `settings` override the entry's. With `clusters`, a clustering method (and all its `cluster_settings`), it learns
    from that of the k* clusters found whose trajectories have the highest mean return. With `plugin` it is changed by
    that; with `transitions` it learns from so many, whole trajectories `draw`n.
    """

    clusters: str | None = None
    cluster_settings: tuple[tuple[str, Any], ...] = ()
    episodes: int = 10
    evaluate_every: int = 10_000
    plugin: str | None = None
    transitions: int = 0  # 0: all of them
    draw: int = 0

    @property
    def title(self) -> str:
        plugged = f" + {self.plugin}" if self.plugin else ""
        reduced = f" of {self.transitions} transitions" if self.transitions else ""
        return super().title + plugged + reduced + (f" on {self.clusters}'s best cluster" if self.clusters else "")

    def load(self) -> tuple[Dataset, float]:
        dataset, seconds = super().load()
        return (reduced(dataset, self.transitions, self.draw) if self.transitions else dataset), seconds

    def build(self, action_size: int = 1) -> Offline:
        entry = learner_entry(self.method, self.plugin)
        return entry.build(action_size, **{**entry.suited(REGISTRY[self.dataset].environment), **dict(self.settings)})

    def hyperparameters(self) -> set[str]:
        return learner_entry(self.method, self.plugin).names()

    def clustering(self) -> MethodCell:
        """The cell whose clusters it learns from."""
        assert self.clusters is not None
        return MethodCell(
            self.dataset, self.size, self.clusters, (CLUSTER_SEED,), self.cluster_settings, self.data_seed
        )

    def needs(self) -> tuple[Cell, ...]:
        return () if self.clusters is None else (self.clustering(),)

    def essential(self) -> dict[str, Any]:
        offline = self.build()
        chosen = changed(dataclasses.asdict(offline), Offline) | changed(
            dataclasses.asdict(offline.learner), type(offline.learner)
        )
        described = {
            **self.place(),
            **{name: getattr(self, name) for name in ("clusters", "episodes", "evaluate_every")},
            "version": [offline.VERSION, offline.learner.VERSION],
            "settings": {name: value for name, value in chosen.items() if name not in ("learner", "action_size")},
        }
        if self.plugin is not None:
            described["plugin"] = {"name": self.plugin, "revisions": revisions(self.plugin)}
        if self.transitions:
            described |= {"transitions": self.transitions, "draw": self.draw}
        if self.clusters is not None:
            found = self.clustering().essential()
            names = ("version", "actions_version", "hyperparameters")
            described["clustering"] = {name: found[name] for name in names if name in found}
            described["clustering"]["seed"] = CLUSTER_SEED
        return described

    def named(self, scores: dict[str, Any]) -> dict[str, list[float]]:
        """A fit's scores as a record has them, `[S]` each."""
        return {name: np.ravel(values).tolist() for name, values in scores.items()}

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        trajectories, environment = dataset.trajectories, REGISTRY[self.dataset].environment
        offline = self.build(trajectories.action_size)
        body: dict[str, Any] = {"policies": of_policies(dataset, environment), "config": dataclasses.asdict(offline)}
        data, found = trajectories, None
        if self.clusters is not None:
            found = job.needed[self.clustering()]
            assignments = found.arrays["assignments"][0]
            best = best_cluster(assignments, returns(trajectories))
            data = Clustered(trajectories, np.where(assignments == best, 0, -1), 1)
            body["clustering"] = scores(dataset.labels, assignments) | {"size": int((assignments == best).sum())}
        evaluate = evaluator(offline, environment, self.episodes, self.evaluate_every)
        with job.fitted(self, offline, data, folder="learner", evaluate=evaluate) as (outcome, tracker):
            body |= summarise(offline, outcome, environment)
            if found is not None:
                for part in ("run_seconds", "compile_seconds"):
                    body["timing"][part] += found.record["timing"][part]
            body["scores"] = self.named(body["scores"])
            for index, seed in enumerate(self.seeds):
                tracker.summary(seed, {f"final/{name}": values[index] for name, values in body["scores"].items()})
        return {**body, "history": outcome.history}


@dataclasses.dataclass(frozen=True)
class SweptCell(LearnerCell):
    """A learner with several values of a setting side by side, in one program; scores are named by value."""

    swept: str = ""
    values: tuple[float, ...] = ()

    @property
    def title(self) -> str:
        return f"{super().title} over {self.swept}"

    def build(self, action_size: int = 1) -> Offline:
        return dataclasses.replace(super().build(action_size), sweep=((self.swept, self.values),))

    def named(self, scores: dict[str, Any]) -> dict[str, list[float]]:
        by_value = {name: np.array(values, float).T for name, values in scores.items()}  # [V, S]
        return {
            f"{name} {value:g}": of_seeds.tolist()
            for name, each in by_value.items()
            for value, of_seeds in zip(self.values, each, strict=True)
        }


@dataclasses.dataclass(frozen=True)
class Centres:
    """Acts by the policies of PG-Kmeans' clusters, as they are, without another training."""

    columns: tuple[int, ...]  # of an observation: a network's inputs
    clip: float
    varying: tuple[int, ...]  # of an action: what a network models, and how: see `ActionScaling`
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def act(self, actor: Any, observations: jax.Array) -> jax.Array:
        inputs = jnp.clip(observations[..., jnp.array(self.columns)], -self.clip, self.clip)
        policy = PolicyNetwork(len(self.varying), discrete=False).apply(actor, inputs)
        scaling = ActionScaling(*(np.array(field) for field in (self.varying, self.shift, self.scale)))
        return jnp.clip(scaling.undo(policy.distribution.loc), -1, 1)


@dataclasses.dataclass(frozen=True)
class CentreCell(MethodCell):
    """PG-Kmeans, and the returns of its centres' policies; `method` is of the kind `centres`."""

    episodes: int = 10

    def essential(self) -> dict[str, Any]:
        return {**super().essential(), "episodes": self.episodes}

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        return {**super().identity(dataset), "episodes": self.episodes}

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        trajectories, environment = dataset.trajectories, REGISTRY[self.dataset].environment
        episode_returns = returns(trajectories)
        with job.fitted(self, self.build(), trajectories) as (outcome, tracker):
            clustering = jax.device_get(outcome.result)
            policies, learner = centre_policies(self.build(), dataset, clustering)
            episodes = returns_of(learner, environment, policies, self.episodes, 0)
            means = episodes.mean(-1)  # [S, K]
            found = [np.asarray(each) for each in clustering.assignments]
            filled = np.stack([[(each == k).any() for k in range(means.shape[1])] for each in found])
            chosen = np.array([best_cluster(each, episode_returns) for each in found])
            results = {
                "best_return": np.where(filled, means, -np.inf).max(1),
                "chosen_return": means[np.arange(len(means)), chosen],
            }
            results |= {f"{name[:-7]}_score": normaliser(environment)(values) for name, values in results.items()}
            results["nmi"] = np.array([scores(dataset.labels, each)["nmi"] for each in found])
            final = {name: values.tolist() for name, values in results.items()}
            for index, seed in enumerate(self.seeds):
                tracker.summary(seed, {f"final/{name}": values[index] for name, values in final.items()})
        return {
            "scores": final,
            "policies": of_policies(dataset, environment),
            "centre_scores": normaliser(environment)(means).tolist(),
            "centre_returns": episodes.tolist(),  # [S, K, E]
            "cluster_returns": [
                episode_returns[found[0] == k].tolist() for k in range(means.shape[1])
            ],  # of the first seed
            "timing": {
                "run_seconds": outcome.run_seconds,
                "compile_seconds": outcome.compile_seconds,
                "resumed": outcome.resumed,
            },
        }


def of_policies(dataset: Dataset, environment: str) -> dict[str, float]:
    """The normalised score of each true policy's trajectories: what a learner is measured by."""
    normalised = normaliser(environment)(returns(dataset.trajectories))
    return {
        name: float(normalised[dataset.labels == label].mean()) for label, name in enumerate(dataset.spec.policy_names)
    }


def centre_policies(method: PGKmeans, dataset: Dataset, clustering: Clustering) -> tuple[TrainedPolicy, Centres]:
    """The centres' networks `[S, K]` with the inputs they were trained on."""
    trajectories = dataset.trajectories
    fitted, size = method.preprocessing(trajectories), int(np.prod(trajectories.observation_shape))
    inputs, actions = fitted.inputs, fitted.actions
    mean, std = np.zeros(size, np.float32), np.ones(size, np.float32)
    mean[inputs.columns], std[inputs.columns] = inputs.shift, inputs.scale
    axes = jax.tree.leaves(clustering.params)[0].shape[:2]
    every = lambda x: jnp.broadcast_to(x, (*axes, *x.shape))
    scaling = Scaling(every(mean), every(std), every(np.ones(trajectories.action_size, np.float32)))
    learner = Centres(
        columns=tuple(inputs.columns.tolist()),
        clip=float(inputs.clip),
        varying=tuple(actions.columns.tolist()),
        shift=tuple(actions.shift.tolist()),
        scale=tuple(actions.scale.tolist()),
    )
    return TrainedPolicy(clustering.params, scaling), learner
