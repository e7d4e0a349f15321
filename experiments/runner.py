"""Cells: the unit of work. A cell trains one method on one dataset, all its seeds in one program.

A cell's record says everything: identity, per-seed scores, curves, a sample of trajectories to draw, time and
machine. A finished cell is never computed again; a killed one goes on from its checkpoint; two processes on one
results folder share the cells out by leases.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from trajclust_experiments.methods import ORACLE, Kind, method_entry
from trajclust_experiments.progress import Progress
from trajclust_experiments.scenes import sample
from trajclust_jax.clustering import Cloning, Clusterer, Clustering
from trajclust_jax.clustering.ambiguity import ambiguity
from trajclust_jax.clustering.conflict import conflict_rate
from trajclust_jax.clustering.health import diagnose
from trajclust_jax.clustering.model_selection import PGKmeansRange, select_num_clusters
from trajclust_jax.clustering.oracle import oracle
from trajclust_jax.clustering.types import Grouping
from trajclust_jax.data import REGISTRY, Codebook, Dataset, make
from trajclust_jax.metrics import batch_scores, behavioural_kl, calibration, matched_correct
from trajclust_jax.records import Results, cell_id, environment, plain
from trajclust_jax.tracking import Tracker, make_tracker, run_id
from trajclust_jax.training import Event, Fit, Method, fit

ORACLE_VERSION = 1  # raise it when the oracle's results change


@dataclasses.dataclass(frozen=True)
class Cell:
    """A method on a registered dataset. `settings` override the method's defaults."""

    dataset: str
    size: int  # trajectories a policy
    method: str  # a name in METHODS, CEILINGS or SELECTIONS, or "oracle"
    seeds: tuple[int, ...]
    settings: tuple[tuple[str, Any], ...] = ()
    data_seed: int = 0

    @property
    def title(self) -> str:
        settings = "".join(f" {name}={value}" for name, value in self.settings)
        return f"{self.dataset} {self.method}{settings}"

    def build(self) -> Any:
        """The cell's algorithm with all its hyperparameters; `num_clusters` is one, k* its default."""
        settings = {"num_clusters": REGISTRY[self.dataset].num_policies, **dict(self.settings)}
        return method_entry(self.method).build(**settings)

    def essential(self) -> dict[str, Any]:
        """What of the cell a record's id rests on, fingerprint and seeds apart.

        Hyperparameters at their defaults are not of it: an algorithm that learns something new, and does as before
        without it, keeps its records. Whoever changes a default raises the algorithm's VERSION.
        """
        base = {name: getattr(self, name) for name in ("dataset", "size", "data_seed", "method")}
        if self.method == ORACLE:
            return {**base, "version": ORACLE_VERSION}
        method = self.build()
        described = {**base, "version": method.VERSION}
        if REGISTRY[self.dataset].continuous and method.ACTIONS_VERSION is not None:
            described["actions_version"] = method.ACTIONS_VERSION
        return {**described, "hyperparameters": changed(dataclasses.asdict(method), type(method))}

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        """Everything that determines the cell's result, for its record."""
        described = {**self.essential(), "fingerprint": dataset.provenance.fingerprint}
        if self.method == ORACLE:
            return described
        return {**described, "seeds": list(self.seeds), "hyperparameters": dataclasses.asdict(self.build())}

    def load(self) -> tuple[Dataset, float]:
        """The cell's dataset, and the seconds it took to make."""
        return load(self.dataset, self.size, self.data_seed)

    def build_for(self, dataset: Dataset) -> Any:
        """`build`, where settings may follow from the data."""
        del dataset
        return self.build()

    def further(self, dataset: Dataset, method: Any, clustering: Clustering) -> list[str]:
        """Warnings of one seed's clustering beyond those of every method."""
        del dataset, method, clustering
        return []

    def needs(self) -> tuple["Cell", ...]:
        """The cells whose arrays this one reads; they are computed once, for all that need them."""
        return ()

    def compute(self, dataset: Dataset, job: "Job") -> dict[str, Any]:
        """The body of the cell's record; `arrays` in it are kept beside the record, for cells that need this one."""
        return (_oracle_body if self.method == ORACLE else _method_body)(self, dataset, job)


class Finished(NamedTuple):
    """A cell that another one needs."""

    record: dict[str, Any]
    arrays: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Job:
    """What a cell's computation is given."""

    id: str
    described: dict[str, Any]  # its identity
    results: Results
    track: str
    tags: Sequence[str]
    progress: Progress
    guard: Callable[..., None]  # a callback for `fit`; raises LeaseLost
    needed: dict[Cell, "Finished"]  # by the cells that `Cell.needs` names

    def tracker(self, cell: "Cell") -> Tracker:
        """A run for each seed."""
        return make_tracker(
            self.track,
            directory=self.results.folder,
            group=f"{cell.dataset}-{cell.method}-{self.id}",
            tags=[*self.tags, f"dataset:{cell.dataset}", f"method:{cell.method}"],
            config=self.described,
            seeds=cell.seeds,
            run_ids=[run_id(cell.title, self.id, seed) for seed in cell.seeds],
        )

    @contextlib.contextmanager
    def fitted(
        self, cell: "Cell", method: Any, data: Any, folder: str = "", **options: Any
    ) -> Iterator[tuple[Fit, Tracker]]:
        """`fit` with the cell's seeds, shown, guarded, tracked and checkpointed; and the tracker, for summaries."""
        with self.tracker(cell) as tracker, self.progress.task(cell.title) as show:
            outcome = fit(
                method,
                data,
                cell.seeds,
                callbacks=[self.guard, show, lambda event: tracker.log(event.total, tracked(event))],
                checkpoint_dir=self.results.work(self.id) / folder,
                checkpoint_seconds=checkpoint_seconds(),
                **options,
            )
            yield outcome, tracker


class LeaseLost(RuntimeError):
    """Another process took the cell over, for instance while this one was suspended."""


@functools.lru_cache(maxsize=8)
def load(name: str, size: int, seed: int) -> tuple[Dataset, float]:
    """A registered dataset, kept for the cells that share it, and the seconds it took to make."""
    began = time.perf_counter()
    return make(name, size, seed), time.perf_counter() - began


def changed(hyperparameters: dict[str, Any], algorithm: type) -> dict[str, Any]:
    """Of an algorithm's hyperparameters those that are not its defaults, as JSON values."""
    fields = (field for field in dataclasses.fields(algorithm) if field.default is not dataclasses.MISSING)
    defaults = {field.name: plain(field.default) for field in fields}
    return {
        name: value for name, value in plain(hyperparameters).items() if name not in defaults or value != defaults[name]
    }


def essential(described: dict[str, Any]) -> dict[str, Any]:
    """A record's `cell` entry with those hyperparameters alone that its id rests on; see `Cell.essential`."""
    if "hyperparameters" not in described:
        return described
    algorithm = method_entry(described["method"]).algorithm
    return {**described, "hyperparameters": changed(described["hyperparameters"], algorithm)}


def record_id(described: dict[str, Any]) -> str:
    """The id of a cell with this `identity`."""
    return cell_id(essential(described))


def run_cells(
    cells: Sequence[Cell],
    results: Results,
    *,
    preset: str,
    track: str = "off",
    tags: Sequence[str] = (),
    progress: Progress | None = None,
    poll_seconds: float = 2.0,
) -> list[dict[str, Any]]:
    """Computes what is missing and returns the cells' records, in their order.

    A cell that another live process holds is left to it, and waited for at the end.
    """
    run = _Run(results, preset, track, tags, progress or Progress(quiet=True))
    records: dict[Cell, dict[str, Any]] = {}
    told = None
    while len(records) < len(set(cells)):
        waiting = []
        for cell in cells:
            if cell in records:
                continue
            record = run.record(cell)
            if record is None:
                waiting.append(cell)
            else:
                records[cell] = record
        if waiting:
            if waiting != told:
                run.progress.note(f"waiting for another process: {', '.join(cell.title for cell in waiting)}")
                told = waiting
            time.sleep(poll_seconds)
    return [records[cell] for cell in cells]


@dataclasses.dataclass(frozen=True)
class _Run:
    """What all cells of a run share."""

    results: Results
    preset: str
    track: str
    tags: Sequence[str]
    progress: Progress

    def record(self, cell: Cell, with_arrays: bool = False) -> dict[str, Any] | None:
        """The cell's record, computed if it is missing; None while another process computes it, or what it needs."""
        results = self.results
        dataset, data_seconds = cell.load()
        described = cell.identity(dataset)
        id = record_id(described)
        complete = lambda record: record is not None and (not with_arrays or results.arrays(id) is not None)
        record = results.read(id)
        if complete(record) and not results.work(id).exists():
            return record
        needed = {}
        for other in cell.needs():
            finished = self.record(other, with_arrays=True)
            if finished is None:
                return None
            needed[other] = Finished(finished, results.arrays(finished["id"]))
        lease = results.lease(id)
        if lease is None:
            return record if complete(record) else None
        with lease:
            record = results.read(id)  # it may have been finished just before the lease was free
            if not complete(record):

                def guard(event: Event | None = None) -> None:
                    if lease.lost:
                        raise LeaseLost(f"{cell.title}: another process took over")

                job = Job(id, described, results, self.track, self.tags, self.progress, guard, needed)
                try:
                    body = cell.compute(dataset, job)
                    guard()
                except LeaseLost:
                    return None
                arrays = body.pop("arrays", None)
                body["timing"]["data_seconds"] = data_seconds
                body["data"] = {"source": dataset.provenance.source, "parameters": dataset.provenance.parameters}
                whole = {"id": id, "preset": self.preset, "cell": described, **body, "environment": environment()}
                results.write(id, whole, arrays)
            # its checkpoints, also those of a process killed right here
            shutil.rmtree(results.work(id), ignore_errors=True)
        return results.read(id)


def _oracle_body(cell: Cell, dataset: Dataset, job: Job) -> dict[str, Any]:
    began = time.perf_counter()
    scores = oracle(dataset.labels, dataset.true_log_likelihoods)
    return {
        "scores": scores,
        "sample": sample(dataset, dataset.labels, list(dataset.spec.policy_names)),
        "timing": {"run_seconds": time.perf_counter() - began, "compile_seconds": 0.0},
    }


def _method_body(cell: Cell, dataset: Dataset, job: Job) -> dict[str, Any]:
    method = cell.build_for(dataset)
    try:
        method.check(dataset.trajectories)
    except ValueError as reason:  # the method has no answer here: that is the result
        return {"not_applicable": str(reason), "scores": {}, "timing": {"run_seconds": 0.0, "compile_seconds": 0.0}}
    return _BODIES[method_entry(cell.method).kind](method, cell, dataset, job)


def _clustering_body(method: Clusterer, cell: Cell, dataset: Dataset, job: Job) -> dict[str, Any]:
    """Scores of the clusterings, and where there are several restarts whether they agree."""
    body, clustering = _fitted_body(method, cell, dataset, job)
    if clustering.restart_assignments.shape[1] > 1:
        body["ambiguity"] = [_ambiguity(dataset, _seed(clustering, s)) for s in range(len(cell.seeds))]
    return body


def _ceiling_body(method: Cloning, cell: Cell, dataset: Dataset, job: Job) -> dict[str, Any]:
    """Scores of what the labels tell."""
    return _fitted_body(method.labelled(dataset.labels), cell, dataset, job)[0]


def _fitted_body(method: Method, cell: Cell, dataset: Dataset, job: Job) -> tuple[dict[str, Any], Grouping]:
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
        "timing": {
            "run_seconds": outcome.run_seconds,
            "compile_seconds": outcome.compile_seconds,
            "resumed": outcome.resumed,
        },
    }
    return body, clustering


def _selection_body(method: PGKmeansRange, cell: Cell, dataset: Dataset, job: Job) -> dict[str, Any]:
    """The criteria of every K, and for the reader the scores of the clusterings behind them."""
    with job.progress.task(cell.title) as show:
        selection = select_num_clusters(
            method,
            dataset.trajectories,
            cell.seeds,
            callbacks=[job.guard, show],
            checkpoint_dir=job.results.work(job.id),
        )
    return {
        "scores": batch_scores(dataset.labels, selection.clusterings.assignments),
        "selection": selection.to_dict(),
        "timing": {"run_seconds": selection.run_seconds, "compile_seconds": selection.compile_seconds},
    }


_BODIES: dict[Kind, Callable[..., dict[str, Any]]] = {
    "clusterer": _clustering_body,
    "ceiling": _ceiling_body,
    "selection": _selection_body,
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


def tracked(event: Event) -> dict[str, np.ndarray]:
    """An event's metrics under names that keep phases apart; of an evaluation's episodes the mean."""
    means = {name: values.mean(-1) if name == "return" else values for name, values in event.metrics.items()}
    return {f"{event.phase}/{name}": values for name, values in means.items()}


def checkpoint_seconds() -> float:
    """The time between checkpoints of commands: `$TRAJCLUST_CHECKPOINT_SECONDS`, else 20."""
    return float(os.environ.get("TRAJCLUST_CHECKPOINT_SECONDS", 20))


def default_results() -> str:
    """The results folder of commands that are given none: `$TRAJCLUST_RESULTS`, else `results`."""
    return os.environ.get("TRAJCLUST_RESULTS", "results")
