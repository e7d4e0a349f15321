"""Fresh maps (not a table of the paper): what it takes to tell policies apart on maps that are never seen twice.

    trajclust run pgkmeans/extra --preset cpu

PG-Kmeans falls to .02 there and CAAE to .43 in the paper's Table 1. Each row is a pair: what the networks see of an
observation, and who uses it; policies cloned from the TRUE labels show what that view could give, and the oracle what
the true policies could. `Hand-made ways` are shortest ways computed for each map by a program that knows the task: a
reference for the views that are learned.
"""

from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers import pgkmeans
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.markdown import provenance
from trajclust_experiments.rendering.stored import grouped, of_methods, oracle_nmi
from trajclust_experiments.tables import Preset, Records, Table

RAW = {
    "pg_kmeans_mlp": "cloning_mlp",
    "caae": "cloning_mlp",
}  # a method's ceiling: cloning with what it sees
EXTRACTED = {
    "pg_kmeans_planner": "cloning_planner",
    "caae_conv": "cloning_conv",
    "caae_planner": "cloning_planner",
}
VIEWS = {"cloning_mlp": "raw maps", "cloning_conv": "convolutions", "cloning_planner": "plans"}
METHODS = (*RAW, *EXTRACTED, *VIEWS)


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """All views of maps; hand-made ways are seen as they are."""
    chosen = []
    for dataset in datasets:
        seen = [name for name in methods if dataset == "extra-vi" or name in RAW or name == "cloning_mlp"]
        chosen += pgkmeans.cells(preset, (dataset,), seen, seeds)
    return chosen


class _Line(NamedTuple):
    record: dict[str, Any]
    dataset: str
    name: str
    same_view: float | None  # NMI of cloning from the true labels with the same view
    ceiling: float

    @property
    def nmi(self) -> float:
        """The mean over seeds."""
        return np.mean(self.record["scores"]["nmi"])


def _view(line: _Line) -> str:
    if line.dataset.endswith("-ways"):
        return "hand-made ways"
    return VIEWS[(RAW | EXTRACTED).get(line.name, line.name)]


COLUMNS = [
    Column("networks see", _view),
    columns.method(title=lambda line: pgkmeans.method_title(line.name, line.dataset)),
    columns.score("nmi", "NMI"),
    *columns.published(lambda line: pgkmeans.published(line.dataset, line.name)),
    Column("of cloning with the same view", lambda line: f"{line.nmi / line.same_view:.0%}" if line.same_view else "-"),
    Column("of the oracle", lambda line: f"{line.nmi / line.ceiling:.0%}"),
    Column("- log P(actions), nats a step", lambda line: f"{_nats_a_step(line.record):.3f}"),
    columns.num_seeds(),
    columns.seconds("seconds, all seeds (compile + run)", "compile", "run"),
]


def render(records: Records):
    lines = []
    for dataset, methods in grouped(records).items():
        found = dict(of_methods(methods))
        for name in sorted(found, key=METHODS.index):
            above = found.get((RAW | EXTRACTED).get(name))
            same_view = None if above is None else np.mean(above["scores"]["nmi"])
            lines.append(_Line(found[name], dataset, name, same_view, oracle_nmi(methods)))
    notes = [
        *provenance(records),
        "Cloning from true labels is a ceiling, not a method: each half of the trajectories is classified by policies "
        "cloned from the other half with its labels.",
        "Log-likelihoods are of the data trained on; a decoder knows a trajectory's latent besides the map.",
        "Plans: value iteration on the observed map, its reward learned with the rest (`networks.planner`).",
    ]
    return columns.table("Extra on fresh maps: what the networks see", COLUMNS, lines, notes), {}


def _nats_a_step(record: dict[str, Any]) -> float:
    """Minus the log-likelihood of actions: under their clusters' policies, or CAAE's decoder, which sees latents."""
    if "reconstruction" in record["history"][-1]:
        return np.mean(record["history"][-1]["reconstruction"])
    return -np.mean(record["scores"]["objective"]) / record["num_steps"]


TABLE = Table(
    name="pgkmeans/extra",
    summary="fresh maps: raw, convolved, planned on, and made by hand, beside what each view could give",
    datasets=("extra-vi", "extra-vi-ways"),
    methods=METHODS,
    presets=pgkmeans.PRESETS,
    cells=cells,
    render=render,
)
