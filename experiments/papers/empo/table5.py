"""Table 5 of the EMPO paper: the Rand index with and without each of its clustering's three heuristics.

    trajclust run empo/table5 --preset cpu --datasets hopper

Momentum mu (I), N_p epochs of pre-training (II), N_b epochs of biasing (III): all eight settings and all seeds are one
program. Beside them PG-Kmeans with its own settings.
"""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from trajclust_experiments.catalogue import CATALOGUE
from trajclust_experiments.cells.cell import Cell
from trajclust_experiments.cells.methods import MethodCell
from trajclust_experiments.rendering import columns
from trajclust_experiments.rendering.columns import Column
from trajclust_experiments.rendering.figures import captioned, panels
from trajclust_experiments.rendering.markdown import provenance, spread
from trajclust_experiments.tables import Preset, Records, Table
from trajclust_jax.lazy import lazy

plotting = lazy("trajclust_envs.plotting")

TASKS = ("halfcheetah", "hopper", "walker2d")
DATASETS = tuple(f"{task}-medium-expert" for task in TASKS)
# By task and (mu, N_p, N_b): mean and std of the Rand index in per cent over 10 seeds.
PUBLISHED = {
    "halfcheetah-medium-expert": {
        (0.0, 0, 0): (59.98, 21.09),
        (0.0, 0, 3): (64.95, 24.12),
        (0.0, 20, 0): (99.98, 0.04),
        (0.0, 20, 3): (99.98, 0.04),
        (0.9, 0, 0): (100.0, 0.0),
        (0.9, 0, 3): (100.0, 0.0),
        (0.9, 20, 0): (100.0, 0.0),
        (0.9, 20, 3): (100.0, 0.0),
    },
    "hopper-medium-expert": {
        (0.0, 0, 0): (69.54, 21.02),
        (0.0, 0, 3): (95.30, 14.85),
        (0.0, 20, 0): (100.0, 0.0),
        (0.0, 20, 3): (100.0, 0.0),
        (0.9, 0, 0): (100.0, 0.0),
        (0.9, 0, 3): (100.0, 0.0),
        (0.9, 20, 0): (100.0, 0.0),
        (0.9, 20, 3): (100.0, 0.0),
    },
    "walker2d-medium-expert": {
        (0.0, 0, 0): (77.07, 23.49),
        (0.0, 0, 3): (91.85, 15.25),
        (0.0, 20, 0): (96.58, 4.50),
        (0.0, 20, 3): (95.16, 4.87),
        (0.9, 0, 0): (98.42, 2.35),
        (0.9, 0, 3): (98.71, 2.52),
        (0.9, 20, 0): (99.89, 0.08),
        (0.9, 20, 3): (99.93, 0.08),
    },
}


def _grid(epochs: int, least_steps: int, *features: int) -> dict[str, Any]:
    policy = {"features": features, "learning_rate": 3e-4, "scored_steps": 100}
    return {
        "iterations": epochs,
        "patience": epochs,
        "least_steps": least_steps,
        "policy_settings": tuple(policy.items()),
    }


PRESETS = {
    "smoke": Preset(
        "a minute: does everything run? The numbers mean nothing",
        size=6,
        long_size=6,
        seeds=2,
        settings={
            "empo_grid": {**_grid(2, 5, 16, 16), "settings": tuple(itertools.product((0, 1), (0, 1), (0.0, 0.9)))},
            "pg_kmeans_mlp": {"iterations": 2, "polish_iterations": 1, "restarts": 2, "reconsidered": 0.0},
        },
    ),
    "cpu": Preset(
        "half an hour a task on one core: 50 trajectories a policy, 60 epochs of 300 steps or more, layers of 64",
        size=50,
        long_size=50,
        seeds=10,
        settings={"empo_grid": _grid(60, 300, 64, 64)},
    ),
    "paper": Preset(
        "the paper's scale: 1,000 trajectories a policy, 100 epochs, 10 seeds",
        size=1000,
        long_size=1000,
        seeds=10,
        settings={"empo_grid": _grid(100, 1, 256, 256, 256)},
    ),
}


def cells(preset: Preset, datasets, methods, seeds) -> list[Cell]:
    """A cell a dataset and method."""
    chosen: list[Cell] = []
    for dataset in datasets:
        for method in methods:
            usual = {} if method == "empo_grid" else CATALOGUE[method].long_settings()
            settings = {**usual, **preset.settings.get(method, {})}
            chosen.append(MethodCell(dataset, preset.long_size, method, tuple(seeds), tuple(sorted(settings.items()))))
    return chosen


class Line(NamedTuple):
    """A setting of a grid, or PG-Kmeans."""

    record: Mapping[str, Any]
    setting: tuple[float, int, int] | None  # mu, N_p, N_b; None: PG-Kmeans
    rand: np.ndarray  # [S], per cent


def lines(records: Records) -> list[Line]:
    """Of each dataset its settings in the order of the paper's table, then PG-Kmeans."""
    found = []
    for record in records:
        if record["cell"]["method"] != "empo_grid":
            found.append(Line(record, None, 100 * np.array(record["scores"]["ri"])))
            continue
        for each in record["grid"]:
            setting = tuple(each["setting"][name] for name in ("momentum", "pretrain_epochs", "bias_epochs"))
            found.append(Line(record, setting, 100 * np.array(each["ri"])))
    order = {dataset: place for place, dataset in enumerate(DATASETS)}
    last = (np.inf,)
    return sorted(found, key=lambda line: (order[line.record["cell"]["dataset"]], line.setting or last))


def published(line: Line) -> tuple[float, float] | None:
    """The paper's mean and std."""
    return PUBLISHED[line.record["cell"]["dataset"]].get(line.setting)


def _part(place: int) -> Any:
    return lambda line: "-" if line.setting is None else f"{line.setting[place]:g}"


COLUMNS = [
    columns.task(),
    columns.method("method", lambda line: "PG-Kmeans" if line.setting is None else "EMPO's EM"),
    Column("mu", _part(0)),
    Column("N_p", _part(1)),
    Column("N_b", _part(2)),
    Column("Rand index, %", lambda line: spread(line.rand, 2)),
    Column("lowest", lambda line: f"{line.rand.min():.2f}"),
    Column("collapsed or wrong", lambda line: f"{(line.rand < 90).sum()} of {len(line.rand)}"),
    *columns.published(published, lambda line: line.rand.mean()),
    columns.num_seeds(),
]


def render(records: Records):
    shown = lines(records)
    by_dataset = {line.record["cell"]["dataset"]: [] for line in shown}
    for line in shown:
        by_dataset[line.record["cell"]["dataset"]].append(line)
    figure, axes = panels(by_dataset, 3.0)
    for ax, found in zip(axes, by_dataset.values(), strict=True):
        for position, line in enumerate(found):
            color = plotting.PALETTE[1 if line.setting is None else 0]
            ax.plot(line.rand, np.full(len(line.rand), position), ".", color=color, alpha=0.5)
            ax.plot(line.rand.mean(), position, "|", color=color, ms=14, mew=2)
            if published(line) is not None:
                ax.plot(published(line)[0], position, "o", mfc="none", mec="black", ms=7)
        names = ["PG-Kmeans" if line.setting is None else "{:g}, {}, {}".format(*line.setting) for line in found]
        ax.set_yticks(range(len(found)), names, fontsize=7)
        ax.set(xlabel="Rand index, % (bar: mean, circle: published)", ylim=(len(found) - 0.4, -0.6))
        ax.xaxis.label.set_size(7)
    axes[0].set_ylabel("mu, N_p, N_b", fontsize=7)
    notes = [
        *provenance(records),
        "Mean ± std over seeds. The grid's epochs are stretched to so many gradient steps where the data have fewer "
        "minibatches: steps count, not epochs. The paper's numbers are of D4RL's data.",
    ]
    title = "EMPO paper, Table 5: the heuristics of its clustering"
    caption = (
        "Rand index with and without each of EMPO's heuristics: a dot a run, a bar at the mean, circles for "
        "published ones."
    )
    return columns.table(title, COLUMNS, shown, notes), {"rand": captioned(figure, caption)}


TABLE = Table(
    name="empo/table5",
    summary="the Rand index with and without each of EMPO's heuristics",
    datasets=DATASETS,
    methods=("empo_grid", "pg_kmeans_mlp"),
    presets=PRESETS,
    cells=cells,
    render=render,
)
