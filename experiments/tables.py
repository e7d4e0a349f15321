"""What a table of a paper is, and the registry of those that exist."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from trajclust_experiments.runner import Cell

Records = Sequence[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Preset:
    """A scale to run a table at."""

    summary: str
    size: int  # trajectories a policy
    seeds: int
    settings: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)  # by method name
    long_size: int = 50  # trajectories a policy, where they are long


@dataclasses.dataclass(frozen=True)
class Table:
    """A table or figure of a paper: which cells it needs, and how their records become text and figures."""

    name: str
    summary: str
    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    presets: Mapping[str, Preset]
    cells: Callable[[Preset, tuple[str, ...], tuple[str, ...], tuple[int, ...]], list[Cell]]
    render: Callable[[Records], tuple[str, dict[str, Figure]]]  # records -> Markdown, figures by file stem


_MODULES = {
    "pgkmeans/table1": "trajclust_experiments.papers.pgkmeans.table1",
    "pgkmeans/table3": "trajclust_experiments.papers.pgkmeans.table3",
    "pgkmeans/table4": "trajclust_experiments.papers.pgkmeans.table4",
    "pgkmeans/table5": "trajclust_experiments.papers.pgkmeans.table5",
    "pgkmeans/table6": "trajclust_experiments.papers.pgkmeans.table6",
    "pgkmeans/table7": "trajclust_experiments.papers.pgkmeans.table7",
    "pgkmeans/table8": "trajclust_experiments.papers.pgkmeans.table8",
    "pgkmeans/figure3": "trajclust_experiments.papers.pgkmeans.figure3",
    "pgkmeans/figure4": "trajclust_experiments.papers.pgkmeans.figure4",
    "pgkmeans/figure5": "trajclust_experiments.papers.pgkmeans.figure5",
    "pgkmeans/extra": "trajclust_experiments.papers.pgkmeans.extra",
    "pgkmeans/choosing-k": "trajclust_experiments.papers.pgkmeans.choosing_k",
    "pgkmeans/ambiguity": "trajclust_experiments.papers.pgkmeans.ambiguity",
    "offline/returns": "trajclust_experiments.papers.offline.returns",
    "own/data": "trajclust_experiments.papers.own.data",
}


def table_names() -> tuple[str, ...]:
    """All tables, in the papers' order."""
    return tuple(_MODULES)


def get_table(name: str) -> Table:
    """A table by name.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in _MODULES:
        raise ValueError(f"unknown table {name!r}: choose one of {', '.join(_MODULES)}")
    return importlib.import_module(_MODULES[name]).TABLE
