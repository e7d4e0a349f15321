"""Cells: the unit of work. A cell trains one method on one dataset, all its seeds in one program.

A cell's record says everything: identity, per-seed scores, curves, a sample of trajectories to draw, time and machine.
"""

import abc
import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from trajclust_experiments.catalogue import CATALOGUE, class_defaults
from trajclust_experiments.progress import Progress
from trajclust_jax.data import Dataset, make
from trajclust_jax.learners import Offline
from trajclust_jax.records import Results, cell_id, plain
from trajclust_jax.tracking import Tracker, make_tracker, track_cell
from trajclust_jax.training import Event, Fit, fit


@dataclasses.dataclass(frozen=True)
class Cell(abc.ABC):
    """One method on one registered dataset. `settings` override the method's defaults."""

    dataset: str
    size: int  # trajectories a policy
    method: str  # a name in the catalogue, or "oracle"
    seeds: tuple[int, ...]
    settings: tuple[tuple[str, Any], ...] = ()
    data_seed: int = 0

    @property
    def title(self) -> str:
        settings = "".join(f" {name}={value}" for name, value in self.settings)
        return f"{self.dataset} {self.method}{settings}"

    def place(self) -> dict[str, Any]:
        """The method and the data, as a record names them."""
        return {name: getattr(self, name) for name in ("dataset", "size", "data_seed", "method")}

    @abc.abstractmethod
    def essential(self) -> dict[str, Any]:
        """What of the cell a record's id rests on, fingerprint and seeds apart.

        Hyperparameters at their defaults are not of it: an algorithm that learns something new, and does as before
        without it, keeps its records. Whoever changes a default raises the algorithm's VERSION.
        """

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        """Everything that determines the cell's result, for its record."""
        return {**self.essential(), "fingerprint": dataset.provenance.fingerprint, "seeds": list(self.seeds)}

    def of_seeds(self, seeds: tuple[int, ...]) -> Self:
        """The same with other seeds."""
        return dataclasses.replace(self, seeds=seeds)

    def load(self) -> tuple[Dataset, float]:
        """The cell's dataset, and the seconds it took to make."""
        return load(self.dataset, self.size, self.data_seed)

    def needs(self) -> tuple["Cell", ...]:
        """The cells whose arrays this one reads; they are computed once, for all that need them."""
        return ()

    def hyperparameters(self) -> set[str]:
        """The names that `settings` may have; by default none."""
        return set()

    @abc.abstractmethod
    def compute(self, dataset: Dataset, job: "Job") -> dict[str, Any]:
        """The body of the cell's record; `arrays` in it are kept beside the record, for cells that need this one."""


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
    work: Path  # for its checkpoints
    track: str
    tags: Sequence[str]
    progress: Progress
    guard: Callable[..., None]  # (event, iterations in all) of `fit`; raises LeaseLost
    needed: dict[Cell, "Finished"]  # by the cells that `Cell.needs` names

    def tracker(self, cell: "Cell") -> Tracker:
        """A run for each seed."""
        return make_tracker(self.track, seeds=cell.seeds, **self._told(cell))

    def cell_tracker(self, cell: "Cell") -> Tracker:
        """The run of the cell as a whole."""
        return track_cell(self.track, **self._told(cell))

    def _told(self, cell: "Cell") -> dict[str, Any]:
        return {
            "name": f"{cell.dataset}-{cell.method}",
            "id": self.id,
            "directory": self.results.folder,
            "tags": [*self.tags, f"dataset:{cell.dataset}", f"method:{cell.method}"],
            "config": self.described,
        }

    @contextlib.contextmanager
    def fitted(
        self, cell: "Cell", method: Any, data: Any, folder: str = "", **options: Any
    ) -> Iterator[tuple[Fit, Tracker]]:
        """`fit` with the cell's seeds, shown, guarded, tracked and checkpointed; and the tracker, for summaries."""
        total = sum(phase.budget + 1 for phase in method.phases())
        beat = lambda event: self.guard(event, total)
        with self.tracker(cell) as tracker, self.progress.task(cell.title) as show:
            outcome = fit(
                method,
                data,
                cell.seeds,
                callbacks=[beat, show, tracking(tracker, method)],
                checkpoint_dir=self.work / folder,
                checkpoint_seconds=checkpoint_seconds(),
                **options,
            )
            yield outcome, tracker


@functools.lru_cache(maxsize=8)
def load(name: str, size: int, seed: int) -> tuple[Dataset, float]:
    """A registered dataset, kept for the cells that share it, and the seconds it took to make."""
    began = time.perf_counter()
    return make(name, size, seed), time.perf_counter() - began


def changed(hyperparameters: dict[str, Any], algorithm: type) -> dict[str, Any]:
    """Of an algorithm's hyperparameters those that are not its defaults, as JSON values."""
    usual = class_defaults(algorithm)
    return {name: value for name, value in plain(hyperparameters).items() if name not in usual or value != usual[name]}


def essential(described: dict[str, Any]) -> dict[str, Any]:
    """A record's `cell` entry with those hyperparameters alone that its id rests on; see `Cell.essential`."""
    if "hyperparameters" not in described:
        return described
    algorithm = CATALOGUE[described["method"]].algorithm
    return {**described, "hyperparameters": changed(described["hyperparameters"], algorithm)}


def record_id(described: dict[str, Any]) -> str:
    """The id of a cell with this `identity`."""
    return cell_id(essential(described))


def tracked(phase: str, metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An iteration's metrics under names that keep phases apart; of an evaluation's episodes the mean."""
    means = {name: values.mean(-1) if name == "return" else values for name, values in metrics.items()}
    return {f"{phase}/{name}": values for name, values in means.items()}


def tracking(tracker: Tracker, method: Any) -> Callable[[Event], None]:
    """A callback of `fit` that logs every iteration; learners' against their gradient steps."""
    steps = method.gradient_steps if isinstance(method, Offline) else lambda phase, iteration: None

    def log(event: Event) -> None:
        tracker.log(event.total, tracked(event.phase, event.metrics), steps(event.phase, event.iteration))

    return log


def seed_table(seeds: Sequence[int], scores: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows, one a seed (or one), of scores with a value a seed; of what has several a seed the mean."""
    lists = [values if isinstance(values, list) else [values] for values in scores.values()]
    columns = [[float(np.mean(np.array(value, float))) for value in values] for values in lists]
    return ["seed", *scores], [list(row) for row in zip(map(str, seeds or ["-"]), *columns, strict=False)]


def checkpoint_seconds() -> float:
    """The time between checkpoints of commands: `$TRAJCLUST_CHECKPOINT_SECONDS`, else 20."""
    return float(os.environ.get("TRAJCLUST_CHECKPOINT_SECONDS", 20))
