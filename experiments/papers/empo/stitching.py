"""Beyond the EMPO paper: several behaviours, of which some join to a better way, and wrong numbers of clusters.

    trajclust run empo/stitching --preset cpu --datasets navigation-drawn-3

Lists of subgoals are drawn on the navigation task's map. A shortest path over the behaviours' ways tells the best
joining of them; a learner's gain is the share of what lies between the better behaviour, as it is in the data, and that
path at full speed. EMPO with its own EM, with PG-Kmeans' clusters in its place, and IQL, which knows no behaviours.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.catalogue import title
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.papers.empo import PRESETS, navigation_cell, route_counts
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, new_figure
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.lazy import lazy

envs = lazy("trajclust_envs")
plotting = lazy("trajclust_envs.plotting")

COUNTS = (2, 3, 4, 5)  # of behaviours
WRONG = "navigation-drawn-3"  # where K is also another number than that of the behaviours
CLUSTERS = (2, 3, 4, 5, 6)
METHODS = ("empo", "empo_pg_kmeans", "iql")
DRAWS = 3  # of the behaviours' subgoals

_CPU = PRESETS["cpu"]
PRESETS_HERE = {
    **PRESETS,
    "smoke": dataclasses.replace(PRESETS["smoke"], seeds=1),
    "cpu": dataclasses.replace(
        _CPU,
        summary="an hour on one core: 20,000 steps a behaviour, 3 draws of behaviours, a seed each",
        size=20_000,
        long_size=20_000,
        seeds=1,
        settings={**_CPU.settings, "empo": {**_CPU.settings["empo"], "least_steps": 300}},
    ),
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset, draw, learner and K."""
    chosen: list[Cell] = []
    for dataset in datasets:
        true = int(dataset[-1])
        for draw in range(1 if preset == PRESETS_HERE["smoke"] else DRAWS):
            for method in methods:
                if method == "iql":
                    chosen.append(navigation_cell(preset, method, seeds, dataset, draw))
                    continue
                clusterer = {"clusterer": "pg_kmeans"} if method == "empo_pg_kmeans" else {}
                counts = CLUSTERS if dataset == WRONG and method == "empo" else (true,)
                chosen += [navigation_cell(preset, "empo", seeds, dataset, draw, k=k, **clusterer) for k in counts]
    return chosen


class _Line(NamedTuple):
    """A learner on a number of behaviours, over draws."""

    records: list[dict[str, Any]]
    behaviours: int
    name: str
    k: int | None

    @property
    def record(self) -> dict[str, Any]:
        return self.records[0]

    def scores(self, name: str) -> np.ndarray:
        """Over draws and seeds."""
        return np.concatenate([record["scores"][name] for record in self.records])

    @property
    def gains(self) -> np.ndarray:
        """`[draws x S]`."""
        return np.concatenate([gain(record) for record in self.records])


@functools.cache
def _best(subgoals: tuple[tuple[tuple[float, ...], ...], ...]) -> float:
    """The return of the best joining; several learners have the same behaviours."""
    return envs.Ways(subgoals).best


def gain(record: dict[str, Any]) -> np.ndarray:
    """`[S]`: of what lies between the better behaviour in the data and the best joining, the share that is reached."""
    best = _best(tuple(tuple(map(tuple, points)) for points in record["data"]["parameters"]["subgoals"]))
    lone = max(record["behaviours"].values())
    return (np.array(record["scores"]["return"]) - lone) / (best - lone)


def _lines(records: Records) -> list[_Line]:
    found: dict[tuple[int, str, int], list[dict[str, Any]]] = {}
    for record in records:
        settings = record["config"]["learner"]
        name = record["cell"]["method"] + ("_pg_kmeans" if settings.get("clusterer") == "pg_kmeans" else "")
        place = int(record["cell"]["dataset"][-1]), name, settings.get("k", 0)
        found.setdefault(place, []).append(record)
    order = sorted(found, key=lambda place: (place[0], METHODS.index(place[1]), place[2]))
    return [_Line(found[place], place[0], place[1], place[2] or None) for place in order]


def _title(line: _Line) -> str:
    return "EMPO on PG-Kmeans' clusters" if line.name == "empo_pg_kmeans" else title(line.name)


def _routes(line: _Line) -> str:
    lost = sum(route_counts(record)["lost"] for record in line.records)
    return f"{1 - lost / sum(len(seed) for record in line.records for seed in record['routes']):.0%}"


def _if_clustered(name: str) -> Any:
    return lambda line: "-" if line.k is None else spread(line.scores(name))


COLUMNS = [
    Column("behaviours", lambda line: str(line.behaviours)),
    Column("policies", _title),
    Column("K", lambda line: "-" if line.k is None else str(line.k)),
    Column("share of the gain", lambda line: spread(line.gains, 2)),
    Column("lowest", lambda line: f"{line.gains.min():.2f}"),
    Column("goal reached", _routes),
    Column("Rand index", _if_clustered("ri")),
    Column("steps on the shortest path's behaviour", _if_clustered("agreement")),
    Column("draws x seeds", lambda line: f"{len(line.records)} x {len(line.record['cell']['seeds'])}"),
]


def render(records: Records):
    lines = _lines(records)
    figure = new_figure(6.4, 3.0)
    ax = figure.add_subplot()
    for color, name in zip(plotting.PALETTE, METHODS, strict=False):
        shown = [line for line in lines if line.name == name and line.k in (None, line.behaviours)]
        if shown:
            counts = [line.behaviours for line in shown]
            ax.plot(counts, [line.gains.mean() for line in shown], color=color, marker="o", label=_title(shown[0]))
            for line in shown:
                ax.plot(np.full(len(line.gains), line.behaviours), line.gains, ".", color=color, alpha=0.4)
    ax.set(xlabel="behaviours (K as many)", ylabel="share of the gain", xticks=COUNTS, ylim=(-1.05, 1.05))
    ax.axhline(0, color="black", linewidth=0.5)
    if lines:
        ax.legend(fontsize=6)
    notes = [
        *provenance(records),
        "Share of the gain: 0 is the better behaviour as it is in the data, 1 the best joining of all ways at full "
        "speed. Below 0: worse than the better behaviour. Mean ± std over draws and seeds, 10 episodes each.",
        "Steps on the shortest path's behaviour: where more than one behaviour has been, the share of steps at which "
        "the chosen cluster's behaviour is no worse than the shortest path's.",
    ]
    caption = (
        "The share of what joining behaviours can gain that each method has, against the number of behaviours: a "
        "dot a run, lines through the means. What is below -1 is not drawn."
    )
    return columns.table("EMPO on drawn behaviours", COLUMNS, lines, notes), {"gain": captioned(figure, caption)}


TABLE = Table(
    name="empo/stitching",
    summary="EMPO on 2 to 5 behaviours of which some join, and with wrong numbers of clusters",
    datasets=tuple(f"navigation-drawn-{count}" for count in COUNTS),
    methods=METHODS,
    presets=PRESETS_HERE,
    cells=cells,
    render=render,
)
