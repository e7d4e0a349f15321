"""Your own data: what `trajclust cluster` finds in files as users bring them, with the settings that it chooses.

    trajclust run own/data --preset cpu                                       all: about half an hour on two cores
    trajclust run own/data --preset cpu --datasets cartpole --methods pg_kmeans_mlp

Files are written by hand-made policies (`_files.py`) and read as any other. Beside each NMI: what cloning from the TRUE
labels reaches on held-out trajectories, the oracle where policies' likelihoods are in the file, and what the command
warns of without labels.
"""

import dataclasses
import functools
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from trajclust_experiments.catalogue import CATALOGUE
from trajclust_experiments.cells.cell import Cell, Job
from trajclust_experiments.cells.methods import MethodCell
from trajclust_experiments.papers.own import _files as files
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.clustering.oracle import oracle
from trajclust_jax.clustering.support import SUPPORT_VERSION, support_of
from trajclust_jax.data import Dataset
from trajclust_jax.data import load as read

FILES_VERSION = 1  # raise it when `_files` changes what it writes
SOURCES = {  # what it is, how it is made, trajectories a policy, policies
    "cartpole": ("CartPole, two policies (.hdf5)", files.cartpole, 50, 2),
    "pendulum": ("Pendulum, two policies (Minari)", files.pendulum, 50, 2),
    "point-mass": ("A point mass, three policies, 20 to 400 steps (.npz)", files.point_mass, 50, 3),
    "images": ("64 x 64 images, two policies (.npz)", files.images, 100, 2),
    "images-moving": ("The same before a moving ground (.npz)", functools.partial(files.images, moving=True), 100, 2),
    "goals-60": ("Reaching goals, dictionaries, 60 a policy (Minari)", files.goals, 60, 2),
    "goals-600": ("Reaching goals, dictionaries, 600 a policy (Minari)", files.goals, 600, 2),
}


@functools.lru_cache(maxsize=2)
def load(name: str, size: int, seed: int) -> tuple[Dataset, float]:
    """A file's dataset, and the seconds it took to make and read."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, files.minari_in(folder):
        return read(SOURCES[name][1](Path(folder), size, seed)), time.perf_counter() - began


@dataclasses.dataclass(frozen=True)
class OwnCell(MethodCell):
    """A method on a file, with the settings that suit the data."""

    def load(self) -> tuple[Dataset, float]:
        return load(self.dataset, self.size, self.data_seed)

    def essential(self) -> dict[str, Any]:
        algorithm = CATALOGUE[self.method].algorithm
        versions = {"version": algorithm.VERSION, "actions_version": algorithm.ACTIONS_VERSION}
        return {**self.place(), **versions, "files_version": FILES_VERSION, "support_version": SUPPORT_VERSION}

    def identity(self, dataset: Dataset) -> dict[str, Any]:
        described = {**self.essential(), "fingerprint": dataset.provenance.fingerprint, "seeds": list(self.seeds)}
        return {**described, "suited": {**self._suited(dataset), **dict(self.settings)}}

    @property
    def num_policies(self) -> int:
        return SOURCES[self.dataset][3]

    def build_for(self, dataset: Dataset) -> Any:
        return self.build(**self._suited(dataset))

    def _suited(self, dataset: Dataset) -> dict[str, Any]:
        return CATALOGUE[self.method].suited(dataset.trajectories)

    def compute(self, dataset: Dataset, job: Job) -> dict[str, Any]:
        body = super().compute(dataset, job)
        truth = dataset.true_log_likelihoods
        body["oracle"] = None if truth is None else oracle(dataset.labels, truth)
        return body

    def further(self, dataset: Dataset, method: Any, clustering: Any) -> list[str]:
        if CATALOGUE[self.method].kind == "ceiling":
            return []
        found = support_of(method, dataset.trajectories, clustering)
        return [found.warning] if found is not None and found.warning else []


def cells(preset: Preset, datasets: tuple[str, ...], methods: tuple[str, ...], seeds: tuple[int, ...]) -> list[Cell]:
    """One cell a file and method."""
    sizes = {name: preset.size or SOURCES[name][2] for name in datasets}
    settings = lambda method: tuple(sorted(preset.settings.get(method, {}).items()))
    return [OwnCell(name, sizes[name], each, seeds, settings(each)) for name in datasets for each in methods]


class _Line(NamedTuple):
    record: dict[str, Any]
    ceiling: float | None  # NMI of cloning


def _oracle(line: _Line) -> str:
    return f"{line.record['oracle']['nmi']:.3f}" if line.record["oracle"] else ""


def _warned(line: _Line) -> str:
    return f"{sum(map(bool, line.record['warnings']))} of {len(line.record['warnings'])}"


def _seconds(line: _Line) -> str:
    return f"{line.record['timing']['run_seconds'] + line.record['timing']['compile_seconds']:.0f}"


COLUMNS = [
    Column("data", lambda line: SOURCES[line.record["cell"]["dataset"]][0]),
    columns.method(),
    columns.score("nmi", "NMI"),
    Column("ceiling (cloning)", lambda line: "" if line.ceiling is None else f"{line.ceiling:.3f}"),
    Column("oracle", _oracle),
    Column("warned", _warned),
    Column("seconds", _seconds),
]


def render(records: Records):
    kind = lambda record: CATALOGUE[record["cell"]["method"]].kind
    ceilings = {r["cell"]["dataset"]: r["scores"]["nmi"][0] for r in records if kind(r) == "ceiling"}
    lines = [_Line(r, ceilings.get(r["cell"]["dataset"])) for r in records if kind(r) == "clusterer"]
    notes = [
        *provenance(records),
        "Ceiling: policies cloned from the true labels classify held-out trajectories. Warned: runs whose own output "
        "says, without labels, that something is wrong. Seconds are of all seeds with compilation.",
    ]
    return columns.table("Your own data", COLUMNS, lines, notes), {}


TABLE = Table(
    name="own/data",
    summary="users' kinds of files, with the settings that suit each",
    datasets=tuple(SOURCES),
    methods=("pg_kmeans_mlp", "caae", "cloning_mlp"),
    presets={
        "smoke": Preset(
            "a minute: does everything run? The numbers mean nothing",
            size=4,
            seeds=1,
            settings={
                "pg_kmeans_mlp": {"iterations": 1, "polish_iterations": 1, "restarts": 2, "reconsidered": 0.0},
                "caae": {"warmup_iterations": 1, "iterations": 1},
                "cloning_mlp": {"iterations": 1},
            },
        ),
        "cpu": Preset("half an hour on 2 CPU cores, one seed", size=0, seeds=1),
        "paper": Preset("ten seeds", size=0, seeds=10),
    },
    cells=cells,
    render=render,
)
