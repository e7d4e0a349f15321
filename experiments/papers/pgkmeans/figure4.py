"""Figure 4 of the PG-Kmeans paper: single-run NMI against the initial number of clusters K.

    trajclust run pgkmeans/figure4 --preset cpu

The paper draws its MuJoCo tasks, without numbers, and states for GridWorld (C.2.2) that without merging NMI falls by
less than 0.1 up to K = 3 k*, and with merging hardly at all. Without merging means the clusters at the end of EM.
Nothing is reconsidered after the polish, which would hide what the merging does. DEC has K centroids throughout.
"""

import dataclasses

import numpy as np

from trajclust_envs.plotting import PALETTE
from trajclust_experiments.methods import ORACLE
from trajclust_experiments.papers.pgkmeans import common
from trajclust_experiments.rendering import document, provenance, spread
from trajclust_experiments.runner import Cell
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.data import REGISTRY

PRESETS = {**common.PRESETS, "cpu": dataclasses.replace(common.PRESETS["cpu"], seeds=3)}


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
                chosen += common.cells(preset, (dataset,), (method,), seeds, **more)
    return list(dict.fromkeys(chosen))


LINES = {"no merging": ":", "merged": "--", "final": "-"}


def _point(record) -> tuple[int, dict[str, np.ndarray | None]]:
    """Initial K, and NMI of single runs without merging, merged and in the end (polished), and of the best."""
    settings, best = record["cell"]["hyperparameters"], np.array(record["scores"]["nmi"])
    if "extra_clusters" not in settings:
        return settings["num_clusters"], {"no merging": best, "merged": None, "final": None, "best": None}
    phases = {name: common.last_of_phase(record, name, "nmi") for name in ("em", "merge", "polish")}
    em, merged, polished = (None if values is None else values.ravel() for values in phases.values())
    merged = em if merged is None else merged
    columns = {"no merging": em, "merged": merged, "final": polished, "best": best}
    return settings["num_clusters"] + settings["extra_clusters"], columns


def render(records: Records):
    rows = []
    grouped = common.by_cell(common.answered(records))
    figure, axes = common.panels(grouped, 3.4)
    for ax, (dataset, methods) in zip(axes, grouped.items(), strict=True):
        ceiling = common.oracle_nmi(methods)
        methods.pop(ORACLE, None)
        for color, (name, of_method) in zip(PALETTE, methods.items(), strict=False):
            points = sorted((_point(record) for record in of_method), key=lambda point: point[0])
            for k, columns in points:
                cells = ["-" if values is None else spread(values) for values in columns.values()]
                rows.append([common.TITLES[dataset], common.method_title(name), str(k), *cells])
            for label, style in LINES.items():
                values = [columns[label] for _, columns in points]
                if any(value is None for value in values):
                    continue
                mean, std = np.array([[v.mean(), v.std()] for v in values]).T
                title = common.method_title(name).removeprefix("PG-Kmeans, ")
                initial = [k for k, _ in points]
                ax.plot(initial, mean, style, color=color, marker=".", label=f"{title}, {label}")
                ax.fill_between(initial, mean - std, mean + std, color=color, alpha=0.08, linewidth=0)
        ax.axhline(ceiling, color="black", linewidth=1, linestyle="-.", label=f"oracle {ceiling:.3f}")
        ax.set(xlabel="initial number of clusters K", ylim=(None, 1.02))
        ax.legend(fontsize=6)
    axes[0].set_ylabel("NMI, single run")
    header = [
        "task",
        "method",
        "K",
        "single run, no merging",
        "single run, merged",
        "single run, polished",
        "best of restarts",
    ]
    notes = [
        *provenance(records),
        "Mean ± std; single runs over seeds and restarts, the best over seeds. The first K of each task is k*.",
        "The paper prints no numbers here: for GridWorld a fall below 0.1 up to K = 3 k* is all it states.",
    ]
    title = "PG-Kmeans paper, Figure 4: NMI against initial K"
    return document(title, header, rows, notes), {"nmi-against-k": figure}


TABLE = Table(
    name="pgkmeans/figure4",
    summary="NMI against the initial K, with and without merging",
    datasets=tuple(
        name for name in common.PAPER_DATASETS if name not in ("pathfollowing", "extra-vi", "extrafixed-vi")
    ),
    methods=("pg_kmeans_tabular", "pg_kmeans_mlp", "dec"),
    presets=PRESETS,
    cells=cells,
    render=render,
)
