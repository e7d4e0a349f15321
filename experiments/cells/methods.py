"""Cells of clustering: a method's clusterings, a ceiling's, a choice of K, and the oracle."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from trajclust_experiments.catalogue import CATALOGUE, Kind
from trajclust_experiments.cells.cell import Cell, Job, changed
from trajclust_experiments.cells.sample import sample
from trajclust_jax.clustering import Cloning, Clusterer, Clustering
from trajclust_jax.clustering.ambiguity import ambiguity
from trajclust_jax.clustering.conflict import conflict_rate
from trajclust_jax.clustering.empo_grid import EmpoGrid
from trajclust_jax.clustering.health import diagnose
from trajclust_jax.clustering.model_selection import PGKmeansRange, select_num_clusters
from trajclust_jax.clustering.oracle import oracle
from trajclust_jax.clustering.types import Grouping
from trajclust_jax.data import REGISTRY, Codebook, Dataset
from trajclust_jax.metrics import batch_scores, behavioural_kl, calibration, matched_correct
from trajclust_jax.training import Method

ORACLE = "oracle"
ORACLE_VERSION = 1  # raise it when the oracle's results change


@dataclasses.dataclass(frozen=True)
class OracleCell(Cell):
    """The Bayes assignment under the true policies: no seeds, no settings."""

    method: str = ORACLE
    seeds: tuple[int, ...] = ()

    def essential(self) -> dict[str, Any]:
        return {**self.place(), "version": ORACLE_VERSION}

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        return {**self.essential(), "fingerprint": dataset.provenance.fingerprint}

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        began = time.perf_counter()
        scores = oracle(dataset.labels, dataset.true_log_likelihoods)
        return {
            "scores": scores,
            "sample": sample(dataset, dataset.labels, list(dataset.spec.policy_names)),
            "timing": {"run_seconds": time.perf_counter() - began, "compile_seconds": 0.0},
        }


@dataclasses.dataclass(frozen=True)
class MethodCell(Cell):
    """A clusterer, a ceiling or a choice of K by its name in the catalogue."""

    @property
    def num_policies(self) -> int:
        """k*."""
        return REGISTRY[self.dataset].num_policies

    def build(self, **suited: Any) -> Any:
        """The cell's algorithm with all its hyperparameters; `num_clusters` is one, k* its default."""
        return CATALOGUE[self.method].build(**{"num_clusters": self.num_policies, **suited, **dict(self.settings)})

    def hyperparameters(self) -> set[str]:
        return CATALOGUE[self.method].settings()

    def build_for(self, dataset: Dataset) -> Any:
        """`build`, where settings may follow from the data."""
        del dataset
        return self.build()

    def essential(self) -> dict[str, Any]:
        method = self.build()
        described = {**self.place(), "version": method.VERSION}
        if REGISTRY[self.dataset].continuous and method.ACTIONS_VERSION is not None:
            described["actions_version"] = method.ACTIONS_VERSION
        return {**described, "hyperparameters": changed(dataclasses.asdict(method), type(method))}

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        return {**super().identity(dataset), "hyperparameters": dataclasses.asdict(self.build())}

    def further(self, dataset: Dataset, method: Any, clustering: Clustering) -> list[str]:
        """Warnings of one seed's clustering beyond those of every method."""
        del dataset, method, clustering
        return []

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        method = self.build_for(dataset)
        try:
            method.check(dataset.trajectories)
        except ValueError as reason:  # the method has no answer here: that is the result
            return {"not_applicable": str(reason), "scores": {}, "timing": {"run_seconds": 0.0, "compile_seconds": 0.0}}
        return _BODIES[CATALOGUE[self.method].kind](method, self, dataset, job)


def _clustering_body(method: Clusterer, cell: MethodCell, dataset: Dataset, job: Job) -> dict[str, Any]:
    """Scores of the clusterings, and where there are several restarts whether they agree."""
    body, clustering = fitted_body(method, cell, dataset, job)
    if clustering.restart_assignments.shape[1] > 1:
        body["ambiguity"] = [_ambiguity(dataset, _seed(clustering, s)) for s in range(len(cell.seeds))]
    return body


def _ceiling_body(method: Cloning, cell: MethodCell, dataset: Dataset, job: Job) -> dict[str, Any]:
    """Scores of what the labels tell."""
    return fitted_body(method.labelled(dataset.labels), cell, dataset, job)[0]


def fitted_body(method: Method, cell: MethodCell, dataset: Dataset, job: Job) -> tuple[dict[str, Any], Grouping]:
    """The body of a record of a method's fit, and the fit's result, for all seeds."""
    score = functools.partial(batch_scores, dataset.labels)
    with job.fitted(cell, method, dataset.trajectories, score=score) as (outcome, tracker):
        clustering = jax.device_get(outcome.result)
        runs = [_seed(clustering, s) for s in range(len(cell.seeds))]
        diagnoses = [diagnose(run) for run in runs]
        warned = [
            [*found, *cell.further(dataset, method, run)] for (_, found), run in zip(diagnoses, runs, strict=True)
        ]
        assignments = np.asarray(clustering.assignments)
        final = {name: values.tolist() for name, values in score(assignments).items()}
        final |= _policy_scores(dataset, clustering)
        final["objective"] = np.asarray(clustering.objective).tolist()
        final["restart"] = np.asarray(clustering.chosen_restart).tolist()
        for index, seed in enumerate(cell.seeds):
            tracker.summary(seed, {f"final/{name}": values[index] for name, values in final.items()})
            tracker.summary(seed, {f"health/{name}": value for name, value in diagnoses[index][0].items()})
            for warning in warned[index]:
                job.progress.note(f"{cell.title}, seed {seed}: {warning}")
    names = [f"cluster {k}" for k in range(clustering.posterior.shape[-1])]
    body = {
        "scores": final,
        "health": {name: [health[name] for health, _ in diagnoses] for name in diagnoses[0][0]},
        "warnings": warned,  # of each seed
        "num_steps": int(np.asarray(dataset.trajectories.lengths).sum()),
        "history": outcome.history,
        "sample": sample(dataset, assignments[0], names),
        "arrays": {"assignments": assignments},  # [S, N]
        "timing": outcome.timing,
    }
    return body, clustering


def _selection_body(method: PGKmeansRange, cell: MethodCell, dataset: Dataset, job: Job) -> dict[str, Any]:
    """The criteria of every K, and for the reader the scores of the clusterings behind them."""
    with job.progress.task(cell.title) as show:
        selection = select_num_clusters(
            method,
            dataset.trajectories,
            cell.seeds,
            callbacks=[job.guard, show],
            checkpoint_dir=job.work,
        )
    return {
        "scores": batch_scores(dataset.labels, selection.clusterings.assignments),
        "selection": selection.to_dict(),
        "timing": {"run_seconds": selection.run_seconds, "compile_seconds": selection.compile_seconds},
    }


def _grid_body(method: EmpoGrid, cell: MethodCell, dataset: Dataset, job: Job) -> dict[str, Any]:
    """Scores of every setting's clusterings."""
    with job.fitted(cell, method, dataset.trajectories) as (outcome, _):
        found = batch_scores(dataset.labels, outcome.result.restart_assignments)  # [S, G]
    settings = [
        dict(zip(("bias_epochs", "pretrain_epochs", "momentum"), each, strict=True)) for each in method.settings
    ]
    return {
        "scores": {},
        "grid": [
            {"setting": setting, **{name: values[:, g].tolist() for name, values in found.items()}}
            for g, setting in enumerate(settings)
        ],
        "num_steps": int(np.asarray(dataset.trajectories.lengths).sum()),
        "history": outcome.history,
        "timing": outcome.timing,
    }


_BODIES: dict[Kind, Callable[..., dict[str, Any]]] = {
    "clusterer": _clustering_body,
    "ceiling": _ceiling_body,
    "selection": _selection_body,
    "grid": _grid_body,
}


def _seed(clustering: Grouping, index: int) -> Any:
    """One seed's clustering."""
    return jax.tree.map(lambda x: x[index], clustering)


def _policy_scores(dataset: Dataset, clustering: Grouping) -> dict[str, list[float]]:
    """Behavioural KL of each seed, the mean over true policies, where found and true policies are known."""
    if clustering.log_likelihoods is None or dataset.true_log_likelihoods is None:
        return {}
    given = dataset.true_log_likelihoods, dataset.trajectories.lengths
    found = zip(clustering.assignments, clustering.log_likelihoods, strict=True)
    return {"behavioural_kl": [float(behavioural_kl(dataset.labels, a, ll, *given).mean()) for a, ll in found]}


def _ambiguity(dataset: Dataset, clustering: Clustering) -> dict[str, Any]:
    """Whether the answer is unique; whether its confidence is justified (labels enter that alone); its conflicts."""
    described = ambiguity(clustering)
    if dataset.trajectories.discrete and isinstance(dataset.trajectories.observations, Codebook):
        described["conflict_rate"] = conflict_rate(dataset.trajectories, clustering.assignments)
    correct = matched_correct(dataset.labels, clustering.assignments)
    table, error = calibration(np.clip(clustering.posterior.max(1), 0, 1), correct)
    described["calibration"] = {"error": error, **{name: values.tolist() for name, values in table.items()}}
    return described
