"""Figure 4 of the PG-Kmeans paper: single-run NMI against the initial number of clusters K.

    trajclust run pgkmeans/figure4 --preset cpu

The paper draws its MuJoCo tasks, without numbers, and states for GridWorld (C.2.2) that without merging NMI falls by
less than 0.1 up to K = 3 k*, and with merging hardly at all. Without merging means the clusters at the end of EM.
Nothing is reconsidered after the polish, which would hide what the merging does. DEC has K centroids throughout.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.methods import ORACLE
from trajclust_experiments.papers import pgkmeans
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.rendering.stored import answered, grouped, last_of_phase, oracle_nmi
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.data import REGISTRY
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")

PRESETS = {**pgkmeans.PRESETS, "cpu": dataclasses.replace(pgkmeans.PRESETS["cpu"], seeds=3)}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """The cells of K = k*, k* + 1, k* + 2, 2 k* and 3 k*."""
    chosen = []
    for dataset in datasets:
        true = REGISTRY[dataset].num_policies
        for extra in (0, 1, 2, true, 2 * true):
            for method in methods:
                more = {"extra_clusters": extra, "reconsidered": 0.0}
                if method == "dec":  # k* is the default, so that Table 1's record serves
                    more = {"num_clusters": true + extra} if extra else {}
                chosen += pgkmeans.cells(preset, (dataset,), (method,), seeds, **more)
    return list(dict.fromkeys(chosen))


class _Line(NamedTuple):
    record: dict[str, Any]
    k: int  # initial K
    nmi: dict[str, np.ndarray | None]  # of single runs without merging, merged and in the end (polished), and the best


LINES = {"no merging": ":", "merged": "--", "final": "-"}
COLUMNS = [
    columns.task(),
    columns.method(),
    Column("K", lambda line: str(line.k)),
    *(
        Column(header, lambda line, name=name: "-" if line.nmi[name] is None else spread(line.nmi[name]))
        for header, name in {
            "single run, no merging": "no merging",
            "single run, merged": "merged",
            "single run, polished": "final",
            "best of restarts": "best",
        }.items()
    ),
]


def _line(record: dict[str, Any]) -> _Line:
    settings, best = record["cell"]["hyperparameters"], np.array(record["scores"]["nmi"])
    if "extra_clusters" not in settings:
        nmi = {"no merging": best, "merged": None, "final": None, "best": None}
        return _Line(record, settings["num_clusters"], nmi)
    phases = (last_of_phase(record, name, "nmi") for name in ("em", "merge", "polish"))
    em, merged, polished = (None if values is None else values.ravel() for values in phases)
    nmi = {"no merging": em, "merged": em if merged is None else merged, "final": polished, "best": best}
    return _Line(record, settings["num_clusters"] + settings["extra_clusters"], nmi)


def render(records: Records):
    lines: list[_Line] = []
    found = grouped(answered(records))
    figure, axes = panels(found, 3.4)
    for ax, methods in zip(axes, found.values(), strict=True):
        ceiling = oracle_nmi(methods)
        methods.pop(ORACLE, None)
        for color, (name, of_method) in zip(plotting.PALETTE, methods.items(), strict=False):
            points = sorted(map(_line, of_method), key=lambda line: line.k)
            lines += points
            for label, style in LINES.items():
                values = [line.nmi[label] for line in points]
                if any(value is None for value in values):
                    continue
                mean, std = np.array([[v.mean(), v.std()] for v in values]).T
                title = pgkmeans.method_title(name).removeprefix("PG-Kmeans, ")
                initial = [line.k for line in points]
                ax.plot(initial, mean, style, color=color, marker=".", label=f"{title}, {label}")
                ax.fill_between(initial, mean - std, mean + std, color=color, alpha=0.08, linewidth=0)
        ax.axhline(ceiling, color="black", linewidth=1, linestyle="-.", label=f"oracle {ceiling:.3f}")
        ax.set(xlabel="initial number of clusters K", ylim=(None, 1.02))
        ax.legend(fontsize=6)
    axes[0].set_ylabel("NMI, single run")
    notes = [
        *provenance(records),
        "Mean ± std; single runs over seeds and restarts, the best over seeds. The first K of each task is k*.",
        "The paper prints no numbers here: for GridWorld a fall below 0.1 up to K = 3 k* is all it states.",
    ]
    title = "PG-Kmeans paper, Figure 4: NMI against initial K"
    caption = (
        "NMI against the initial number of clusters, with and without merging: means over runs, bands of a "
        "standard deviation, the oracle's as a line."
    )
    return columns.table(title, COLUMNS, lines, notes), {"nmi-against-k": captioned(figure, caption)}


TABLE = Table(
    name="pgkmeans/figure4",
    summary="NMI against the initial K, with and without merging",
    datasets=tuple(
        name for name in pgkmeans.PAPER_DATASETS if name not in ("pathfollowing", "extra-vi", "extrafixed-vi")
    ),
    methods=("pg_kmeans_tabular", "pg_kmeans_mlp", "dec"),
    presets=PRESETS,
    cells=cells,
    render=render,
)
