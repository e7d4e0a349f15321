"""Cells of learners on the data of several policies: returns relative to the data's, and what is found of the policies.

LBRAC-v's settings may be swept (K in one program), its clusters be given, and its embeddings be drawn.
"""

import dataclasses
from typing import Any

import numpy as np

from trajclust_experiments.cells.cell import Job
from trajclust_experiments.cells.evaluation import evaluator, summarise
from trajclust_experiments.cells.learners import CLUSTER_SEED, LearnerCell, of_policies
from trajclust_experiments.cells.methods import MethodCell, fitted_body
from trajclust_jax.data import REGISTRY, Dataset, returns
from trajclust_jax.learners import LBRACv
from trajclust_jax.metrics import batch_scores

LABELS = "labels"  # the true ones, given to a learner: a ceiling


@dataclasses.dataclass(frozen=True)
class HeterogeneousCell(LearnerCell):
    """A learner on the data of several policies.

    `clusters`, a clustering method or `LABELS`, are given to LBRAC-v in place of those that it finds. A `sweep` among
    the settings gives every score an axis after that of seeds.
    """

    @property
    def title(self) -> str:
        own = dataclasses.replace(self, clusters=None)
        return super(HeterogeneousCell, own).title + (f" on {self.clusters} as clusters" if self.clusters else "")

    def needs(self) -> tuple[MethodCell, ...]:
        return () if self.clusters in (None, LABELS) else (self.clustering(),)

    def essential(self) -> dict[str, Any]:
        others = "relative"  # scores that a `LearnerCell` of the same learner has not: its record is another one
        if self.clusters != LABELS:
            return {**super().essential(), "scores": others}
        return {**dataclasses.replace(self, clusters=None).essential(), "clusters": LABELS}

    def given(self, dataset: Dataset, job: Job) -> np.ndarray:
        """`[N]`: the clusters given."""
        if self.clusters == LABELS:
            return np.asarray(dataset.labels)
        return np.asarray(job.needed[self.clustering()].arrays["assignments"][0])

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        trajectories, environment = dataset.trajectories, REGISTRY[self.dataset].environment
        offline, body = self.build(trajectories.action_size), {}
        config = dataclasses.asdict(offline)
        if self.clusters is not None:
            given = self.given(dataset, job)
            body["clustering"] = scored(dataset.labels, given) | {"seed": CLUSTER_SEED}
            learner = dataclasses.replace(offline.learner, k=int(given.max()) + 1, given=tuple(given.tolist()))
            offline = dataclasses.replace(offline, learner=learner)
        worth = of_policies(dataset, environment)
        evaluate = evaluator(offline, environment, self.episodes, self.evaluate_every)
        with job.fitted(self, offline, trajectories, folder="learner", evaluate=evaluate) as (outcome, tracker):
            body |= summarise(offline, outcome, environment)
            last = np.array(body["scores"].get("last_score", body["scores"]["last_return"]))
            body["scores"]["relative"] = (last / np.mean(list(worth.values()))).tolist()
            found = offline.learner.assignments(outcome.result.actor)
            if found is not None and self.clusters is None:
                body["scores"] |= scored(dataset.labels, np.asarray(found))
            for index, seed in enumerate(self.seeds):
                final = {name: np.array(values)[index] for name, values in body["scores"].items()}
                tracker.summary(seed, {f"final/{name}": float(each.mean()) for name, each in final.items()})
        if isinstance(offline.learner, LBRACv):
            counts = [row.get("k", offline.learner.k) for row in swept(config)] or [offline.learner.k]
            body["maps"] = maps(outcome.result.actor, counts)
            body["map_of"] = map_of(dataset)
        return {**body, "policies": worth, "config": config, "history": outcome.history}


@dataclasses.dataclass(frozen=True)
class BehaviourSetCell(MethodCell):
    """The behaviour set alone, how pure its codes are, and where its embeddings lie."""

    def essential(self) -> dict[str, Any]:
        return {**super().essential(), "maps": True}

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        return {**super().identity(dataset), "maps": True}

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        method = self.build()
        body, clustering = fitted_body(method, self, dataset, job)
        body["scores"] |= scored(dataset.labels, np.asarray(clustering.assignments))
        params = clustering.params
        shown = plane_of(params["trajectories"][0], params["codes"][0])
        return {**body, "maps": [{"k": method.num_clusters, **shown}], "map_of": map_of(dataset)}


def swept(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The swept settings of a record's `config`, one entry a run."""
    names = [name for name, _ in config["sweep"]]
    rows = zip(*(values for _, values in config["sweep"]), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def scored(labels: np.ndarray, assignments: np.ndarray) -> dict[str, Any]:
    """Scores of assignments `[..., N]`, homogeneity among them (1 where no cluster mixes labels)."""
    from sklearn.metrics import homogeneity_score

    found = {name: values.tolist() for name, values in batch_scores(labels, assignments).items()}
    rows = assignments.reshape(-1, assignments.shape[-1])
    pure = np.array([homogeneity_score(labels, row) for row in rows]).reshape(assignments.shape[:-1])
    return {**found, "homogeneity": pure.tolist()}


def map_of(dataset: Dataset) -> dict[str, list[float]]:
    """Of each trajectory its label and the share of returns below its own."""
    found = returns(dataset.trajectories)
    percentiles = np.searchsorted(np.sort(found), found) / len(found)
    return {"labels": np.asarray(dataset.labels).tolist(), "percentiles": percentiles.round(3).tolist()}


def maps(actor: dict[str, Any], counts: list[int]) -> list[dict[str, Any]]:
    """Of the first seed, for every K: embeddings' directions in the plane of W's two principal components (Figure 5).

    Args:
        actor: LBRAC-v's policies, leaves `[S, ...]` or, of several K, `[S, V, ...]`.
        counts: the K's.
    """
    found = []
    for place, k in enumerate(counts):
        one = lambda name: np.asarray(actor[name])[(0, place) if len(counts) > 1 else 0]  # noqa: B023
        found.append({"k": k, **plane_of(one("trajectories"), one("codes"), one("own"))})
    return found


def plane_of(trajectories: np.ndarray, codes: np.ndarray, own: np.ndarray | None = None) -> dict[str, Any]:
    """W `[N, d]`, E `[K, d]` (those in use) and e_pi `[d]` in W's plane, `[..., 2]` each."""
    unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    directions = unit(np.asarray(trajectories, np.float64))
    mean = directions.mean(0)
    axes = np.linalg.svd(directions - mean, full_matrices=False)[2][:2]
    flat = lambda x: ((unit(np.asarray(x, np.float64)) - mean) @ axes.T).round(3).tolist()
    shown = {"trajectories": flat(trajectories), "codes": flat(codes[(codes != 0).any(-1)])}
    return shown | ({} if own is None else {"policy": flat(own)})
